"""Paths of the selective scan as choices: which directions a block follows, and the cells that it scans one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from medmamba_variants.design.components import Need, axis, shared
from medmamba_variants.design.gated import Directed
from medmamba_variants.design.kinds import Choice, whole
from medmamba_variants.scan.cells import Partition

WINDOW_SHIFT = axis(
    "none",
    Choice(("none", "half")),
    "whether windows move by half their side in every second block, counted from the stem, the second being the first",
    "Swin Transformer, section 3.2; MFEVM-UNet",
    probe="half",
    needs=(
        Need(
            ("scan_window", "attention_window"),
            lambda side: side > 1,
            "scan_window (of attention: attention_window) is 0 or 1",
            example=3,
        ),
    ),
)


@dataclass(frozen=True)
class ScanPolicy(Directed):
    """A scan of maps along directions, each through the cells of a partition of the map."""

    scan_window: int = axis(
        0,
        whole(0, 256),
        "side of the square windows that all directions scan one by one, the state anew in each; 0: the whole map",
        "LocalMamba, local scan",
        probe=2,
    )
    window_shift: str = shared(WINDOW_SHIFT)

    @property
    def partition(self) -> Partition:
        """The cells that each direction scans one by one."""
        return Partition(window=self.scan_window, shifted=self.window_shift == "half")

    def in_block(self, index: int) -> Self:
        here = super().in_block(index)
        return here if index % 2 else replace(here, window_shift="none")
