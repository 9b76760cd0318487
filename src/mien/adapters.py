"""Readings in the shapes that programs written for other tools parse today: DeepFace, fer, pandas.

Both tools know seven classes. A model with contempt drops it and the rest is scaled to sum to 1 again, as the card's
rule for 7-class data says. Their words and their order are kept; a picture without a face gives [].
"""

from typing import TYPE_CHECKING, Any

from mien import tables
from mien.errors import UsageError
from mien.expressions import FER2013, canonical
from mien.reader import Face, Reading

if TYPE_CHECKING:
    import pandas

CLASSES: tuple[str, ...] = tuple(FER2013.values())  # both tools' words, in FER-2013's order


def to_pandas(reading: Reading) -> "pandas.DataFrame":
    """The reading's rows as a table; several readings: `pandas.concat`. Numbers have the same types with and without faces, Int64
    and float64. Raises UsageError without pandas."""
    try:
        import pandas
    except ImportError:
        raise UsageError('to_pandas needs pandas; run `pip install "mien[tables]"`, or take rows()') from None
    table = pandas.DataFrame(reading.rows())
    return table.astype(tables.kinds(table.columns))


def to_deepface(reading: Reading) -> list[dict[str, Any]]:
    """As `DeepFace.analyze(image, actions=["emotion"])`: probabilities in percent; in "region" whole px, the eyes named
    from the person's side, as deepface names them, None where the detector gives no points.

    A picture without a face gives [], where deepface raises unless enforce_detection is off.
    """
    return [
        {
            "emotion": {name: 100 * value for name, value in seven(face).items()},
            "dominant_emotion": max(seven(face).items(), key=lambda item: item[1])[0],
            "region": _region(face, reading),
            "face_confidence": round(face.detection_score, 2),
        }
        for face in reading
    ]


def to_fer(reading: Reading) -> list[dict[str, Any]]:
    """As `FER().detect_emotions(image)`: box as [x, y, width, height] in whole px, probabilities to two decimals."""
    return [
        {"box": list(_whole_box(face)), "emotions": {name: round(value, 2) for name, value in seven(face).items()}}
        for face in reading
    ]


def seven(face: Face) -> dict[str, float]:
    """The seven classes' probabilities, which sum to 1, by these tools' words; a class the model lacks is 0."""
    values = {name: face.probabilities.get(canonical(name), 0.0) for name in CLASSES}
    total = sum(values.values())
    return {name: value / total if total > 0 else 1 / len(CLASSES) for name, value in values.items()}


def _region(face: Face, reading: Reading) -> dict[str, Any]:
    """The part of the box inside the picture, as deepface clips its own; of an eye outside, None."""
    x, y, width, height = _whole_box(face)
    left, right = (min(max(edge, 0), reading.width) for edge in (x, x + width))
    top, bottom = (min(max(edge, 0), reading.height) for edge in (y, y + height))
    eyes: tuple[tuple[int, int] | None, ...] = (None, None)
    if face.landmarks:
        whole = [(round(a), round(b)) for a, b in face.landmarks[:2]]
        eyes = tuple(eye if 0 <= eye[0] < reading.width and 0 <= eye[1] < reading.height else None for eye in whole)
    return {"x": left, "y": top, "w": right - left, "h": bottom - top, "left_eye": eyes[1], "right_eye": eyes[0]}


def _whole_box(face: Face) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    return (x1, y1, x2 - x1, y2 - y1)
