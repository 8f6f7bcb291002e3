"""Networks scaled in width until they cost as much as another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from medmamba_variants.config import VariantConfig
from medmamba_variants.networks import Network, network_cost
from medmamba_variants.peers.pretrained import PretrainedNetwork

MEASURES = ("macs", "params")
# Widths are tried in multiples of these, the first that comes near enough: even widths suit kernels and branches.
MULTIPLES = (8, 4, 2, 1)
# Factors of the widths from 1/16 to 16, near enough to each other for half a per cent of the cost.
FACTORS = [2 ** (step / 400) for step in range(-1600, 1601)]
# Names of a width among the settings of one's own module.
WIDTH_NAMES = ("dims", "channels", "embed_dim", "width", "hidden_dim")

Widths = int | tuple[int, ...]


def widths_of(network: Network) -> tuple[str, Widths]:
    """The setting that holds a network's widths, and its value. Raises ValueError where none is known."""
    if isinstance(network, VariantConfig):
        return "dims", tuple(network.dims)
    if isinstance(network, PretrainedNetwork):
        raise ValueError(f"{network.label()} must be free to change its widths to be scaled, got weights that fix them")
    found = network.widths(WIDTH_NAMES)
    if found is None:
        raise ValueError(
            f"{network.label()} must have a setting of its widths to be scaled, one of {', '.join(WIDTH_NAMES)}, "
            "got none"
        )
    return found


def with_widths(network: Network, name: str, widths: Widths) -> Network:
    """The network with other widths. Raises SettingError where they do not make one."""
    value: Any = list(widths) if isinstance(widths, tuple) else widths
    if isinstance(network, VariantConfig):
        return VariantConfig.from_dict({name: value}, base=network)
    assert not isinstance(network, PretrainedNetwork), "widths_of refuses it"
    return network.changed({name: value})


def cost_at(network: Network, measure: str, image_size: int) -> int:
    """MACs or parameters of a network for square images with three channels and two classes."""
    counted = network_cost(network, image_size=(image_size, image_size), num_classes=2, in_channels=3)
    return int(getattr(counted, measure))


def scaled_to(network: Network, target: float, cost: Callable[[Network], float], tolerance: float) -> Network:
    """The network with all widths multiplied by one factor, rounded, so that its cost is within tolerance of a target.

    tolerance: a share of the target. The coarsest multiple that comes near enough decides; within it the nearest
    cost. A network that is near enough already stays as it is. Raises ValueError with the nearest cost where none is.
    """
    if abs(cost(network) / target - 1) <= tolerance:
        return network
    name, widths = widths_of(network)
    best: tuple[float, Network] | None = None
    refused: list[ValueError] = []
    for multiple in MULTIPLES:
        for found, value in _around(network, name, _distinct(widths, multiple), target, cost, refused):
            error = abs(math.log(value / target))
            if best is None or error < best[0]:
                best = error, found
        if best is not None and abs(cost(best[1]) / target - 1) <= tolerance:
            return best[1]
    if best is None:
        nearest = f"no width that makes a network ({refused[-1]})"
    else:
        nearest = f"{cost(best[1]) / target - 1:+.1%} at the nearest widths"
    raise ValueError(
        f"{network.label(VariantConfig()) or 'the network'} must come within {tolerance:.3g} of the cost to match, "
        f"got {nearest}"
    )


def _distinct(widths: Widths, multiple: int) -> list[Widths]:
    """The widths multiplied by every factor and rounded to a multiple, in rising order, each once."""
    found: dict[Widths, None] = {}
    for factor in FACTORS:
        if isinstance(widths, int):
            found[_rounded(widths * factor, multiple)] = None
        else:
            found[tuple(_rounded(width * factor, multiple) for width in widths)] = None
    return list(found)


def _rounded(width: float, multiple: int) -> int:
    return max(multiple, round(width / multiple) * multiple)


def _around(
    network: Network,
    name: str,
    ladder: list[Widths],
    target: float,
    cost: Callable[[Network], float],
    refused: list[ValueError],
) -> Iterator[tuple[Network, float]]:
    """Networks on a ladder of widths, with their costs: those met in halving the ladder around the target.

    refused: takes the errors of widths that do not make a network.
    """
    low, high = 0, len(ladder) - 1
    while low <= high:
        middle = (low + high) // 2
        # A width may be refused (heads that do not divide it): then the next one stands in.
        for place in range(middle, high + 1):
            try:
                found = with_widths(network, name, ladder[place])
                value = cost(found)
            except ValueError as error:
                refused.append(error)
                continue
            yield found, value
            if value < target:
                low = place + 1
            else:
                high = middle - 1
            break
        else:
            high = middle - 1


def factor_of(before: Network, after: Network) -> float:
    """By how much a scaled network is wider than the one it came from: the mean ratio of their widths."""
    old, new = (_as_tuple(widths_of(network)[1]) for network in (before, after))
    return math.fsum(b / a for a, b in zip(old, new)) / len(old)


def _as_tuple(widths: Widths) -> tuple[int, ...]:
    return (widths,) if isinstance(widths, int) else widths
