"""Widths of the bottlenecks of gates."""

from __future__ import annotations

# A fraction of the channels that the gate reads, and its floor.
GATE_REDUCTION, GATE_MINIMUM = 4, 4


def bottleneck(channels: int, parts: int = 1) -> int:
    """Width of the bottleneck of a gate that reads so many channels, or of each of several parts of it."""
    return max(channels // (parts * GATE_REDUCTION), GATE_MINIMUM)
