"""WCL: weighted-cluster loss and transfer learning for imbalanced expressions.

Quan T. Ngo, Seokhoon Yoon: "Facial Expression Recognition Based on Weighted-Cluster Loss and Deep Transfer Learning
Using a Highly Imbalanced Dataset", Sensors 20 (2020) 2639. No code was published.

Network: networks/resnet.py (SE-ResNet-50 of VGGFace2 with a 512-d feature, Table 2). Loss: losses/weighted_cluster.py
(eqs. 1, 4-9). Deviations: `DEVIATIONS` below.
"""

from dataclasses import replace

from mien.lab.losses import LossOptions
from mien.lab.losses.islets import Centre
from mien.lab.losses.softmax import Softmax, WeightedSoftmax
from mien.lab.losses.weighted_cluster import WeightedCluster
from mien.lab.methods.method import Augment, Method, Recipe, Variant
from mien.lab.methods.published import Column, Row, grid
from mien.lab.networks import NetworkOptions
from mien.lab.networks.resnet import ResNet50, SeResNet50

DEVIATIONS = {
    "D1": "Nothing stands between the 512-d feature and the classifier: no activation is stated and centres need free "
    "signs (network.head_activation=relu is selectable). The input is RGB with ImageNet's mean and deviation, as the "
    "paper says, although VGGFace2's weights expect BGR minus a mean (network.input_norm=vggface2, then mean=0, std=1).",
    "D2": "The centre update of eqs. 8-9 is used with its sign corrected: as printed it moves every centre away from its "
    "samples (loss.centre_update=as_printed does that and warns). It treats D_j as constant, so it never pushes centres "
    "apart; loss.centre_update=autograd follows the full gradient. The step towards the class mean is capped at 1.",
    "D3": "Centres start from N(0, 0.01^2); loss.centre_init=batch-means is selectable.",
    "D4": "Both terms are divided by the batch's summed class weights, as weighted cross-entropy usually is; eqs. 1 and "
    "4 are printed as sums (loss.reduction=sum). Their ratio is the paper's either way.",
    "D5": "N_min is the smallest class of the training table (contempt, 3,250); the text names disgust (3,303).",
    "D6": "Frozen stages keep their BatchNorm in eval mode; only their weights are said to be frozen. From scratch "
    "nothing is frozen.",
    "D7": "Epochs are unstated: 50, the best validation accuracy is kept; `mien reproduce` takes the paper's own "
    "validation rows for that on AffectNet, a tenth of train on other datasets. The random crop is as "
    "torchvision's, 80 to 100 % of the area, sides as 3 to 4 at most, of the picture that was resized before.",
    "D8": "The centre baselines (models 2, 4, 7, ...) use lambda 0.5 and the batch mean. W-softmax is divided by the sum of the "
    "batch's weights, so beside it (models 4, 9, 14, 19) the centre term weighs less than in eqs. 1 and 2, on average by "
    "the mean weight K N_min / N of a row, 0.1 on AffectNet (--set loss.weight=5 makes up for it there).",
    "D9": "ResNet-50 strides in its second convolution, as the ImageNet weights of torchvision do.",
    "D10": "Kappa and alpha are multi-class, not the mean of binary ones as the text says: on the balanced test set all "
    "20 printed kappas equal (accuracy - 1/8) / (7/8).",
    "D11": "No VGGFace2 or ImageNet weights are shipped: pass them by --pretrained PATH. Otherwise use paper/scratch.",
    "D12": "The cpu preset takes a quarter of the widths at 64 px grey from scratch, 20 epochs, Adam at 1e-3 without decay on a "
    "cosine schedule, batch 64. The cluster term weighs 0.1 in it instead of 1: at 1 a random start collapses "
    "(docs/findings.md); the paper's best models start from VGGFace2.",
    "D13": "The paper draws its own AffectNet test set: `mien reproduce` takes its division, `mien train --data affectnet` with "
    "--protocol wcl.",
}

PAPER = Recipe(
    network=SeResNet50(),
    loss=WeightedCluster(),
    size=224,
    channels=3,
    mean=(0.485, 0.456, 0.406),  # ImageNet, section 4.2
    std=(0.229, 0.224, 0.225),
    augment=Augment(flip=0.5, area=(0.8, 1.0), aspect=(3 / 4, 4 / 3)),  # D7
    optimiser="sgd",
    lr=1e-3,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="steps",
    milestones=tuple((10 * k, 0.5**k) for k in range(1, 30)),  # for longer runs, too
    batch=36,
    epochs=50,  # D7
    frozen=("stem", "layer1", "layer2"),  # stages 1-3
)
SCRATCH = replace(PAPER, lr=1e-2, batch=30, frozen=())
RESNET50 = ResNet50(stride="second")  # D9

CPU = replace(  # D12
    SCRATCH,
    network=SeResNet50(width=0.25),
    loss=WeightedCluster(weight=0.1),
    size=64,
    channels=1,
    mean=(0.5,),
    std=(0.25,),
    optimiser="adam",
    lr=1e-3,
    weight_decay=0.0,
    schedule="cosine",
    milestones=(),
    warmup=0.05,
    batch=64,
    epochs=20,
)

LOSSES: dict[str, LossOptions] = {
    "softmax": Softmax(),
    "centre": Centre(weight=0.5),  # D8
    "w-softmax": WeightedSoftmax(),
    "centre-w": Centre(weight=0.5, classification="weighted-softmax"),
    "wcl": WeightedCluster(),
}
NETWORKS: dict[str, NetworkOptions] = {"": SeResNet50(), "resnet50-": RESNET50}

VARIANTS = {
    prefix + name: Variant(network=network, loss=loss, channels=3, size=224, classes=8, note="Tables 5 and 6")
    for prefix, network in NETWORKS.items()
    for name, loss in LOSSES.items()
}

