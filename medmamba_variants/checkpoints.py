"""Checkpoints of built models: published MedMamba state dicts, to and from; weights from files, in wrappers or not."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import AXES
from medmamba_variants.model import MedMambaVariant
from medmamba_variants.wrappers import WRAPPERS, some, unwrap

# Ours → published, tried in order. The two branches of the published block are conv (0) and ss2d (1).
_RENAMES = (
    (r"stem\.projection\.", "patch_embed.proj."),
    (r"stem\.norm\.", "patch_embed.norm."),
    (r"stages\.(\d+)\.(\d+)\.branches\.0\.layers\.", r"layers.\1.blocks.\2.conv33conv33conv11."),
    (r"stages\.(\d+)\.(\d+)\.branches\.1\.norm\.", r"layers.\1.blocks.\2.ln_1."),
    (r"stages\.(\d+)\.(\d+)\.branches\.1\.mixer\.", r"layers.\1.blocks.\2.self_attention."),
    (r"downsamplings\.(\d+)\.reduce\.", r"layers.\1.downsample."),
    (r"head\.", "head."),
)

# The axes on which a published network may differ from MedMamba-T. Every other axis must have its published value, so
# that a new axis is refused until it is listed here.
_MAY_DIFFER = (
    *("patch_size", "depths", "dims", "input_channels", "odd_maps", "drop_path_rate"),
    *("d_state", "expand", "d_conv", "dt_rank"),
)

# Buffers that the profiler thop and torch's averaged models leave in a model, and so in its checkpoints.
_COUNTERS = ("total_ops", "total_params", "n_averaged")

# What trainers save beside the weights, and nobody can be harmed by: options, and numbers of numpy.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.float64(0).__reduce__()[0],
    *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")},
]


def load_public_state_dict(
    model: MedMambaVariant, state_dict: Mapping[str, Any] | nn.Module, *, head: bool = True, ema: bool = False
) -> list[str]:
    """Copies a published MedMamba state dict into a model built by `build_model`, every tensor or none.

    Returns the published names of what kept the model's own values: none, or with head=False those of the head.

    Reads the names of the public repository's `VSSM` or our own, as they are or in the wrappers that `wrappers` knows
    (`ema` says which, where a checkpoint has the weights and their moving average); only the counters of thop and of
    torch's averages are ignored. Raises ValueError, one line, where the model is not a published architecture or has no
    memory (on the meta device), the checkpoint has no published parameter, or a key is missing, unexpected, duplicate,
    of the wrong shape or not a dense tensor of real numbers.
    """
    _check_architecture(model.config)
    own = list(model.state_dict())
    namings = [{public_name(name): name for name in own}, {name: name for name in own}]
    return _load(model, state_dict, namings, "published parameter", "head", head, ema)


def load_weights(
    model: nn.Module, given: object, *, classifier: str = "head", head: bool = True, ema: bool = False
) -> list[str]:
    """Copies weights into any network, every tensor or none; returns the names of what kept its own values.

    Reads the network's own names, and for a published MedMamba also those of the public repository. `classifier` is
    the name of the network's last layer, which head=False leaves as it is. Otherwise as `load_public_state_dict`.
    """
    namings = [{name: name for name in model.state_dict()}]
    if isinstance(model, MedMambaVariant) and _differing_axis(model.config) is None:
        namings.append({public_name(name): name for name in model.state_dict()})
    return _load(model, given, namings, "network parameter", classifier, head, ema)


def read_checkpoint(path: Path | str) -> object:
    """What a checkpoint file holds, on the CPU: safetensors as a state dict, all else as torch.save wrote it.

    No code of the file runs (`weights_only`). Raises ValueError, one line, where that cannot be.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: must be a safetensors file, got: {_one_line(error)}") from None
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: must be a checkpoint, got {error.strerror}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        came = f"an object of the class {named[1]}" if named else _one_line(error)
        raise ValueError(
            f"{path}: must be a checkpoint of tensors, which no code of its own has to read, got {came} "
            "(where it was made, torch.save(model.state_dict(), FILE) makes one)"
        ) from None


