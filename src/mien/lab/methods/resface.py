"""ResFace: a ResNet with local features and a channel-spatial modulator, trained on label distributions.

Zhengeng Qu, Danying Niu: "Leveraging ResNet and label distribution in advanced intelligent systems for facial expression
recognition", AIMS Press, 2023. No code was published; it follows EfficientFace (Zhao, Liu and Zhou, AAAI 2021).

Network: networks/resface.py (section 3). Loss: losses/label_distribution.py (eqs. 3.4-3.5) with a teacher that
methods/ldg.py trains. Deviations: `DEVIATIONS` below.
"""

from dataclasses import replace

from mien.lab.losses.label_distribution import LabelDistribution
from mien.lab.losses.softmax import Softmax
from mien.lab.methods.method import Augment, Method, Recipe, Variant
from mien.lab.methods.published import Column, Row, grid, quoted
from mien.lab.networks.efficientface import EfficientFace
from mien.lab.networks.resface import ResFace

DEVIATIONS = {
    "D1": "Channel and spatial logits are added before the sigmoid (eq. 3.1); the EfficientFace code multiplies them "
    "(network.combine=multiply).",
    "D2": "The local-feature extractor's layers are ours: the paper gives conv1's output, the four patches and the "
    "transposed convolution only. Its 0.092 M fits the printed +0.1 M for ResNet-18.",
    "D3": "The printed parameter counts cannot be met: a plain ResNet-18 has 11.18 M and ResNet-50 23.52 M (the paper's "
    "own Table 5 quotes them), and MFLOPs divided by parameters is 162.64 to 162.66 in every ablation row, so that column was "
    "not measured. network.width=0.953 (depth 18) and 0.719 (depth 50) come near rows A.",
    "D4": "The network trains from a random start, as lr 0.1 suggests; pass --pretrained PATH for the other reading.",
    "D5": "The label-distribution generator is a ResNet-50 trained on the same training set (mien train ldg). The paper's "
    "starts from MS-Celeb-1M weights, which are not shipped: pass them by --pretrained PATH.",
    "D6": "FER2013 in the text means FER+ with 8 classes, as its tables say; the label rule is majority. `mien reproduce` reports "
    "FER+'s public half by itself; --report-on test takes the private one.",
    "D7": 'The "cross-entropy" rows of Table 5 are read as A + B + C trained on hard labels; their larger parameter '
    "counts (12.4 M, 13.1 M) cannot follow from another loss.",
    "D8": "Momentum 0.9, weight decay 1e-4, lr times 0.1 every 30 of 100 epochs, and a random resized crop of 8 to 100 % "
    "of the area are EfficientFace's; the paper leaves them unstated.",
    "D9": "Aggregation happens once, after stage 2; the loss keeps its 1/(N K) (loss.scale=K gives soft cross-entropy).",
    "D10": "Other input sizes than 224 split conv1's map into quarters whose first rows and columns are even in number.",
    "D11": "The cpu preset takes a quarter of the widths at 64 px grey, 12 epochs, a cosine schedule; train its teacher with "
    "ldg's cpu preset.",
}

PAPER = Recipe(
    network=ResFace(depth=18),
    loss=LabelDistribution(),
    size=224,
    channels=3,
    mean=(0.57535914, 0.44928582, 0.40079932),  # EfficientFace, RAF-DB
    std=(0.20735591, 0.18981615, 0.18132027),
    augment=Augment(flip=0.5, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)),  # D8
    optimiser="sgd",
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="steps",
    milestones=((30, 0.1), (60, 0.01), (90, 0.001)),
    batch=64,
    epochs=100,
)

CPU = replace(  # D11
    PAPER,
    network=ResFace(depth=18, width=0.25),
    size=64,
    channels=1,
    mean=(0.5,),
    std=(0.25,),
    augment=Augment(flip=0.5, rotate=10, scale=(0.85, 1.15), shift=0.05),
    schedule="cosine",
    milestones=(),
    warmup=0.05,
    epochs=12,
)

PARTS = {"a": (False, False), "ab": (True, False), "ac": (False, True), "abc": (True, True)}
VARIANTS = (
    {
        f"resface{depth}-{parts}": Variant(
            network=ResFace(depth=depth, local=local, modulator=modulator),
            loss=LabelDistribution(),
            channels=3,
            size=224,
            classes=7,
            note="Tables 1 to 4",
        )
        for depth in (18, 50)
        for parts, (local, modulator) in PARTS.items()
    }
    | {
        f"resface{depth}-ce": Variant(
            ResFace(depth=depth), Softmax(), channels=3, size=224, classes=7, note="Table 5, D7"
        )
        for depth in (18, 50)
    }
    | {
        "efficientface": Variant(
            EfficientFace(),
            LabelDistribution(),
            channels=3,
            size=224,
            classes=7,
            note="the network that ResFace follows",
        )
    }
)

