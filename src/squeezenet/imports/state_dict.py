"""Recognition of a SqueezeNet in the named tensors of a torch state dict.

Names are those of torchvision or pytorchcv, behind any prefix; else convolutions are recognised by their shapes. State
dicts do not reveal strides or a simple bypass. The missing facts are taken from the published networks; if this does
not determine the pools, the network is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..architectures import DEFAULT_INPUT_SIZE, named_spec
from ..errors import SpecError, WeightsError
from ..network import FloatConv
from ..spec import ArchSpec, Bypass, FireSpec, StemSpec
from ..text import printable
from .graph import Floats
from .match import check_convs, renamed
from .torch_file import Inert, TensorReference

__all__ = ["StateNetwork", "network_from_state"]

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "state_dict_ema",
    "model_ema",
    "ema",
    "net",
    "network",
    "module",
)
_MAX_DEPTH = 8
_MIN_CONVS = 5  # a stem, one Fire module, a head
# What tools leave beside weights, and what has no part in inference.
_COUNTERS = ("n_averaged", "total_ops", "total_params", "num_batches_tracked")
_PUBLISHED = {(3, (1, 3, 5)), (7, (1, 4, 8)), (3, (1, 4, 8)), (7, (1, 3, 5))}
_PARTS = ("squeeze", "expand1x1", "expand3x3", "bypass")
_State = Mapping[str, TensorReference]


@dataclass(frozen=True)
class StateNetwork:
    """The network found in a state dict."""

    spec: ArchSpec
    convs: dict[str, FloatConv[Floats]]
    names: str
    """The naming scheme of the tensors, such as torchvision's."""
    notes: tuple[str, ...]
    """Notes on where the tensors were, and on what was ignored or assumed."""


def network_from_state(content: Any, source: str, *, bypass: Bypass = "none") -> StateNetwork:
    """Find the SqueezeNet in the contents of a torch file.

    Args:
        content: The result of `read_torch`.
        source: The file, for messages.
        bypass: `simple` if the network has a simple bypass, which has no tensors.

    Raises:
        WeightsError: If there is none, or more than one.
    """
    state, place = _find_state(content, source)
    notes = [f"those under `{place}`"] if place else []
    counters = sorted({name.rpartition(".")[2] for name in state} & set(_COUNTERS))
    state = _unpruned({name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in _COUNTERS})
    convs = [name for name, tensor in state.items() if len(tensor.shape) == 4]
    naming = "shapes"
    for known, first, read in (
        ("torchvision", "features.0.weight", _torchvision),
        ("pytorchcv", "features.init_block.conv.weight", _pytorchcv),
    ):
        if prefixes := [name.removesuffix(first) for name in convs if name == first or name.endswith(f".{first}")]:
            prefix = _one_prefix(prefixes, source)
            inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            naming, found = known, read(inside, source)
            if prefix:
                notes.append(f"without the prefix `{prefix}`")
            outside = [name for name in state if not name.startswith(prefix)]
            break
    else:
        found, outside = _by_shape(state, source)
    notes += [f"without the counters `{name}`" for name in counters if name != "num_batches_tracked"]
    if outside := [name for name in outside if not name.endswith("num_batches_tracked")]:
        notes.append(f"without {len(outside)} others such as `{printable(outside[0][:80])}`")
    spec, layers = found
    if bypass == "simple" and spec.bypass == "none":
        spec = renamed(spec.replace(bypass="simple"))
    return StateNetwork(spec, _values(spec, layers, source), naming, tuple(notes))


def _find_state(content: Any, source: str) -> tuple[_State, str]:
    """The dictionary with the tensors of a network, and where it lies."""

    def tensors(value: Any) -> dict[str, TensorReference]:
        if isinstance(value, Inert):
            return dict(_module_tensors(value, "", set()))
        found = value.items() if isinstance(value, Mapping) else ()
        return {name: tensor for name, tensor in found if isinstance(name, str) and isinstance(tensor, TensorReference)}

    place, value = "", content
    for _ in range(_MAX_DEPTH):
        found = tensors(value)
        if sum(len(tensor.shape) == 4 for tensor in found.values()) >= _MIN_CONVS:
            return found, place
        inner = [
            key for key in _WRAPPERS if isinstance(value, Mapping) and isinstance(value.get(key), (Mapping, Inert))
        ]
        if not inner:
            break
        place, value = f"{place}.{inner[0]}".lstrip("."), value[inner[0]]
    raise WeightsError(f"expected the tensors of a SqueezeNet, got {_described(value, place)}", source=source)


def _described(value: Any, place: str) -> str:
    where = f" under `{place}`" if place else ""
    if isinstance(value, Inert):
        return f"{printable(value.name[:80])}{where}: save `model.state_dict()` alone"
    if isinstance(value, Mapping):
        shown = [key if isinstance(key, str) else type(key).__name__ for key in [*value][:3]]
        names = ", ".join(f"'{printable(key[:60])}'" for key in shown)
        return f"a dictionary{where} of {names or 'nothing'}{', ...' if len(value) > 3 else ''} ({len(value)} in all)"
    kind = "a tensor" if isinstance(value, TensorReference) else type(value).__name__
    return f"{kind}{where}"


