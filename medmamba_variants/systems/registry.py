"""Registry of systems: SYSTEMS, every listed system by its name, assembled from the files of its families."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from medmamba_variants.systems.families import (
    backbones,
    blocks,
    comparators,
    encoders,
    frequency,
    hybrids,
    light,
    mamba,
    medmamba,
    mixers,
    peers,
    scans,
    tasks,
)
from medmamba_variants.systems.system import EVIDENCE, LISTS, TIERS, System

FAMILIES = (
    medmamba,
    peers,
    mamba,
    hybrids,
    scans,
    light,
    frequency,
    mixers,
    encoders,
    tasks,
    comparators,
    blocks,
    backbones,
)


def _assembled() -> dict[str, System]:
    """All systems by name, in the order of the lists; forms of a system follow it."""
    everyone = [system for family in FAMILIES for system in family.SYSTEMS]
    lists = list(LISTS)
    everyone.sort(key=lambda system: (lists.index(system.listed), system.row, bool(system.form_of)))
    found: dict[str, System] = {}
    for system in everyone:
        assert system.name not in found, f"two systems are named {system.name}"
        assert system.evidence in EVIDENCE and system.tier in TIERS, f"{system.name}: unknown evidence or tier"
        assert (system.axes is None) == bool(system.waits_for), f"{system.name} must have axes or wait for something"
        assert not system.form_of or system.form_of in found, f"{system.name} is a form of nothing known"
        found[system.name] = system
    return found


SYSTEMS: Mapping[str, System] = MappingProxyType(_assembled())