def _load(
    model: nn.Module,
    given: object,
    namings: list[dict[str, str]],
    kind: str,
    classifier: str,
    head: bool,
    ema: bool,
) -> list[str]:
    """Copies tensors into a model.

    `namings` are the ways to name it: its parameters and buffers by their names in the state dict.
    """
    own = model.state_dict()
    if any(value.is_meta for value in own.values()):
        raise ValueError("the model must have memory to copy a state dict into, got one on the meta device")
    found = unwrap(given, {name for naming in namings for name in naming}, ema)
    # The first of those that fit best: names of the head may be alike in all.
    names = namings[0] if found is None else max(namings, key=lambda naming: len(naming.keys() & found.weights.keys()))
    if found is None and not (isinstance(given, Mapping) and not given):
        raise ValueError(
            f"the checkpoint must hold every {kind} ({some(names)}), by itself or under {', '.join(WRAPPERS)}, "
            f"got {_came(given)}"
        )
    weights = {} if found is None else {name: value for name, value in found.weights.items() if not _is_counter(name)}
    where = f" (under {'.'.join(found.way)})" if found and found.way else ""

    def of_head(name: str) -> bool:
        return name.startswith(f"{classifier}.")

    missing = [name for name in names if name not in weights]
    unexpected = [name for name in weights if name not in names]
    wrong = [
        name
        for name, ours in names.items()
        if isinstance(value := weights.get(name), Tensor) and value.shape != own[ours].shape
    ]
    if not head:
        weights = {name: value for name, value in weights.items() if not of_head(name)}
        missing, unexpected, wrong = ([n for n in each if not of_head(n)] for each in (missing, unexpected, wrong))
    # What a network for other classes differs in.
    only_head = head and all(of_head(name) for name in (*missing, *unexpected, *wrong))
    unless = "unless head=False leaves the head out, " if only_head else ""
    if missing:
        raise ValueError(f"{unless}the state dict{where} must hold every {kind}, missing {some(missing)}")
    if unexpected:
        raise ValueError(f"{unless}the state dict{where} must hold {kind}s only, unexpected {some(unexpected)}")
    for name in wrong:
        ours = tuple(own[names[name]].shape)
        raise ValueError(f"{unless}{name}{where} must have shape {ours}, got {tuple(weights[name].shape)}")
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}{where} must be a tensor, got {type(value).__name__}")
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            layout = "meta" if value.is_meta else value.layout
            raise ValueError(f"{name}{where} must be a dense tensor of real numbers, got {value.dtype}, {layout}")
    with torch.no_grad():
        for name, value in weights.items():
            own[names[name]].copy_(value)
    return [name for name in names if name not in weights]


def to_public_state_dict(model: MedMambaVariant) -> dict[str, Tensor]:
    """The model's parameters and buffers under the names of the published code; the same tensors, not copies.

    Raises ValueError where the model is not a published architecture.
    """
    _check_architecture(model.config)
    return {public_name(name): value for name, value in model.state_dict().items()}


def public_name(name: str) -> str:
    """The published name of one of our parameters or buffers."""
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return renamed
    raise AssertionError(f"{name} has no published name")


def _check_architecture(config: VariantConfig) -> None:
    axis = _differing_axis(config)
    if axis is not None:
        raise ValueError(
            f"a published state dict must meet the published architecture, {axis}={getattr(VariantConfig(), axis)}; "
            f"got {axis}={getattr(config, axis)}"
        )


def _differing_axis(config: VariantConfig) -> str | None:
    """The first axis that makes a variant other than a published architecture; None where there is none."""
    default = VariantConfig()
    return next((n for n in AXES if n not in _MAY_DIFFER and getattr(config, n) != getattr(default, n)), None)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _came(given: object) -> str:
    if not isinstance(given, Mapping):
        return f"an object of {type(given).__name__}" if not isinstance(given, nn.Module) else "a module without them"
    return f"the keys {some([str(key) for key in given])}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
