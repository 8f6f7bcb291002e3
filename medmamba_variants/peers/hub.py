"""timm's own weights, from its cache or the network, and the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medmamba_variants.hints import one_line
from medmamba_variants.peers.timm_models import TimmNetwork


def timm_weights(network: TimmNetwork, origin: str) -> dict[str, Tensor]:
    """timm's own weights of a network, by its default tag or that of `timm:TAG`, from timm's cache or the network.

    Raises ValueError, one line, where timm has none, or cannot get them.
    """
    import timm

    tag = origin.partition(":")[2]
    name = f"{network.name}.{tag}" if tag else network.name
    options: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in network.settings
    }
    try:
        with torch.random.fork_rng(devices=[]):
            return dict(timm.create_model(name, pretrained=True, **options).state_dict())
    except Exception as error:  # The hub's client raises anything.
        reason = one_line(error)[:160]
        raise ValueError(f"timm's weights of {name} must be in its cache or within reach, got {reason}") from None


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of tensors by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"|{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
