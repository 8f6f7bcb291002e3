"""Networks that start from weights: any network of a study, with a file or timm's own weights, as a value.

In a study file `{weights: FILE, features: frozen, …}`, in a record the hash of the content in place of the path: a
record says what a network started from, and is read where the file is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.kinds import Keys, SettingError
from medmamba_variants.hints import one_of, shown
from medmamba_variants.peers.identity import hashed

if TYPE_CHECKING:
    from medmamba_variants.peers.own_modules import ModuleNetwork
    from medmamba_variants.peers.timm_models import TimmNetwork

KEYS = ("weights", "features")
# What trains: the whole network, or its last layer alone on features that stay as they are.
FEATURES = ("finetune", "frozen")
# In place of a file: timm's own weights, by its default tag or by `timm:TAG`.
TIMM = "timm"


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network that starts from weights, all but its last layer, which is fresh.

    digest: sixteen hexadecimal digits of the SHA-256 of the weights' file (of timm's: of names and values). origin:
    the file, or timm, and name, what it is called, are not part of the id; origin is empty in a record.
    """

    network: VariantConfig | TimmNetwork | ModuleNetwork
    digest: str
    features: str
    name: str = field(compare=False)
    origin: str = field(compare=False, default="")

    @cached_property
    def variant_id(self) -> str:
        """Twelve hexadecimal digits that name network, content of the weights, and what trains."""
        return hashed({"network": self.network.variant_id, "weights": self.digest, "features": self.features})

    def diff(self, other: VariantConfig | None = None) -> dict[str, Any]:
        """The network's plain JSON values, and those of its weights."""
        return {
            **self.network.diff(other),
            "weights": self.digest,
            "weights_file": self.name,
            "features": self.features,
        }

    def to_dict(self) -> dict[str, Any]:
        """The network's values, every one, and those of its weights."""
        return {**self.network.to_dict(), "weights": self.digest, "weights_file": self.name, "features": self.features}

    def label(self, base: VariantConfig | None = None) -> str:
        """A short text for one without a name in the study."""
        return f"{self.network.label(base or VariantConfig())} from {self.name} ({self.features})"


def read_pretrained(
    network: VariantConfig | TimmNetwork | ModuleNetwork, values: Mapping[str, Any], path: Keys
) -> PretrainedNetwork:
    """The network with what `values` say of its weights. Raises SettingError below `path`."""
    features = values.get("features", FEATURES[0])
    if features not in FEATURES:
        raise SettingError((*path, "features"), one_of(features, FEATURES))
    if "weights_file" in values:
        return PretrainedNetwork(network, values["weights"], features, values["weights_file"])
    origin = values.get("weights")
    if not isinstance(origin, str) or not origin:
        raise SettingError(
            (*path, "weights"), f"must be a file of weights (or timm, for timm's own), got {shown(origin)}"
        )
    if origin == TIMM or origin.startswith(f"{TIMM}:"):
        return _of_timm(network, origin, features, (*path, "weights"))
    # Absolute, because workers change directory.
    file = Path(origin).expanduser().absolute()
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    except OSError as error:
        raise SettingError((*path, "weights"), f"must be a file of weights, got {origin}: {error.strerror}") from None
    return PretrainedNetwork(network, digest, features, file.name, str(file))


def _of_timm(
    network: VariantConfig | TimmNetwork | ModuleNetwork, origin: str, features: str, path: Keys
) -> PretrainedNetwork:
    from medmamba_variants.peers import hub
    from medmamba_variants.peers.timm_models import TimmNetwork

    if not isinstance(network, TimmNetwork):
        raise SettingError(path, f"must be a file for a network that is not timm's, got {origin}")
    try:
        digest = hub.weights_digest(hub.timm_weights(network, origin))
    except ValueError as error:
        raise SettingError(path, f": {error}") from None
    return PretrainedNetwork(network, digest, features, origin, origin)
