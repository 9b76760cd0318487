"""A track's probabilities over time as one picture: stacked bands, an axis in seconds, a legend. Pillow only."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mien.draw import COLOURS, INK, PLATE, write

FIRST_BIN_S = 1 / 30  # s: a frame of most videos
COLUMNS = 800  # px of the plot; the strip keeps between half of it and all of it
PLOT, TOP, LEFT, RIGHT, BOTTOM = 200, 34, 48, 110, 34  # px: the plot's height and the margins around it
TYPE = 14  # px
NO_FACE = (40, 43, 50)
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000)  # s between two ticks
FEWEST_TICKS = 4


class Strip:
    """Mean probabilities in equal bins of time. When it is full, neighbours are merged: memory does not grow."""

    def __init__(self, names: tuple[str, ...], start_s: float) -> None:
        """start_s: when the track begins."""
        self.names, self.start_s, self.bin_s = names, start_s, FIRST_BIN_S
        self._sums = np.zeros((COLUMNS, len(names)))
        self._counts = np.zeros(COLUMNS, np.int64)
        self._missed = np.zeros(COLUMNS, bool)
        self._absent_s: float | None = None  # the first frame without the face since it was last seen
        self.end_s = start_s

    def add(self, time_s: float, probabilities: Mapping[str, float]) -> None:
        """One observation; times must not decrease."""
        while self._bin(time_s) >= COLUMNS:
            self._merge()
        place = self._bin(time_s)
        if self._absent_s is not None:
            self._missed[self._bin(self._absent_s) : place] = True
            self._absent_s = None
        self._sums[place] += [probabilities[name] for name in self.names]
        self._counts[place] += 1
        self.end_s = time_s

    def absent(self, time_s: float) -> None:
        """One frame without the face; times must not decrease."""
        if self._absent_s is None:
            self._absent_s = time_s

    def means(self) -> np.ndarray:
        """(bins, classes) mean probabilities up to the last observation. A bin in which no frame begins has those of the bin
        before it; rows of NaN where frames are without the face."""
        used = self._bin(self.end_s) + 1
        counts = self._counts[:used, None]
        seen = counts[:, 0] > 0
        means = self._sums[:used] / np.maximum(counts, 1)
        means = means[np.maximum.accumulate(np.where(seen, np.arange(used), 0))]
        means[self._missed[:used] & ~seen] = np.nan
        return means

    def _bin(self, time_s: float) -> int:
        return int((time_s - self.start_s) / self.bin_s)

    def _merge(self) -> None:
        half = COLUMNS // 2
        self._sums[:half] = self._sums.reshape(half, 2, -1).sum(axis=1)
        self._counts[:half] = self._counts.reshape(half, 2).sum(axis=1)
        self._missed[:half] = self._missed.reshape(half, 2).any(axis=1)
        self._sums[half:], self._counts[half:], self._missed[half:] = 0, 0, False
        self.bin_s *= 2


def draw(strip: Strip, *, title: str) -> Image.Image:
    """The picture: one band for each class from the first at the bottom, grey where the face was not seen."""
    picture = Image.new("RGB", (LEFT + COLUMNS + RIGHT, TOP + PLOT + BOTTOM), PLATE)
    picture.paste(Image.fromarray(_bands(strip)), (LEFT, TOP))
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=TYPE)
    canvas.text((LEFT, TOP / 2), title, fill=INK, font=font, anchor="lm")
    for share in (0, 0.5, 1):
        canvas.text((LEFT - 8, TOP + PLOT * (1 - share)), f"{share:.0%}", fill=INK, font=font, anchor="rm")
    _draw_ticks(canvas, strip, font)
    _draw_legend(canvas, strip, font)
    return picture


def save(strip: Strip, path: Path, *, title: str) -> None:
    """Write the picture as PNG."""
    write(draw(strip, title=title), path, form="PNG")


def _bands(strip: Strip) -> np.ndarray:
    """RGB uint8 (PLOT, COLUMNS, 3)."""
    means = strip.means()
    columns = means[np.arange(COLUMNS) * len(means) // COLUMNS]
    heights = PLOT - (np.arange(PLOT) + 0.5)  # of each row's middle above the axis, px
    tops = np.cumsum(columns, axis=1) * PLOT
    band = np.minimum((heights[:, None, None] > tops[None]).sum(axis=2), len(strip.names) - 1)
    colours = np.array([COLOURS.get(name, INK) for name in strip.names], np.uint8)
    return np.where(np.isnan(columns[:, 0])[None, :, None], np.array(NO_FACE, np.uint8), colours[band])


def _draw_ticks(canvas: ImageDraw.ImageDraw, strip: Strip, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> None:
    span = len(strip.means()) * strip.bin_s
    step = max((tick for tick in TICKS if span / tick >= FEWEST_TICKS), default=TICKS[0])
    for number in range(math.ceil(strip.start_s / step), math.floor((strip.start_s + span) / step) + 1):
        x = LEFT + (number * step - strip.start_s) / span * COLUMNS
        canvas.line((x, TOP + PLOT, x, TOP + PLOT + 5), fill=INK)
        canvas.text((x, TOP + PLOT + 18), f"{number * step:g} s", fill=INK, font=font, anchor="mm")


def _draw_legend(canvas: ImageDraw.ImageDraw, strip: Strip, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> None:
    """From the top as the bands are stacked."""
    row = PLOT / len(strip.names)
    for place, name in enumerate(reversed(strip.names)):
        y = TOP + (place + 0.5) * row
        canvas.rectangle((LEFT + COLUMNS + 10, y - 6, LEFT + COLUMNS + 22, y + 6), fill=COLOURS.get(name, INK))
        canvas.text((LEFT + COLUMNS + 28, y), name, fill=INK, font=font, anchor="lm")