def _module_tensors(module: Any, prefix: str, seen: set[int]) -> Iterable[tuple[str, TensorReference]]:
    """Tensors of a whole pickled module, as its state dict would name them; each module is visited once."""
    seen.add(id(module))
    state = module.state if isinstance(module, Inert) and isinstance(module.state, dict) else {}
    for group in ("_parameters", "_buffers"):
        for name, tensor in (state.get(group) or {}).items() if isinstance(state.get(group), dict) else ():
            if isinstance(tensor, TensorReference):
                yield f"{prefix}{name}", tensor
    children = state.get("_modules")
    for name, child in children.items() if isinstance(children, dict) else ():
        if id(child) not in seen and isinstance(name, str):
            yield from _module_tensors(child, f"{prefix}{name}.", seen)


def _unpruned(state: _State) -> dict[str, TensorReference]:
    """Multiply weights with the masks that torch's pruning keeps beside them."""

    def masked(original: TensorReference, mask: TensorReference) -> Callable[[], Floats]:
        return lambda: original.read() * mask.read()

    found = {}
    for name, tensor in state.items():
        mask = state.get(f"{name.removesuffix('_orig')}_mask")
        if name.endswith("_orig") and mask is not None and mask.shape == tensor.shape:
            found[name.removesuffix("_orig")] = TensorReference(tensor.shape, tensor.dtype, masked(tensor, mask))
        elif not (name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in state):
            found[name] = tensor
    return found


def _one_prefix(prefixes: list[str], source: str) -> str:
    if len(prefixes) == 1:
        return prefixes[0]
    usual = [prefix for prefix in prefixes if prefix.split(".")[0] in ("", "module", "model", "_orig_mod", "net")]
    if len(usual) == 1:
        return usual[0]
    shown = ", ".join(f"`{printable(prefix[:40])}`" for prefix in prefixes[:3])
    raise WeightsError(f"expected one network, got {len(prefixes)}: under {shown}; save one of them", source=source)


_Layers = dict[str, tuple[TensorReference, TensorReference | None]]


def _torchvision(state: _State, source: str) -> tuple[ArchSpec, _Layers]:
    pattern = re.compile(
        rf"features\.(\d{{1,3}})(?:\.({'|'.join(_PARTS)}))?\.(weight|bias)|classifier\.\d\.(weight|bias)"
    )
    _refuse_others(state, pattern, ("features.", "classifier."), source)
    places = sorted({int(found[1]) for name in state if (found := pattern.fullmatch(name)) and found[1]} - {0})
    # The layers are numbered with their ReLUs and pools: a number that is missing is a pool.
    layers, pools, expected = {"conv1": "features.0"}, list[int](), 2
    for number, place in enumerate(places, start=2):
        if place == expected + 1:
            pools.append(number - 1)
        elif place != expected:
            raise _unlike(f"expected a Fire module at features.{expected}, got features.{place} next", source)
        expected = place + 1
        for part in _PARTS:
            layers[f"fire{number}.{part}"] = f"features.{place}.{part}"
    heads = [name.removesuffix(".weight") for name in state if re.fullmatch(r"classifier\.\d\.weight", name)]
    if len(heads) != 1:
        raise _unlike(f"expected one layer with weights in `classifier`, got {len(heads)}", source)
    layers[f"conv{len(places) + 2}"] = heads[0]
    return _architecture(_pairs(state, layers), pools, source)


def _pytorchcv(state: _State, source: str) -> tuple[ArchSpec, _Layers]:
    pattern = re.compile(
        r"features\.(?:init_block|stage(\d)\.unit(\d{1,2})\.(?:squeeze|expand1x1|expand3x3))\.conv\.(?:weight|bias)"
        r"|output\.final_conv\.(?:weight|bias)"
    )
    _refuse_others(state, pattern, ("features.", "output."), source)
    units = sorted({(int(m[1]), int(m[2])) for name in state if (m := pattern.fullmatch(name)) and m[1]})
    layers, pools = {"conv1": "features.init_block.conv"}, list[int]()
    for number, (stage, unit) in enumerate(units, start=2):
        if unit == 1:  # a pool begins each stage
            pools.append(number - 1)
        for part in _PARTS[:3]:
            layers[f"fire{number}.{part}"] = f"features.stage{stage}.unit{unit}.{part}.conv"
    layers[f"conv{len(units) + 2}"] = "output.final_conv"
    return _architecture(_pairs(state, layers), pools, source)


