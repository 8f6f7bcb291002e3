"""Published MedMamba checkpoints: a conversion of state dicts to and from built models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import AXES
from medmamba_variants.model import MedMambaVariant

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

# Buffers that the profiler thop leaves in a model, and so in checkpoints saved after it ran.
_COUNTERS = ("total_ops", "total_params")


def load_public_state_dict(model: MedMambaVariant, state_dict: Mapping[str, Tensor]) -> None:
    """Copies a published MedMamba state dict into a model built by `build_model`, every tensor or none.

    Reads the names of the public repository's `VSSM`, also behind `module.` (saved from DataParallel); only the
    counters of thop are ignored. Raises ValueError, one line, where the model is not a published architecture or has no
    memory (on the meta device), or a key is missing, unexpected, duplicate, of the wrong shape or not a dense tensor of
    real numbers.
    """
    _check_architecture(model.config)
    own = model.state_dict()
    if any(value.is_meta for value in own.values()):
        raise ValueError("the model must have memory to copy a state dict into, got one on the meta device")
    kept = {name: value for name, value in state_dict.items() if not _is_counter(name)}
    if twice := [name for name in kept if f"module.{name}" in kept]:
        raise ValueError(
            f"the state dict must hold every parameter once, with module. or without; twice there is {_some(twice)}"
        )
    given = {_without_wrapper(name): value for name, value in kept.items()}
    names = {public_name(name): name for name in own}
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"the state dict must hold every published parameter, missing {_some(missing)}")
    if unexpected := [name for name in given if name not in names]:
        raise ValueError(f"the state dict must hold published parameters only, unexpected {_some(unexpected)}")
    for public, name in names.items():
        value = given[public]
        if not isinstance(value, Tensor):
            raise ValueError(f"{public} must be a tensor, got {type(value).__name__}")
        if value.shape != own[name].shape:
            raise ValueError(f"{public} must have shape {tuple(own[name].shape)}, got {tuple(value.shape)}")
        if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            kind = "meta" if value.is_meta else value.layout
            raise ValueError(f"{public} must be a dense tensor of real numbers, got {value.dtype}, {kind}")
    with torch.no_grad():
        for public, name in names.items():
            own[name].copy_(given[public])


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
    default = VariantConfig()
    for axis in AXES:
        if axis not in _MAY_DIFFER and getattr(config, axis) != getattr(default, axis):
            raise ValueError(
                f"a published state dict must meet the published architecture, {axis}={getattr(default, axis)}; "
                f"got {axis}={getattr(config, axis)}"
            )


def _without_wrapper(name: str) -> str:
    return name.removeprefix("module.")


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
