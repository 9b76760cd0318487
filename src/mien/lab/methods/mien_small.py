"""mien-small: how the bundled model is trained. Not a paper: our own recipe. It is grown: a network of seven convolutions from a
random start (FIRST), with weaker augmentation (SECOND), with a teacher (THIRD), then four convolutions more (FOURTH). The last
command makes the shipped file of it.

    mien train mien-small --data ferplus --root DIR -o FIRST --seed 1
    mien train mien-small --data ferplus --root DIR -o SECOND --seed 1 --pretrained FIRST/best.ckpt \\
        --set network.dropout=0.2 --set epochs=40 --set lr=0.05 --set warmup=0.02 \\
        --set 'sizes=((0.0,40),(0.4,48))' --set augment.cutout=0.3 --set loss.balance=0.25
    mien export OTHER SECOND -o pair.onnx --root DIR --weights int8
    mien train mien-small --data ferplus --root DIR -o THIRD --seed 10 --pretrained SECOND/best.ckpt --teacher pair.onnx \\
        --set network.dropout=0.2 --set epochs=18 --set lr=0.05 --set warmup=0.02 \\
        --set 'sizes=((0.0,40),(0.3,48))' --set augment.cutout=0.3 --set loss.balance=0.25 --set loss.votes_weight=0.3 \\
        --set loss.labels_weight=0.3 --set loss.teacher_weight=0.7
    mien export OTHERS_THIRD THIRD -o pair2.onnx --root DIR --weights int8
    mien train mien-small --data ferplus --root DIR -o FOURTH --seed 11 --pretrained THIRD/best.ckpt --teacher pair2.onnx \\
        --set 'network.depths=(1,3,4,3)' --set network.dropout=0.2 --set epochs=48 --set lr=0.05 --set warmup=0.02 \\
        --set 'sizes=((0.0,40),(0.4,48))' --set augment.cutout=0.3 --set loss.balance=0.25 --set loss.votes_weight=0.5 \\
        --set loss.labels_weight=0.5 --set loss.teacher_weight=0.5
    mien export FOURTH -o mien-small.onnx --root DIR --flip --weights int8

FIRST is mien-small-7, SECOND mien-small-8, THIRD mien-small-10, FOURTH mien-small-11. OTHER and OTHERS_THIRD, mien-small-6 and -9,
come from another random start: mien-small-6 went through the second command twice, with 31 and 30 epochs and the larger pictures
from half of them on, mien-small-9 through the third with 24 epochs, seed 9 and the larger pictures from 0.4 of them on.

The commands do what they did then but for two things: each stage's main head began at random, and its pictures were turned in
bfloat16.

FER-2013's training rows carry both label sets (label rule "joint"): FER+ vote distributions for the eight expressions, and
FER-2013's hard labels for its seven. Random start; chosen on PublicTest. What was tried is logged in docs/findings.md.
"""

from dataclasses import replace

from mien.lab.losses.two_heads import TwoHeads
from mien.lab.methods.method import Augment, Method, Recipe, Variant
from mien.lab.networks.mien_small import MienSmall

_BUNDLED = Recipe(
    network=MienSmall(),
    loss=TwoHeads(),
    size=48,
    channels=1,
    mean=(0.5077,),  # FER-2013 Training, all pixels: mean 129.47, standard deviation 65.03 of 255
    std=(0.2550,),
    augment=Augment(
        flip=0.5,
        rotate=15.0,
        scale=(0.82, 1.08),
        shift=0.07,
        brightness=0.2,
        contrast=0.3,
        cutout=0.5,
        cutout_size=(0.2, 0.45),
        blur=0.1,
        noise=0.1,
    ),
    optimiser="sgd",
    lr=0.1,
    nesterov=True,
    weight_decay=5e-4,
    decay_norms=False,
    schedule="cosine",
    warmup=0.05,
    batch=128,
    epochs=48,
    ema=0.998,
    sizes=((0.0, 32), (0.35, 40), (0.75, 48)),
    label_rule="joint",
    precision="bfloat16",
)

METHOD = Method(
    name="mien-small",
    title="The bundled reader",
    citation="mien, this repository",
    summary="Plain 3x3 convolutions with identity shortcuts, two heads, trained on FER-2013 faces with FER-2013 and FER+ labels.",
    recipes={"paper": _BUNDLED, "cpu": replace(_BUNDLED, epochs=12)},
    variants={"mien-small": Variant(MienSmall(), TwoHeads(), channels=1, size=48, classes=8)},
    published=(),
    deviations={},
)