COLUMNS = tuple(
    Column(name, "affectnet", metric)
    for name, metric in (
        ("Accuracy", "accuracy"),
        ("F1-score", "macro_f1"),
        ("Kappa", "kappa"),
        ("Alpha", "alpha"),
        ("AUCPR", "auc_pr"),
        ("AUC", "auc"),
    )
)
TABLE_5 = (
    Row("1: scratch, softmax", (50.65, 46.87, 43.60, 42.60, 62.87, 90.67), "softmax"),
    Row("2: scratch, centre + softmax", (46.07, 39.24, 38.37, 36.89, 55.96, 87.92), "centre"),
    Row("3: scratch, W-softmax", (56.37, 56.41, 50.14, 50.09, 62.27, 90.49), "w-softmax"),
    Row("4: scratch, centre + W-softmax", (56.90, 57.06, 50.74, 50.71, 62.24, 90.33), "centre-w"),
    Row("5: scratch, W-cluster + W-softmax", (56.27, 56.42, 50.03, 49.97, 61.57, 90.10), "wcl"),
    Row("6: VGGFace2, softmax", (52.22, 49.51, 45.4, 44.54, 63.27, 90.75), "softmax"),
    Row(
        "7: VGGFace2, centre + softmax",
        (47.08, 40.02, 39.51, 38.27, 54.91, 86.75),
        "centre",
        note="the text quotes 46.07, which is model 2",
    ),
    Row("8: VGGFace2, W-softmax", (59.72, 59.72, 53.97, 53.93, 66.47, 91.85), "w-softmax", note="best AUC"),
    Row("9: VGGFace2, centre + W-softmax", (59.60, 59.50, 53.83, 53.82, 65.35, 91.21), "centre-w"),
    Row("10: VGGFace2, W-cluster + W-softmax", (60.70, 60.49, 55.09, 55.06, 66.55, 91.82), "wcl"),
)
TABLE_6 = (
    Row("11: scratch, softmax", (49.85, 46.67, 42.69, 41.46, 62.80, 90.63), "resnet50-softmax"),
    Row("12: scratch, centre + softmax", (46.62, 39.96, 39.00, 37.67, 54.08, 86.26), "resnet50-centre"),
    Row("13: scratch, W-softmax", (57.40, 57.33, 51.31, 51.23, 63.05, 90.82), "resnet50-w-softmax"),
    Row("14: scratch, centre + W-softmax", (57.20, 57.08, 51.09, 51.06, 62.61, 90.50), "resnet50-centre-w"),
    Row("15: scratch, W-cluster + W-softmax", (57.37, 57.40, 51.29, 51.24, 62.79, 90.52), "resnet50-wcl"),
    Row("16: ImageNet, softmax", (51.88, 48.89, 45.00, 44.10, 61.6, 90.22), "resnet50-softmax"),
    Row("17: ImageNet, centre + softmax", (48.33, 44.00, 40.94, 39.8, 56.96, 87.89), "resnet50-centre"),
    Row("18: ImageNet, W-softmax", (58.65, 58.59, 52.74, 52.71, 64.58, 91.17), "resnet50-w-softmax"),
    Row("19: ImageNet, centre + W-softmax", (58.27, 58.07, 52.31, 52.24, 63.59, 90.54), "resnet50-centre-w"),
    Row("20: ImageNet, W-cluster + W-softmax", (59.45, 59.42, 53.66, 53.66, 65.26, 91.51), "resnet50-wcl"),
)
CONTEMPT_DISGUST = (
    Column("contempt", "affectnet", "recall/contempt"),
    Column("disgust", "affectnet", "recall/disgust"),
)
FIGURE_6 = (
    Row("6: VGGFace2, softmax", (6, 36), "softmax"),
    Row("10: VGGFace2, W-cluster + W-softmax", (59, 54), "wcl"),
    Row("16: ImageNet, softmax", (10, 30), "resnet50-softmax"),
    Row("20: ImageNet, W-cluster + W-softmax", (53, 47), "resnet50-wcl"),
)
LEAKS = tuple(
    Column(f"{truth} -> {taken}", "affectnet", f"confusion/{truth}/{taken}")
    for truth, taken in (
        ("neutral", "contempt"),
        ("happy", "contempt"),
        ("contempt", "neutral"),
        ("contempt", "happy"),
        ("surprise", "fear"),
        ("fear", "surprise"),
        ("disgust", "anger"),
        ("anger", "disgust"),
    )
)

METHOD = Method(
    name="wcl",
    title="WCL",
    citation="Q. T. Ngo, S. Yoon. Facial Expression Recognition Based on Weighted-Cluster Loss and Deep Transfer "
    "Learning Using a Highly Imbalanced Dataset. Sensors 20 (2020) 2639",
    summary="SE-ResNet-50 pretrained on faces, its late stages tuned with class-weighted softmax and a class-weighted "
    "cluster loss.",
    recipes={
        "paper": PAPER,
        "paper/scratch": SCRATCH,
        "paper/resnet50": replace(PAPER, network=RESNET50),
        "paper/resnet50-scratch": replace(SCRATCH, network=RESNET50),
        "cpu": CPU,
    },
    variants=VARIANTS,
    published=(
        *grid("Table 5", COLUMNS, TABLE_5),
        *grid("Table 6", COLUMNS, TABLE_6),
        *grid("Fig. 6", CONTEMPT_DISGUST, FIGURE_6),
        *grid("Fig. 6", LEAKS, (Row(TABLE_5[9].name, (16, 15, 11, 12, 18, 13, 15, 12), "wcl"),)),
    ),
    deviations=DEVIATIONS,
)
