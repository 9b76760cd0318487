"""LDG: the label-distribution generator, ResFace's teacher. Train it, then hand it over:

    mien train ldg --data rafdb --root DIR --select-on holdout -o TEACHER
    mien train resface --data rafdb --root DIR --select-on holdout --teacher TEACHER -o RUN

A ResNet-50 trained with hard labels on the student's training set and then frozen (ResFace, section 3.4; EfficientFace,
Zhao, Liu and Zhou, AAAI 2021). Its pictures are the student's: same size, colour and normalisation.
"""

from dataclasses import replace

from mien.lab.losses.softmax import Softmax
from mien.lab.methods.method import Method, Variant
from mien.lab.methods.resface import CPU as STUDENT_CPU
from mien.lab.methods.resface import PAPER as STUDENT
from mien.lab.networks.resnet import ResNet18, ResNet50

RESNET50 = ResNet50(head=0, stride="second")

METHOD = Method(
    name="ldg",
    title="LDG",
    citation="Z. Zhao, Q. Liu, F. Zhou. Robust Lightweight Facial Expression Recognition Network with Label "
    "Distribution Training. AAAI 2021",
    summary="ResFace's teacher: a ResNet-50 trained with hard labels, whose softmax is the student's target.",
    recipes={
        "paper": replace(STUDENT, network=RESNET50, loss=Softmax(), lr=0.01),  # D1
        "cpu": replace(STUDENT_CPU, network=ResNet18(width=0.25, head=0), loss=Softmax(), lr=0.05),  # D2
    },
    variants={"ldg": Variant(RESNET50, Softmax(), channels=3, size=224, classes=7)},
    published=(),
    deviations={
        "D1": "The paper's generator starts from MS-Celeb-1M weights, which are not shipped: pass them by --pretrained "
        "PATH. Its own training is not described; this is the student's recipe with hard labels and lr 0.01.",
        "D2": "The cpu preset is a ResNet-18 at a quarter of the widths, 64 px grey, to match ResFace's cpu preset.",
    },
    starts_from="MS-Celeb-1M",
)
