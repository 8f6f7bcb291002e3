"""Kept weights: one safetensors file a cell, whose header says all that is needed to build the network and use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

# The key of the header that holds the description, as JSON: safetensors knows texts alone.
HEADER = "medmamba"
VERSION = 1
# What every description has.
NEEDED = ("variant", "classes", "channels", "image_size", "normalisation", "cell_id")


@dataclass(frozen=True)
class Kept:
    """The weights of a trained network by name, and its description.

    `about` has the variant, names of classes, channels, image_size [height, width], `normalisation` with scale and
    offset for each channel (input = pixel · scale + offset, pixels from 0 to 255), and where the weights come from.
    """

    weights: dict[str, Tensor]
    about: dict[str, Any]


def as_bytes(weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """The file of a trained network, in memory: a worker makes it, and the driver writes it."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    header = {HEADER: json.dumps({"version": VERSION, **about}, ensure_ascii=False), "format": "pt"}
    return save(tensors, header)


def read_kept(path: Path | str) -> Kept:
    """What a file of kept weights holds. Raises ValueError, one line, for any other file."""
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            weights = {name: file.get_tensor(name) for name in file.keys()} if header else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise ValueError(f"{path}: must be a file of kept weights, got {reason}") from None
    if header is None:
        raise ValueError(f"{path}: must be a file of kept weights, got safetensors whose header has no {HEADER}")
    try:
        about = dict(json.loads(header))
    except ValueError:
        raise ValueError(f"{path}: must be a file of kept weights, got a header whose {HEADER} is no JSON") from None
    if about.get("version") != VERSION or (missing := [name for name in NEEDED if name not in about]):
        came = f"version {about.get('version')}" if about.get("version") != VERSION else f"no {', '.join(missing)}"
        raise ValueError(f"{path}: must be kept weights of version {VERSION}, got {came}")
    return Kept(weights, about)
