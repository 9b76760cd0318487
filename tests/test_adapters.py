"""The shapes that users of DeepFace, fer and pandas parse."""

import json
import sys

import numpy as np
import pytest

import mien
from mien import tables
from mien.errors import UsageError
from mien.expressions import EXPRESSIONS
from mien.reader import Face, Reading
from mien.tracking import FrameReading, TrackedFace

POINTS = ((12.4, 20.6), (40.0, 21.0), (26.0, 35.0), (15.0, 50.0), (38.0, 50.0))
WORDS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]  # fer 25.10 and deepface 0.0.103


def face(**changes: object) -> Face:
    probabilities = dict(zip(EXPRESSIONS, (0.1, 0.4, 0.05, 0.05, 0.05, 0.05, 0.1, 0.2), strict=True))
    values = {
        "box": (-3.4, 4.0, 50.2, 60.6),
        "landmarks": POINTS,
        "detection_score": 0.987,
        "expression": "happy",
        "confidence": 0.4,
        "probabilities": probabilities,
    }
    return Face(**{**values, **changes})


def reading(*faces: Face) -> Reading:
    return Reading("a.jpg", 100, 80, faces)


def test_to_deepface() -> None:
    (found,) = reading(face()).to_deepface()
    assert sorted(found) == ["dominant_emotion", "emotion", "face_confidence", "region"]
    assert list(found["emotion"]) == WORDS
    assert sum(found["emotion"].values()) == pytest.approx(100)
    assert found["emotion"]["happy"] == pytest.approx(50) and found["emotion"]["angry"] == pytest.approx(12.5)
    assert found["dominant_emotion"] == "happy" and found["face_confidence"] == 0.99
    assert found["region"] == {"x": 0, "y": 4, "w": 50, "h": 57, "left_eye": (40, 21), "right_eye": (12, 21)}
    (wide,) = reading(face(box=(-5.0, -7.0, 130.0, 90.0))).to_deepface()
    assert [wide["region"][side] for side in "xywh"] == [0, 0, 100, 80]
    for outside in ((-50.0, -40.0, -10.0, -5.0), (120.0, 90.0, 150.0, 130.0)):
        (gone,) = reading(face(box=outside)).to_deepface()
        assert gone["region"]["w"] == gone["region"]["h"] == 0
    (inside,) = reading(face(box=(10.0, 4.0, 50.0, 60.0), landmarks=((0.2, 0.0), *POINTS[1:]))).to_deepface()
    assert [inside["region"][side] for side in "xywh"] == [10, 4, 40, 56] and inside["region"]["right_eye"] == (0, 0)
    (edge,) = reading(face(landmarks=((-0.6, 20.0), (99.6, 20.0), *POINTS[2:]))).to_deepface()
    assert edge["region"]["left_eye"] is None and edge["region"]["right_eye"] is None
    (without,) = reading(face(landmarks=None)).to_deepface()
    assert without["region"]["left_eye"] is None


@pytest.mark.parametrize("said", ["contempt", "unsure"])
def test_deepfaces_dominant_emotion_is_one_of_its_own(said: str) -> None:
    (found,) = reading(face(expression=said)).to_deepface()
    assert found["dominant_emotion"] == "happy"


def test_to_fer() -> None:
    (found,) = reading(face()).to_fer()
    assert found == {
        "box": [-3, 4, 53, 57],
        "emotions": dict(zip(WORDS, [0.12, 0.06, 0.06, 0.5, 0.06, 0.06, 0.12], strict=True)),
    }


def test_contempt_alone_leaves_nothing_to_prefer() -> None:
    only = dict.fromkeys(EXPRESSIONS, 0.0) | {"contempt": 1.0}
    (found,) = reading(face(probabilities=only, expression="contempt", confidence=1.0)).to_fer()
    assert set(found["emotions"].values()) == {0.14}


def test_a_class_that_the_model_lacks_is_0() -> None:
    probabilities = {"happy": 0.6, "sad": 0.4}
    (found,) = reading(face(probabilities=probabilities)).to_fer()
    assert found["emotions"] == {**dict.fromkeys(WORDS, 0.0), "happy": 0.6, "sad": 0.4}


def test_no_face_is_an_empty_list() -> None:
    assert reading().to_fer() == reading().to_deepface() == []


def test_to_pandas_has_the_tables_columns() -> None:
    table = reading(face(), face()).to_pandas()
    assert list(table.columns) == list(tables.COLUMNS) and list(table["face"]) == [1, 2]
    assert table["p_happy"].sum() == pytest.approx(0.8)
    assert list(reading().to_pandas()["status"]) == ["no face"]


def test_to_pandas_has_the_same_types_with_and_without_faces() -> None:
    import pandas

    with_face, without = reading(face()).to_pandas(), reading().to_pandas()
    assert (without.dtypes == with_face.dtypes)[[name for name in tables.COLUMNS if name != "expression"]].all()
    assert str(without.dtypes["face"]) == "Int64" and str(without.dtypes["confidence"]) == "float64"
    both = pandas.concat([without, with_face, reading(face()).to_pandas()])
    assert both["confidence"].quantile(0.5) == pytest.approx(0.4) and both["face"].max() == 1
    assert both.select_dtypes("number").shape == (3, len(tables.COLUMNS) - 3)


def test_to_pandas_of_a_frame_has_time_and_track() -> None:
    tracked = TrackedFace(**vars(face()), track=7, smoothed=dict.fromkeys(EXPRESSIONS, 0.125))
    reading = FrameReading("v.mp4", 100, 80, (tracked,), 5, 0.2)
    table = reading.to_pandas()
    assert list(table.columns) == list(tables.FRAME_COLUMNS)
    assert table.loc[0, ["frame", "time_s", "track", "s_fear"]].to_list() == [5, 0.2, 7, 0.125]
    assert {reading, reading} == {reading}


def test_to_pandas_without_pandas_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r'pip install "mien\[tables\]"'):
        reading().to_pandas()


def test_to_dict_survives_json(tiny_model, hopper: np.ndarray) -> None:
    found = mien.Reader(tiny_model).read(hopper).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (found["width"], found["height"], found["status"]) == (512, 600, "ok")
    assert len(found["faces"][0]["box"]) == 4 and len(found["faces"][0]["landmarks"]) == 5
    assert tuple(found["faces"][0]["probabilities"]) == EXPRESSIONS