COSTS = (Column("# Params (M)", metric="parameters", unit="M"), Column("# MFLOPs", metric="macs", unit="MFLOPs"))
RAF, FER = Column("RAF-DB Accuracy", "rafdb", "accuracy"), Column("FER+ Accuracy", "ferplus", "accuracy")
NAMES = {"a": "A", "ab": "A + B", "ac": "A + C", "abc": "A + B + C"}
COST_18 = {"a": (10.1, 1642.86), "ab": (10.2, 1659.13), "ac": (10.3, 1675.39), "abc": (10.4, 1691.66)}
COST_50 = {"a": (12.1, 1968.18), "ab": (12.2, 1984.45), "ac": (12.3, 2000.72), "abc": (12.4, 2016.74)}


def _ablation(
    depth: int, costs: dict[str, tuple[float, float]], accuracies: tuple[float, float, float, float]
) -> tuple[Row, ...]:
    """The four rows of one of Tables 1 to 4."""
    return tuple(
        Row(NAMES[parts], (*costs[parts], accuracy), f"resface{depth}-{parts}", note="params and MFLOPs: D3")
        for parts, accuracy in zip(PARTS, accuracies, strict=True)
    )


TABLE_5 = (
    quoted("IPA2LT", 23.52, 4109.48, 86.77, note="params and MFLOPs printed as lower bounds"),
    quoted("Separate-Loss", 11.18, 1818.56, 86.38),
    quoted("gACNN", 134.29, 15479.79, 85.07, note="params and MFLOPs printed as lower bounds"),
    quoted("RAN", 11.19, 14548.45, 86.90),
    quoted("LDL-ALSG", 23.52, 4109.48, 85.53),
    quoted("SCN", 11.18, 1818.56, 87.03),
    Row("EfficientFace", (1.28, 154.18, 88.36), "efficientface", quoted="EfficientFace"),
    Row("ResNet-18, cross-entropy", (12.4, 2156.12, 83.24), "resface18-ce", note="D7"),
    Row("ResNet-50, cross-entropy", (13.1, 2789.74, 84.12), "resface50-ce", note="D7"),
    Row("ResNet-18", (10.4, 1691.66, 88.21), "resface18-abc", note="D3"),
    Row("ResNet-50", (12.4, 2016.74, 88.38), "resface50-abc", note="D3"),
)
TABLE_6 = (
    quoted("VGG13", 85.10),
    quoted("ResNet-18+VGG16", 87.40),
    quoted("SENet-50", 88.80),
    quoted("RAN+ResNet-18", 88.55),
    quoted("RAN+VGG16", 89.16),
    quoted("SCN+ResNet-18", 88.01),
    quoted("SCN+ResNet-18+ArcFace", 89.35),
    Row("ResNet-18, cross-entropy", (84.07,), "resface18-ce"),
    Row("ResNet-50, cross-entropy", (85.20,), "resface50-ce"),
    Row("ResNet-18", (87.89,), "resface18-abc"),
    Row("ResNet-50", (89.87,), "resface50-abc"),
)

METHOD = Method(
    name="resface",
    title="ResFace",
    citation="Z. Qu, D. Niu. Leveraging ResNet and label distribution in advanced intelligent systems for facial "
    "expression recognition. AIMS Press, 2023",
    summary="ResNet with local features and channel-spatial attention after stage 2, taught by another network's label "
    "distributions.",
    recipes={
        "paper": PAPER,
        "paper/resnet50": replace(PAPER, network=ResFace(depth=50)),
        "paper/ce": replace(PAPER, loss=Softmax()),
        "paper/votes": replace(PAPER, loss=LabelDistribution(source="votes")),
        "cpu": CPU,
    },
    variants=VARIANTS,
    published=(
        *grid("Table 1", (*COSTS, RAF), _ablation(18, COST_18, (88.00, 88.02, 88.07, 88.21))),
        *grid("Table 2", (*COSTS, RAF), _ablation(50, COST_50, (88.02, 88.11, 88.16, 88.38))),
        *grid("Table 3", (*COSTS, FER), _ablation(18, COST_18, (87.78, 87.80, 87.81, 87.89))),
        *grid("Table 4", (*COSTS, FER), _ablation(50, COST_50, (88.83, 89.46, 89.54, 89.87))),
        *grid("Table 5", (*COSTS, RAF), TABLE_5),
        *grid("Table 6", (FER,), TABLE_6),
    ),
    deviations=DEVIATIONS,
)
