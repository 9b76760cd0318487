"""What the server counts, in Prometheus' text format (exposition format 0.0.4). Numbers only: nothing about pictures."""

import math
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence

from mien.web.limits import Gate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class Counter:
    """A number that only grows, for each combination of labels."""

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.values: Tally[tuple[str, ...]] = Tally() if labels else Tally({(): 0})

    def add(self, *values: str, by: int = 1) -> None:
        """values: one for each label, in their order."""
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name}: {len(values)} values for the labels {self.labels}")
        self.values[values] += by

    def lines(self) -> Iterator[str]:
        yield from _header(self.name, self.help, "counter")
        for values, count in sorted(self.values.items()):
            yield f"{self.name}{_labels(dict(zip(self.labels, values, strict=True)))} {count}"


class Histogram:
    """How many observations were at most each bound, their sum and their number."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help = name, help
        self.bounds = (*bounds, math.inf)
        self.counts = [0] * len(self.bounds)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        for place, bound in enumerate(self.bounds):
            self.counts[place] += value <= bound
        self.sum += value

    def lines(self) -> Iterator[str]:
        yield from _header(self.name, self.help, "histogram")
        for bound, count in zip(self.bounds, self.counts, strict=True):
            yield f'{self.name}_bucket{{le="{"+Inf" if math.isinf(bound) else f"{bound:g}"}"}} {count}'
        yield f"{self.name}_sum {self.sum}"  # every digit: what was added lately is the difference of two
        yield f"{self.name}_count {self.counts[-1]}"


class Metrics:
    """Everything that /metrics shows. For one event loop: nothing here is locked."""

    def __init__(self, gate: Gate, *, model: Mapping[str, str]) -> None:
        self.gate = gate
        self.model = model
        self.requests = Counter("mien_requests_total", "Requests answered.", "path", "status")
        self.refusals = Counter("mien_refusals_total", "Requests and pictures refused, by reason.", "code")
        self.pictures = Counter("mien_pictures_total", "Pictures taken on, by result.", "result")
        self.faces = Counter("mien_faces_total", "Faces read.")
        self.seconds = Histogram("mien_read_seconds", "Time from a request for a reading to its answer, s.", SECONDS)
        self.batches = Histogram("mien_batch_faces", "Faces in one batch through the model.", ROWS)

    def text(self) -> str:
        """The whole page."""
        lines = [
            *_header("mien_model_info", "The model in use.", "gauge"),
            f"mien_model_info{_labels(self.model)} 1",
            *_header("mien_requests_under_way", "Requests for a reading under way.", "gauge"),
            f"mien_requests_under_way {self.gate.requests}",
            *_header("mien_bytes_under_way", "Bytes of their bodies.", "gauge"),
            f"mien_bytes_under_way {self.gate.bytes}",
        ]
        for part in (self.requests, self.refusals, self.pictures, self.faces, self.seconds, self.batches):
            lines += part.lines()
        return "\n".join(lines) + "\n"


def _header(name: str, help: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


def _labels(values: Mapping[str, str]) -> str:
    if not values:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
