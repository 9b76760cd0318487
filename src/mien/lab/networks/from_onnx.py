"""The weights of an ONNX file that mien exported, as the network's own: int8 and float16 made float32, folded norms unfolded.

An exporter folds a BatchNorm into the convolution before it: W' = g W / s, b' = b - g m / s. The fold cannot be undone, but any
mean and deviation give the same function back. So the norm gets those that its input has on real pictures: then it answers as
the file did, and training, which normalises by the batch, starts from there too. Of a file of several networks the first is read.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mien.errors import ModelError
from mien.lab.networks.network import Network

PREFIX = "network."  # of the first network of `Exported`
_BIASES = ("weight_bias", "bias")  # how a folded convolution's bias is called


def weights_of(network: Network, path: Path, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Names of `network` -> tensors. batches: normalised pictures (N, C, S, S) on which the norms are measured; at least
    one. `network` is left as it is. Raises ModelError when the file is no ONNX graph or of another
    depth, or no picture is given."""
    given = _tensors(path)
    if network.adopt(given).keys() != given.keys():
        raise ModelError(f"{path}: holds a shallower network than this; build one as deep, or pass its run's best.ckpt")
    pictures = list(batches)
    if not pictures:
        raise ModelError(f"{path}: its folded norms are measured on pictures, and none were given")
    trial = copy.deepcopy(network).eval()
    folded = {
        norm: convolution
        for norm, convolution in _pairs(trial, pictures[0]).items()
        if f"{convolution}.weight" in given and f"{norm}.weight" not in given
    }
    modules, state = dict(trial.named_modules()), trial.state_dict()
    shifts: dict[str, Tensor] = {}
    for norm, convolution in folded.items():
        held = next((given.pop(f"{convolution}.{name}") for name in _BIASES if f"{convolution}.{name}" in given), None)
        size = state[f"{norm}.weight"].shape
        if held is None or held.shape != size:
            continue  # another architecture: the caller says what does not match
        shifts[norm] = held
        eps = float(modules[norm].eps)
        given |= {f"{norm}.weight": torch.ones(size), f"{norm}.bias": held}
        given |= {f"{norm}.running_mean": torch.zeros(size), f"{norm}.running_var": torch.ones(size) - eps}
    fitting = {name: value for name, value in given.items() if name in state and state[name].shape == value.shape}
    trial.load_state_dict(fitting, strict=False)
    for norm, (mean, variance) in _measured(trial, list(shifts), pictures).items():
        eps = float(modules[norm].eps)
        given |= {f"{norm}.running_mean": mean, f"{norm}.running_var": variance}
        given |= {f"{norm}.weight": (variance + eps).sqrt(), f"{norm}.bias": shifts[norm] + mean}
    return given


def _tensors(path: Path) -> dict[str, Tensor]:
    """The graph's float tensors by their names in the network."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path)).graph
    except (DecodeError, OSError) as error:
        raise ModelError(f"{path}: not an ONNX file ({error}); pass one that `mien export` wrote") from error
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in held:
            whole, scale, zero = (held[name] for name in node.input)
            held[node.output[0].removesuffix("_DequantizeLinear_Output")] = _dequantised(whole, scale, zero)
        elif node.op_type == "Cast" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]].astype(np.float32)
    return {
        name.removeprefix(PREFIX): torch.from_numpy(value.copy())
        for name, value in held.items()
        if name.startswith(PREFIX) and value.dtype == np.float32 and not name.endswith("_scale")
    }


def _dequantised(whole: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """scale (whole - zero), per first axis where there are several scales."""
    shape = (-1, *(1,) * (whole.ndim - 1)) if scale.ndim and whole.ndim else ()
    moved = whole.astype(np.float32) - zero.astype(np.float32).reshape(shape)
    found: np.ndarray = moved * scale.astype(np.float32).reshape(shape)
    return found


def _pairs(network: Network, pictures: Tensor) -> dict[str, str]:
    """Every norm that reads a convolution's output as it is -> that convolution."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that no other takes its id
    found: dict[str, str] = {}
    hooks = []

    def after(name: str) -> object:
        return lambda module, given, output: made.update({id(output): (name, output)})

    def before(name: str) -> object:
        return lambda module, given: found.update({name: made[id(given[0])][0]} if id(given[0]) in made else {})

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after(name)))  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before(name)))  # type: ignore[arg-type]
    with torch.no_grad():
        network(pictures[:2])
    for hook in hooks:
        hook.remove()
    return found


def _measured(network: Network, norms: list[str], batches: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Norm -> mean and variance (C,) of its input over the batches, as the network answers in eval mode."""
    sums: dict[str, Tensor] = {}  # (3, C): count, sum, sum of squares
    modules = dict(network.named_modules())

    def watching(name: str) -> object:
        def watch(module: nn.Module, given: tuple[Tensor]) -> None:
            values = given[0].transpose(0, 1).flatten(1).double()
            seen = torch.stack([torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)])
            sums[name] = sums.get(name, torch.zeros_like(seen)) + seen

        return watch

    hooks = [modules[name].register_forward_pre_hook(watching(name)) for name in norms]
    with torch.no_grad():
        for pictures in batches:
            network(pictures)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        found[name] = (mean.float(), (squares / count - mean.square()).clamp(min=0).float())
    return found
