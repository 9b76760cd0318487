"""`mien methods`: what each method is, with parameters and MACs counted now beside the published numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from mien.lab import methods
from mien.lab.methods.method import Method, Variant
from mien.lab.networks import Shape
from mien.lab.networks.counts import count
from mien.lab.training.recipes import describe


def overview() -> list[str]:
    """A line per method: name, what it combines, presets."""
    lines = []
    for name in methods.NAMES + methods.OURS + methods.TEACHERS:
        method = methods.load(name)
        lines.append(f"{name:<11} {method.summary}")
        lines.append(f"{'':<11} presets: {', '.join(method.recipes)}")
    return [*lines, "", "mien methods show NAME for one of them"]


def facts(name: str) -> dict[str, Any]:
    """Everything about one method as JSON-ready data; counts are plain integers."""
    method = methods.load(name)
    return {
        "name": method.name,
        "title": method.title,
        "citation": method.citation,
        "summary": method.summary,
        "variants": {key: _variant(method, key, variant) for key, variant in method.variants.items()},
        "recipes": {key: describe(recipe) for key, recipe in method.recipes.items()},
        "deviations": dict(method.deviations),
        "published": [asdict(row) for row in method.published],
    }


def _variant(method: Method, key: str, variant: Variant) -> dict[str, Any]:
    shape = Shape(variant.channels, variant.classes, variant.size, variant.loss.embeddings)
    with torch.device("meta"):  # counting needs shapes and no weights
        network = variant.network.build(shape)
    frozen = method.recipes["paper"].frozen if "paper" in method.recipes else ()
    modules = dict(network.named_modules())
    for name in frozen:
        if name in modules:
            modules[name].requires_grad_(False)
    counts = count(network, shape)
    printed = [row for row in method.published if row.variant == key and row.unit in ("M", "MFLOPs", "count")]
    return {
        "note": variant.note,
        "input": [variant.channels, variant.size, variant.size],
        "classes": variant.classes,
        "trainable": counts.trainable,
        "fixed": counts.fixed,
        "keras_total": counts.keras_total,
        "macs": counts.macs,
        "published": [
            {"table": row.table, "column": row.column, "value": row.value, "unit": row.unit} for row in printed
        ],
    }


def page(found: dict[str, Any]) -> Iterable[str]:
    """The same as lines for people."""
    yield f"{found['title']} ({found['name']})"
    yield found["citation"]
    yield found["summary"]
    yield ""
    yield f"{'variant':<24}{'input':<12}{'trainable':>12}{'fixed':>12}{'Keras total':>13}{'MMACs':>9}  published"
    for key, variant in found["variants"].items():
        channels, side, _ = variant["input"]
        printed = "; ".join(f"{p['value']:.10g} {p['unit']} ({p['table']})" for p in variant["published"]) or "-"
        yield (
            f"{key:<24}{f'{channels}x{side}x{side}':<12}{variant['trainable']:>12,}{variant['fixed']:>12,}"
            f"{variant['keras_total']:>13,}{variant['macs'] / 1e6:>9.1f}  {printed}"
        )
    for key, recipe in found["recipes"].items():
        yield ""
        yield f"preset {key}"
        yield from (f"  {name} = {value}" for name, value in recipe.items())
    yield ""
    yield from (f"{tag}: {text}" for tag, text in found["deviations"].items())
    yield ""
    yield from _published(found["published"]) if found["published"] else ["published: nothing, it is not a paper"]


def _published(numbers: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The printed tables: a line for each row, marked where the paper quotes it from another work."""
    tables: dict[str, dict[str, list[str]]] = {}
    for number in numbers:
        row = f"{number['row']} (quoted)" if number["quoted"] else number["row"]
        cells = tables.setdefault(number["table"], {}).setdefault(row, [])
        cells.append(f"{number['column']} {number['value']:.10g} {number['unit']}")
    for table, rows in tables.items():
        yield f"published, {table}"
        yield from (f"  {row}: {'; '.join(cells)}" for row, cells in rows.items())
