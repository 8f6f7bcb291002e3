"""Settings of a race, declared once: a grid whose variants are dropped as soon as they are behind for good."""

from __future__ import annotations

from analysis.metrics import METRICS
from medmamba_variants.design.kinds import Choice, Number, Setting

RACING = "racing"

SETTINGS: dict[str, Setting] = {
    "alpha": Setting(
        Number(0, 0.5, open=True), "chance at most that the best variant of the study is dropped", default=0.1
    ),
    "metric": Setting(
        Choice(tuple(METRICS)),
        "validation metric by which variants are compared (default: the one that picks the epoch, else macro_auc_ovr)",
    ),
}
