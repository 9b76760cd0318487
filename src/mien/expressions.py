"""The vocabulary: eight expressions in one canonical order, and every dataset's codes mapped by name.

The order is AffectNet's (ids 0-7), to which Ad-Corre, EfficientFace, LibreFace, OpenFace 3 and uniface remap too.
Nothing in mien maps a label by position: a dataset names its codes here and `canonical` resolves them.
"""

from mien.errors import LabelError

EXPRESSIONS: tuple[str, ...] = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
BASIC: tuple[str, ...] = EXPRESSIONS[:7]  # the seven without contempt: FER-2013, RAF-DB, SFEW, ExpW, AffectNet-7

ALIASES: dict[str, str] = {
    "natural": "neutral",
    "normal": "neutral",
    "happiness": "happy",
    "joy": "happy",
    "smile": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "fearful": "fear",
    "scared": "fear",
    "afraid": "fear",
    "disgusted": "disgust",
    "angry": "anger",
    "contemptuous": "contempt",
}

# What each dataset's owner ships: code -> the owner's word. Sources: the datasets' own readme files.
FER2013: dict[int, str] = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")))
EXPW: dict[int, str] = dict(FER2013)
FERPLUS_COLUMNS: tuple[str, ...] = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
RAFDB: dict[int, str] = dict(
    enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), start=1)
)
COMPOUND: dict[int, str] = dict(  # RAF-DB's second set, eleven classes of two expressions each
    enumerate(
        (
            "happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised",
            "sadly disgusted", "fearfully angry", "fearfully surprised", "angrily surprised",
            "angrily disgusted", "disgustedly surprised",
        ),
        start=1,
    )
)  # fmt: skip
AFFECTNET: dict[int, str] = dict(enumerate(EXPRESSIONS))  # 8 none, 9 uncertain, 10 no face are not expressions
CKPLUS: dict[int, str] = dict(
    enumerate(("neutral", "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"))
)


def canonical(name: str) -> str:
    """The canonical spelling of an expression, e.g. ``"Angry"`` -> ``"anger"``.

    Raises LabelError when the name is not an expression or an alias of one.
    """
    word = name.strip().lower()
    word = ALIASES.get(word, word)
    if word not in EXPRESSIONS:
        raise LabelError(
            f"unknown expression {name!r}: expected one of {', '.join(EXPRESSIONS)} or an alias ({', '.join(ALIASES)})"
        )
    return word
