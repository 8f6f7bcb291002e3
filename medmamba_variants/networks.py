"""Networks of every kind that a study compares: variants of MedMamba, timm's classifiers, modules of one's own.

A network is a value with an id, plain JSON values and a label; here it is read, built and counted, whatever its kind.
Nothing but MedMamba's variants loads torch before it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.kinds import Keys, SettingError

if TYPE_CHECKING:
    from torch import nn

    from medmamba_variants.cost import Cost
    from medmamba_variants.peers.own_modules import ModuleNetwork
    from medmamba_variants.peers.pretrained import PretrainedNetwork
    from medmamba_variants.peers.timm_models import TimmNetwork

Plain: TypeAlias = Union[VariantConfig, "TimmNetwork", "ModuleNetwork"]
Network: TypeAlias = Union[Plain, "PretrainedNetwork"]
# The keys that name a network by other people.
PEER_KEYS = ("timm", "module")


def is_peer(values: Mapping[str, Any]) -> bool:
    """Whether plain values name a network by other people."""
    return any(key in values for key in PEER_KEYS)


def read_network(values: Mapping[str, Any], path: Keys = ()) -> Network:
    """The network of plain values, as records hold them. Raises SettingError below `path`."""
    if "weights" in values:
        from medmamba_variants.peers.pretrained import KEYS, read_pretrained

        rest = {key: value for key, value in values.items() if key not in (*KEYS, "weights_file")}
        return read_pretrained(without_weights(read_network(rest, path)), values, path)
    if all(key in values for key in PEER_KEYS):
        raise SettingError(path, "must have timm or module, got both")
    if "timm" in values:
        from medmamba_variants.peers.timm_models import TimmNetwork

        return TimmNetwork.from_dict(values, path)
    if "module" in values:
        from medmamba_variants.peers.own_modules import ModuleNetwork

        return ModuleNetwork.from_dict(values, path)
    return VariantConfig.from_dict(values)


def without_weights(network: Network) -> Plain:
    """The network itself, where it is one that starts from weights."""
    from medmamba_variants.peers.pretrained import PretrainedNetwork

    return network.network if isinstance(network, PretrainedNetwork) else network


def build_network(network: Network, *, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    """The network for images (batch, in_channels, height, width), freshly initialised from torch's global generator.

    One that starts from weights does so afterwards, by `peers.starting.start_from_weights`.
    Raises ValueError, one line, where it cannot take such images.
    """
    import torch

    from medmamba_variants.model import build_model

    network = without_weights(network)
    if isinstance(network, VariantConfig):
        return build_model(network, num_classes=num_classes, in_channels=in_channels)
    built = network.build(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    # Images come channels-last, and so should filters.
    return built.to(memory_format=torch.channels_last)


@lru_cache(maxsize=4096)
def network_cost(network: Network, *, image_size: tuple[int, int], num_classes: int, in_channels: int) -> Cost:
    """Parameters, MACs and flops of a network for one image of `image_size` (height, width) pixels, nothing computed.

    Raises ValueError, one line, where it cannot take such images, and for an operation that is neither counted nor
    known to be free.
    """
    import torch

    from medmamba_variants.cost import UncountedError, count_cost, count_model

    network = without_weights(network)
    if isinstance(network, VariantConfig):
        return count_cost(network, image_size=image_size, num_classes=num_classes, in_channels=in_channels)
    with torch.device("meta"):
        model = network.build(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    # Torch's counter stumbles over parameters that want gradients among the inputs of modules.
    model.requires_grad_(False)
    try:
        return count_model(model, image_size=image_size, in_channels=in_channels)
    except UncountedError:
        raise
    except Exception as error:  # Somebody's network may raise anything.
        raise network.needs(error, image_size=image_size, in_channels=in_channels) from None
