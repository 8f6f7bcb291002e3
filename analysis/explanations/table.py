"""Scores of stored explanations, as a table and as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.explanations.pointing import Score
from analysis.explanations.stored import Explanations
from analysis.words import bounds, share, signed

# The seed of all random draws in scoring a file: the same file gives the same numbers.
SEED = 0


def score_table(explanations: Sequence[Explanations], *, rng: np.random.Generator) -> pd.DataFrame:
    """One row per file, measure and stage: value with its interval, and gain over each control with its interval.

    Measures: "pointing game", "energy in lesion" (by stage), "deletion area", "insertion area" (of the last stage's
    maps), "silhouette", "kNN accuracy" (no interval: one network's features on fixed images). All intervals are over
    test images (or groups of them), network and seed held fixed; `interval_over` and `n` say so in each row.
    """
    rows: list[dict[str, Any]] = []
    for one in explanations:
        cell = {name: one.about.get(name) for name in ("variant_label", "dataset", "seed")}
        by_stage = one.localisation(rng)
        scored = [(stage, score) for stage, scores in by_stage.items() for score in scores]
        scored += [(one.stages[-1], score) for score in one.curve_scores(rng)]
        for stage, score in scored:
            row = cell | {"measure": score.measure, "stage": stage, "value": score.value}
            row |= {"low": score.interval.low, "high": score.interval.high}
            row |= {"interval_over": score.interval.over, "n": score.interval.n, "n_empty": score.n_empty}
            for control in score.controls:
                row[control.name] = control.value
                row[f"gain over {control.name}"] = control.gain
                row[f"gain over {control.name}, low"] = control.interval.low
                row[f"gain over {control.name}, high"] = control.interval.high
            rows.append(row)
        apart = one.separation()
        for measure, value in (("silhouette", apart.silhouette), ("kNN accuracy", apart.knn_accuracy)):
            rows.append(cell | {"measure": measure, "value": value, "interval_over": "none", "n": apart.n_images})
    return pd.DataFrame(rows)


def describe(one: Explanations) -> list[str]:
    """The scores of a file as lines, each with its controls and what its interval is over."""
    rng = np.random.default_rng(SEED)
    images, about = len(one.arrays["ids"]), one.about
    lines = [f"{one.title}: {images} images of {about['split']}, maps for {about['maps_for']} classes"]
    lines.append("  all intervals: test images drawn anew (or groups of them), network and seed are held fixed")
    for stage, scores in one.localisation(rng).items():
        for score in scores:
            lines.append(_line(f"{score.measure}, stage {stage}", score))
    if not one.lesions.any():
        lines.append("  no known lesions, hence no pointing game")
    for score in one.curve_scores(rng):
        lines.append(_line(score.measure, score))
    apart = one.separation()
    lines.append(
        f"  features: {apart.neighbours}-NN accuracy {share(apart.knn_accuracy)} (always the commonest class "
        f"{share(apart.majority)}), silhouette {signed(apart.silhouette, 3)}"
    )
    pairs = zip(one.fields(), one.fields("untrained_"))
    last = [(field, before) for field, before in pairs if field.stage == one.stages[-1]]
    reach = ", ".join(f"{field.place} {share(field.most, 2)} ({share(before.most, 2)})" for field, before in last)
    return [*lines, f"  share of the image behind 95 % of an output, last stage (before training): {reach}"]


def _line(name: str, score: Score) -> str:
    controls = "; ".join(
        f"{control.name} {share(control.value)}, gain {signed(control.gain, 3)} {bounds(control.interval, sign=True)}"
        for control in score.controls
    )
    empty = f", {score.n_empty} of them with empty maps" if score.n_empty else ""
    basis = score.interval.basis()
    return f"  {name}: {share(score.value)} {bounds(score.interval)} ({basis}{empty}); {controls}"