def _by_shape(state: _State, source: str) -> tuple[tuple[ArchSpec, _Layers], list[str]]:
    """Give each convolution of the published networks the first tensor of its shape, in whatever order files have them.

    Shapes that occur twice, in two Fire modules of one width, are told apart by the file's order alone.
    """
    names = [name for name, tensor in state.items() if len(tensor.shape) == 4]
    stems = [state[name].shape for name in names if state[name].shape[1] == 3]
    versions = {(96, 3, 7, 7): "squeezenet1_0", (64, 3, 3, 3): "squeezenet1_1"}
    if len(stems) != 1 or stems[0] not in versions:
        got = ", ".join(map(str, stems[:3])) or f"none among {len(names)} convolutions"
        raise _unlike(f"expected one first convolution of (96, 3, 7, 7) or (64, 3, 3, 3), got {got}", source)
    published, layers = named_spec(versions[stems[0]]), dict[str, str]()
    for op in published.convs[:-1]:
        shape = (op.out_channels, op.in_channels, op.kernel, op.kernel)
        name = next((name for name in names if state[name].shape == shape), None)
        if name is None:
            raise _unlike(f"expected weights of {shape} for {op.name}, got none that are left", source)
        layers[op.name] = name
        names.remove(name)
    head = published.convs[-1]
    if len(names) != 1 or state[names[0]].shape[1:] != (head.in_channels, 1, 1):
        got = ", ".join(printable(name[:80]) for name in names[:3]) or "none"
        raise _unlike(f"expected one convolution after the Fire modules, got {got}", source)
    layers[head.name] = names[0]
    paths = {layer: name.removesuffix("weight").rstrip(".") for layer, name in layers.items()}
    pairs = {layer: (state[name], state.get(f"{paths[layer]}.bias")) for layer, name in layers.items()}
    used = {*layers.values(), *(f"{path}.bias" for path in paths.values())}
    return _architecture(pairs, list(published.pools), source), [name for name in state if name not in used]


def _refuse_others(state: _State, pattern: re.Pattern[str], places: tuple[str, ...], source: str) -> None:
    if others := [name for name in state if name.startswith(places) and not pattern.fullmatch(name)]:
        raise _unlike(f"expected convolutions only, got {printable(others[0][:80])}", source)


def _pairs(state: _State, layers: Mapping[str, str]) -> _Layers:
    return {
        layer: (state[f"{path}.weight"], state.get(f"{path}.bias"))
        for layer, path in layers.items()
        if f"{path}.weight" in state
    }


def _architecture(layers: _Layers, pools: list[int], source: str) -> tuple[ArchSpec, _Layers]:
    stem, head = layers["conv1"][0].shape, [*layers.values()][-1][0].shape
    kernel = stem[2] if len(stem) == 4 else 0
    n_fires = sum(layer.endswith(".squeeze") for layer in layers)
    if len(stem) != 4 or stem[1] != 3:
        raise _unlike(f"expected a first convolution of three channels, got weights of {stem}", source)
    if (kernel, tuple(pools)) not in _PUBLISHED:
        raise _unlike(
            f"with a first convolution of {kernel}x{kernel} and pools after the layers {pools or 'of none'} its stride"
            " and size are not known from weights: export it as ONNX and import that", source
        )  # fmt: skip
    try:
        fires = tuple(
            FireSpec(**{f"{part}_channels": layers[f"fire{i}.{part}"][0].shape[0] for part in _PARTS[:3]})
            for i in range(2, n_fires + 2)
        )
        has_bypass = any(layer.endswith(".bypass") for layer in layers)
        spec = ArchSpec(
            stem=StemSpec(channels=stem[0], kernel=kernel, stride=2), fires=fires, pools=tuple(pools),
            input_size=DEFAULT_INPUT_SIZE, num_classes=head[0], bypass="complex" if has_bypass else "none",
        )  # fmt: skip
    except KeyError as error:
        raise _unlike(f"expected the convolution {error.args[0]}, got none", source) from None
    except SpecError as error:
        raise _unlike(error.reason, source) from None
    return renamed(spec), layers


def _values(spec: ArchSpec, layers: _Layers, source: str) -> dict[str, FloatConv[Floats]]:
    """Read the weights, whose shapes must be those of the architecture."""
    convs = {}
    for op in spec.convs:
        if op.name not in layers:
            raise _unlike(f"expected the convolution {op.name}, got none", source)
        weight, bias = layers[op.name]
        expected = (op.out_channels, op.in_channels, op.kernel, op.kernel)
        if weight.shape != expected:
            raise WeightsError(f"{op.name}: expected weights of {expected}, got {weight.shape}", source=source)
        if bias is not None and bias.shape != expected[:1]:
            raise WeightsError(f"{op.name}: expected a bias of {expected[:1]}, got {bias.shape}", source=source)
        try:
            values = weight.read()
            offsets = np.zeros(expected[0], np.float32) if bias is None else bias.read()
        except (ValueError, EOFError, OSError) as error:
            raise WeightsError(f"{op.name}: {printable(str(error)[:200])}", source=source) from None
        convs[op.name] = FloatConv(values, offsets)
    check_convs(spec, convs, source)
    return convs


def _unlike(reason: str, source: str) -> WeightsError:
    return WeightsError(f"this is not a SqueezeNet: {reason}", source=source)
