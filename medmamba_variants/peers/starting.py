"""Start of a network from weights: what is copied, what stays fresh, and what trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medmamba_variants.checkpoints import load_weights, read_checkpoint
from medmamba_variants.model import MedMambaVariant
from medmamba_variants.peers import hub
from medmamba_variants.peers.pretrained import TIMM, PretrainedNetwork
from medmamba_variants.peers.timm_models import TimmNetwork

# The weights that other input channels change, by our name and the published one.
STEMS = ("stem.projection.weight", "patch_embed.proj.weight")


def start_from_weights(model: nn.Module, network: object) -> dict[str, Any]:
    """Copies the weights of a network that starts from some, and freezes what is not to train.

    Returns, for its record, `pretrained`: file, hash, features, and the names of parameters and buffers that are
    `fresh` or, for other input channels, `adapted`; nothing for any other network, which it leaves alone. Raises
    ValueError, one line, where the weights do not fit, or are not those that the study was read with.
    """
    if not isinstance(network, PretrainedNetwork):
        return {}
    if not network.origin:
        raise ValueError(f"{network.name}: weights must come from a study file, which has their path, got a record's")
    given, digest = _weights(network)
    if digest != network.digest:
        raise ValueError(
            f"{network.origin}: weights must have the hash {network.digest}, got {digest}: they changed since the "
            "study was read"
        )
    adapted: list[str] = []
    if isinstance(network.network, TimmNetwork) and isinstance(given, Mapping):
        given, adapted = _adapted(model, given)
    classifier = classifier_of(model)
    try:
        fresh = load_weights(model, given, classifier=classifier, head=False)
    except ValueError as error:
        stem = isinstance(model, MedMambaVariant) and any(f"{name} " in str(error) for name in STEMS)
        remedy = "; the axis input_channels (1 or 3) converts the data's for the stem" if stem else ""
        raise ValueError(f"{network.origin}: {error}{remedy}") from None
    if network.features == "frozen":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(f"{classifier}."))
    return {
        "pretrained": {
            "file": network.name,
            "hash": network.digest,
            "features": network.features,
            "fresh": fresh,
            "adapted": adapted,
        }
    }


def frozen_parts(model: nn.Module) -> list[nn.Module]:
    """The parts of a network in which nothing trains: they work as in evaluation, statistics and dropout included."""
    return [
        part
        for part in model.children()
        if (parameters := list(part.parameters())) and not any(each.requires_grad for each in parameters)
    ]


def classifier_of(model: nn.Module) -> str:
    """The name of a network's last layer: as timm calls it, else of its last linear layer. Raises ValueError."""
    layers = {module: name for name, module in model.named_modules()}
    get = getattr(model, "get_classifier", None)
    named = layers.get(get()) if callable(get) else None
    if named:
        return named
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("a network must have a linear layer to start from weights, got none")
    return linear[-1]


def _weights(network: PretrainedNetwork) -> tuple[object, str]:
    """The weights and the hash of their content now."""
    if network.origin == TIMM or network.origin.startswith(f"{TIMM}:"):
        assert isinstance(network.network, TimmNetwork)
        weights = hub.timm_weights(network.network, network.origin)
        return weights, hub.weights_digest(weights)
    try:
        with open(network.origin, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ValueError(f"{network.origin}: must be a file of weights, got {error.strerror}") from None
    return read_checkpoint(network.origin), digest


def _adapted(model: nn.Module, weights: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """timm's weights with the first convolution's for the model's input channels, as timm itself adapts them."""
    from timm.models import adapt_input_conv

    first = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv")
    name = f"{first}.weight" if isinstance(first, str) else ""
    own = dict(model.named_parameters()).get(name)
    value = weights.get(name)
    if own is None or not isinstance(value, Tensor) or value.dim() != 4 or value.shape[1] == own.shape[1]:
        return dict(weights), []
    if value.shape[1] != 3 or value.shape[0] != own.shape[0] or value.shape[2:] != own.shape[2:]:
        return dict(weights), []
    return {**weights, name: adapt_input_conv(own.shape[1], value)}, [name]
