"""Schematic faces in numpy: many at a time, each stroke a soft-edged mask. What `synthetic` teaches and tests with.

Face coordinates: u to the right and v down, the head's height spans v in about -1..1, before pose. Which muscles an
expression moves follows the descriptions of the facial action coding system (Ekman & Friesen, 1978) in the coarsest
way: brows up or drawn together, lids, lip corners, jaw, upper lip. The strengths are ours: they only have to look
distinct.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from mien.expressions import EXPRESSIONS

MUSCLES: tuple[str, ...] = (
    "brow_raise", "brow_tilt", "eye_open", "corner", "jaw", "width", "wrinkle", "smirk",
)  # fmt: skip
# Rest is 0 for all but eye_open and width (1). brow_tilt > 0: inner ends up. corner > 0: lip corners up.
_STRENGTH: dict[str, tuple[float, ...]] = {
    "neutral": (0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    "happy": (0.1, 0.0, 0.75, 1.0, 0.3, 1.25, 0.0, 0.0),
    "sad": (0.1, 0.9, 0.65, -0.9, 0.0, 0.85, 0.0, 0.0),
    "surprise": (1.0, 0.1, 1.5, 0.0, 1.0, 0.65, 0.0, 0.0),
    "fear": (0.8, 0.9, 1.45, -0.3, 0.45, 1.25, 0.0, 0.0),
    "disgust": (-0.4, -0.3, 0.5, -0.4, 0.25, 0.8, 1.0, 0.0),
    "anger": (-0.8, -1.0, 0.95, -0.35, 0.0, 0.75, 0.0, 0.0),
    "contempt": (0.1, 0.0, 0.85, 0.0, 0.0, 0.95, 0.0, 1.0),
}
STRENGTH = np.array([_STRENGTH[name] for name in EXPRESSIONS], np.float32)  # (8, 8): expression x muscle


@dataclass(frozen=True)
class Faces:
    """N faces to draw; every field is (N,) float32 unless said.

    muscles: (N, 8), columns as MUSCLES. Identity: skin, hair and backdrop are grey levels 0-1; tint (N, 3) multiplies
    the channels; aspect is the head's width over its usual width; eye_gap, eye_size, brow_width, lip_width around 1;
    glasses 0 or 1. Pose: roll in radians, yaw -1..1 (the features slide sideways), zoom around 0.85, shift_x and
    shift_y in half sides. Light: its angle in radians and strength 0-1. Cover: cover_x, cover_y, cover_size in half
    sides, size 0 for none.
    """

    muscles: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    backdrop: np.ndarray
    tint: np.ndarray
    aspect: np.ndarray
    eye_gap: np.ndarray
    eye_size: np.ndarray
    brow_width: np.ndarray
    lip_width: np.ndarray
    glasses: np.ndarray
    roll: np.ndarray
    yaw: np.ndarray
    zoom: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    light_angle: np.ndarray
    light: np.ndarray
    cover_x: np.ndarray
    cover_y: np.ndarray
    cover_size: np.ndarray

    def __len__(self) -> int:
        return len(self.skin)

    def rows(self, rows: slice) -> "Faces":
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def draw(faces: Faces, side: int) -> np.ndarray:
    """(N, side, side, 3) float32 in 0-1, without noise."""
    canvas, u, v, pixel = _stage(faces, side)
    _head(canvas, faces, u, v, pixel)
    slid = (u - 0.28 * _column(faces.yaw)) / (1 - 0.15 * np.abs(_column(faces.yaw)))
    for side_sign in (-1.0, 1.0):
        _eye(canvas, faces, slid, v, pixel, side_sign)
        _brow(canvas, faces, slid, v, pixel, side_sign)
        _wrinkle(canvas, faces, slid, v, pixel, side_sign)
    _nose(canvas, faces, slid, v, pixel)
    _mouth(canvas, faces, slid, v, pixel)
    return _lit(canvas, faces, side)


def _column(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N, 1, 1), to meet (N, side, side)."""
    return values[:, None, None]


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x to the right (1, side) and y down (side, 1), pixel centres in -1..1."""
    line = ((np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1).astype(np.float32)
    return line[None, :], line[:, None]


def _stage(faces: Faces, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The empty canvas, face coordinates u and v of every pixel (N, side, side), and the pixel's size there (N, 1,
    1)."""
    x, y = _grid(side)
    x, y = x - _column(faces.shift_x), y - _column(faces.shift_y)
    cos, sin, zoom = (_column(f) for f in (np.cos(faces.roll), np.sin(faces.roll), faces.zoom))
    u, v = (cos * x + sin * y) / zoom, (cos * y - sin * x) / zoom
    canvas = np.empty_like(u)
    canvas[:] = _column(faces.backdrop)
    return canvas, u, v, (2 / side / zoom).astype(np.float32)


def _paint(canvas: np.ndarray, distance: np.ndarray, pixel: np.ndarray, level: np.ndarray | float) -> None:
    """Cover the canvas with `level` where the signed distance (face units, negative inside) is below zero, edges one
    pixel soft."""
    mask = np.clip(0.5 - distance / pixel, 0, 1)
    canvas += mask * (level - canvas)


def _ellipse(u: np.ndarray, v: np.ndarray, a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """About the signed distance to an ellipse at the origin with half axes a and b."""
    return (np.sqrt((u / a) ** 2 + (v / b) ** 2) - 1) * np.minimum(a, b)


def _stroke(
    along: np.ndarray, off: np.ndarray, half_length: np.ndarray | float, half_width: np.ndarray | float
) -> np.ndarray:
    """About the signed distance to a stroke, given the way along it and the offset from its centre line."""
    return np.maximum(np.abs(off) - half_width, np.abs(along) - half_length)


def _muscle(faces: Faces, name: str) -> np.ndarray:
    return _column(faces.muscles[:, MUSCLES.index(name)])


def _head(canvas: np.ndarray, faces: Faces, u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> None:
    wide = 0.72 * _column(faces.aspect)
    _paint(canvas, _ellipse(u, v + 0.12, wide + 0.08, 0.98), pixel, _column(faces.hair))
    _paint(canvas, _ellipse(u, v - 0.06, wide, 0.88), pixel, _column(faces.skin))


def _eye(canvas: np.ndarray, faces: Faces, u: np.ndarray, v: np.ndarray, pixel: np.ndarray, sign: float) -> None:
    size = _column(faces.eye_size)
    u, v = u - sign * 0.32 * _column(faces.eye_gap), v + 0.14
    height = 0.085 * size * _muscle(faces, "eye_open")
    outline = _ellipse(u, v, 0.17 * size, height)
    _paint(canvas, np.where(outline > 0, outline - 0.025, outline), pixel, 0.12)
    _paint(canvas, outline + 0.015, pixel, 0.92)
    _paint(canvas, np.maximum(_ellipse(u, v, 0.075 * size, 0.075 * size), outline), pixel, 0.08)
    ring = np.abs(_ellipse(u, v, 0.24, 0.2)) - 0.03 + (1 - _column(faces.glasses))
    _paint(canvas, ring, pixel, 0.1)


def _brow(canvas: np.ndarray, faces: Faces, u: np.ndarray, v: np.ndarray, pixel: np.ndarray, sign: float) -> None:
    along = sign * u - 0.33 * _column(faces.eye_gap)  # grows outwards on both sides
    lift = 0.13 * _muscle(faces, "brow_raise") + (0.1 if sign > 0 else 0.0) * _muscle(faces, "smirk")
    line = v + 0.36 + lift - 0.42 * _muscle(faces, "brow_tilt") * along + 0.9 * along**2
    _paint(canvas, _stroke(along, line, 0.2, 0.035 * _column(faces.brow_width)), pixel, 0.6 * _column(faces.hair))


def _wrinkle(canvas: np.ndarray, faces: Faces, u: np.ndarray, v: np.ndarray, pixel: np.ndarray, sign: float) -> None:
    """The folds beside a wrinkled nose, as dark as the muscle is strong."""
    strength = _muscle(faces, "wrinkle")
    shade = _column(faces.skin) * (1 - 0.65 * np.clip(strength, 0, 1))
    along = v - 0.18
    _paint(canvas, _stroke(along, sign * u - 0.2 - 0.5 * along, 0.14, 0.03), pixel, shade)


def _nose(canvas: np.ndarray, faces: Faces, u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> None:
    shade = 0.72 * _column(faces.skin)
    up = 0.07 * _muscle(faces, "wrinkle")
    _paint(canvas, _stroke(v - 0.02, u - 0.02, 0.14, 0.022), pixel, shade)
    _paint(canvas, _stroke(u, v - 0.2 + up - 2.0 * u**2, 0.1, 0.025), pixel, shade)


def _mouth(canvas: np.ndarray, faces: Faces, u: np.ndarray, v: np.ndarray, pixel: np.ndarray) -> None:
    """Two lips as parabolas through the corners; between them the open mouth."""
    half = 0.3 * _muscle(faces, "width")
    way = u / half  # -1 and 1 at the corners
    corner = 0.13 * _muscle(faces, "corner")
    side = 0.16 * _muscle(faces, "smirk") * np.clip(way, 0, 1) ** 2
    centre = v - 0.5 + corner * (way**2 - 0.5) + side + 0.05 * _muscle(faces, "wrinkle")
    gap = 0.19 * np.clip(_muscle(faces, "jaw"), 0, None) * np.clip(1 - way**2, 0, 1)
    ends = np.abs(u) - half
    lip = 0.032 * _column(faces.lip_width)
    _paint(canvas, np.maximum(np.abs(centre) - gap - lip, ends), pixel, 0.3)
    _paint(canvas, np.maximum(np.abs(centre) - gap, ends) + 0.012, pixel, 0.05)


def _lit(canvas: np.ndarray, faces: Faces, side: int) -> np.ndarray:
    """Light from one direction, the tint, and what covers the face."""
    x, y = _grid(side)
    ramp = np.cos(_column(faces.light_angle)) * x + np.sin(_column(faces.light_angle)) * y
    canvas *= 1 + 0.5 * _column(faces.light) * ramp
    size = _column(faces.cover_size)
    inside = (np.abs(x - _column(faces.cover_x)) < size) & (np.abs(y - _column(faces.cover_y)) < size)
    canvas[inside] = 0.45
    return canvas[..., None] * faces.tint[:, None, None, :]
