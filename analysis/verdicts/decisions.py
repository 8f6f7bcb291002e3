"""Decisions on contrasts: superior, inferior, equivalent or inconclusive, at the level that the design supports.

- *In general*, with two data sets or more: paired seeds are averaged per data set, and data sets per source; the exact
  signed-rank test is run on those means, and two one-sided t tests compare them with the declared margin. The mean's
  interval is Student's, over data sets (sources, where these are fewer); the signed-rank test's own estimate stands
  beside it.
- *These data sets*, where a contrast declares so (or all data sets are of one source): data sets are fixed, seeds and
  test images drawn anew on each; one stratified t test of their mean, never surer than the images alone allow.
- *Folds of this data set*, where all are folds of one: training and test images are drawn anew (Nadeau and Bengio's
  corrected t test), never as if folds were data sets.
- *This data set*, with one data set: seeds and test images are drawn anew (two-level bootstrap).
- *These weights*, with one seed on one data set: test images are drawn anew (DeLong for macro-AUC, else a paired
  bootstrap).

No test is chosen by looking at results. Equivalence comes first: a difference within the margin counts as none, even
where it is significant. Every contrast of a declared family counts in its correction, whether it could be tested or
not, for claims of difference and of equivalence alike, each held at α.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.across.mixed import FixedEffect, MixedModel, Prepared, fitted, prepared
from analysis.across.multiplicity import adjust
from analysis.across.rank_tests import Location, hodges_lehmann
from analysis.across.reml import Fit, attempt
from analysis.interval import check_generator
from analysis.metrics import LOWER_IS_BETTER
from analysis.power import smallest_adjusted_p
from analysis.records.schema import Record
from analysis.records.sources import averaged, counted_units, files_by_source, told, unit_noun
from analysis.records.table import sources_of
from analysis.verdicts.cells import Cells, paired_cells
from analysis.verdicts.declared import Contrast, Declaration, Declared, as_declared, read_declaration, under_its_hash
from analysis.verdicts.folds import are_folds, note_on_folds, over_folds
from analysis.verdicts.images import Answer, Images, Question, answers
from analysis.verdicts.judgement import Judgement, in_general, on_these, untested
from analysis.verdicts.levels import FEWEST_FOLDS, FEWEST_SEEDS, IN_GENERAL, OVER_FOLDS, THESE_DATA_SETS
from analysis.verdicts.pairs import PairedCells
from analysis.verdicts.revisions import Revisions
from analysis.verdicts.verdict import DatasetDifference, Outcome, Verdict
from analysis.words import counted, listed

# For a bootstrap that describes one data set among several; one that decides has more.
DRAWS = 1000
# What `as_declared` looks at.
LOOKED_AT = ("variant_id", "dataset", "seed", "status", "contrasts_hash")
# From a ledger's folder, questions, the generator (which moves on), the number of draws and designs of mixed models to
# answers and fits.
Ask = Callable[
    [Path | str, Sequence[Question], np.random.Generator, int, Sequence[tuple[np.ndarray, ...]]],
    Iterable[Answer | Fit | None],
]


def decide(
    table: pd.DataFrame,
    contrast: Contrast | Mapping[str, Any],
    *,
    folder: Path | str | None = None,
    rng: np.random.Generator | None = None,
    alpha: float | None = None,
    draws: int = DRAWS,
) -> Verdict:
    """The verdict on a single contrast, its p values unadjusted: only `decide_all` knows the whole family.

    It is therefore exploratory where a corrected family of several is declared. alpha: by default the declared one;
    with any other the verdict is exploratory.

    table: one row per cell, as `load_ledger` gives it. contrast: a `Contrast`, or a mapping as manifests hold it.
    folder: where per-image predictions lie, by default the table's. Without rng nothing is resampled: single data sets
    then have no interval, there is no probability of a false claim, and several seeds on one data set, which only a
    bootstrap can judge, get no verdict.

    Raises ValueError, one line, for a metric that the table does not have, two recipes, images that do not match,
    and predictions that do not reproduce the metric in their record.
    """
    asked = contrast if isinstance(contrast, Contrast) else Contrast.from_dict(contrast)
    if alpha is not None and not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, got {alpha!r}")
    if rng is not None:
        check_generator(rng)
    folder = folder or table.attrs.get("folder")
    declared = under_its_hash(asked, table, folder)
    declaration, reasons = declared.declaration, list(declared.reasons)
    others = declaration.family_size(declared.contrast) - 1
    if others and declaration.correction != "none":
        reasons.append(f"p values are not adjusted for the {counted(others, 'other contrast')} of its family")
    level = declaration.alpha if alpha is None else alpha
    if level != declaration.alpha and declared.contrast.contrasts_hash is not None:
        reasons.append(f"judged at α = {level:g} in place of the declared {declaration.alpha:g}")
    declaration = replace(declaration, alpha=level, correction="none")
    declared = replace(declared, declaration=declaration, reasons=tuple(reasons))
    cells = _cells(Cells(table), declared, (), sources_of(table))
    answer = Images(folder, rng, draws).answer(cells.question)
    models = _Models(table, [asked], {asked.metric} if cells.is_general else set())
    models.fit([attempt(design) for design in models.designs])
    found = _found(declared, cells, answer)
    if cells.is_general:
        found = replace(found, mixed=models.difference(declared.contrast))
    return _settled(found, found.p_value, found.equivalence_p)


def decide_all(
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    folder: Path | str,
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
    records: Sequence[Record] | None = None,
) -> list[Verdict]:
    """The verdicts on all contrasts that a manifest declares, in its order, p values adjusted within their families.

    Cells that ran under another declaration are judged by it, or make the verdict exploratory (see
    `analysis.verdicts.declared.as_declared`); so do data sets and seeds that were left out or added since
    (`analysis.verdicts.revisions`). A contrast without a pair of finished cells is inconclusive and says so.
    records: every one that counts in the folder, with at least the keys `analysis.verdicts.revisions.TOLD`, if they
    have already been read. Raises ValueError as `decide` does.
    """
    return Deciding(table, manifest, folder, rng=rng, draws=draws, records=records).verdicts()


class Deciding:
    """Verdicts in the making: questions about images are asked at once, answers collected when verdicts are wanted.

    ask: what answers them in place of `analysis.verdicts.images.answers`, such as another process.
    records: as for `decide_all`. Raises ValueError as `decide_all` does, now or later.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        manifest: Mapping[str, Any],
        folder: Path | str,
        *,
        rng: np.random.Generator,
        draws: int = DRAWS,
        ask: Ask = answers,
        records: Sequence[Record] | None = None,
    ) -> None:
        check_generator(rng)
        today = read_declaration(manifest)
        history = Revisions(manifest, table, folder, records)
        looked_at = table[[name for name in LOOKED_AT if name in table]]
        # Copied with every selection, and of no use here.
        looked_at.attrs = {}
        rows = dict(iter(looked_at.groupby("variant_id", sort=False))) if "variant_id" in table else {}
        asked = [_asked(contrast, today, history, rows, table, folder) for contrast in today.contrasts]
        expected = [(str(d), int(s)) for d in manifest.get("datasets") or () for s in manifest.get("seeds") or ()]
        by_variant, sources = Cells(table), sources_of(table)
        # Contrasts of the same variants one after the other: their predictions are read once.
        self._order = sorted(range(len(asked)), key=lambda i: (asked[i].contrast.baseline, asked[i].contrast.against))
        self._asked, self._cells = asked, {i: _cells(by_variant, asked[i], expected, sources) for i in self._order}
        general = {asked[i].contrast.metric for i, cells in self._cells.items() if cells.is_general}
        self._models = _Models(table, [declared.contrast for declared in asked], general)
        questions = [self._cells[i].question for i in self._order]
        self._answers = ask(folder, questions, rng, draws, self._models.designs)

    @property
    def compared(self) -> list[int]:
        """Places, in the manifest's order, of the contrasts that have a pair of finished cells."""
        return [i for i in range(len(self._asked)) if self._cells[i].pairs]

    def verdicts(self, hear: Callable[[int, Verdict], None] | None = None) -> list[Verdict]:
        """The verdicts, once all answers are there.

        hear: is told each contrast's place and what its answer says, as it comes: the verdict without outcome, mixed
        model and adjustment, whose differences and intervals are those of the final one.
        """
        asked = self._asked
        found: dict[int, Verdict] = {}
        fits: list[Fit | None] = []
        for place, answer in enumerate(self._answers):
            if place >= len(self._order):
                fits.append(cast("Fit | None", answer))
                continue
            i = self._order[place]
            found[i] = _found(asked[i], self._cells[i], cast("Answer", answer))
            if hear is not None:
                hear(i, found[i])
        self._models.fit(fits)
        for i, verdict in found.items():
            if self._cells[i].is_general:
                found[i] = replace(verdict, mixed=self._models.difference(verdict.contrast))
        families: dict[tuple[str | None, str, str], list[int]] = {}
        for i, declared in enumerate(asked):
            contrast = declared.contrast
            families.setdefault((contrast.contrasts_hash, contrast.family, contrast.kind), []).append(i)
        settled: dict[int, Verdict] = {}
        for members in families.values():
            size = found[members[0]].family_size
            method = asked[members[0]].declaration.correction
            # Contrasts of a family that today's file no longer names count like those that could not be tested.
            absent = [math.nan] * (size - len(members))
            differences = adjust([*(found[i].p_value for i in members), *absent], method)
            equivalences = adjust([*(found[i].equivalence_p for i in members), *absent], method)
            for i, p, q in zip(members, differences, equivalences):
                settled[i] = _settled(found[i], p, q)
        return [settled[i] for i in range(len(asked))]


def _asked(
    contrast: Contrast,
    today: Declaration,
    history: Revisions,
    rows: Mapping[str, pd.DataFrame],
    table: pd.DataFrame,
    folder: Path | str,
) -> Declared:
    """A contrast as declared, with its cells and questions. rows: the table's, by variant."""
    own = [rows[variant] for variant in (contrast.baseline, contrast.against) if variant in rows]
    declared = as_declared(contrast, today, pd.concat(own) if own else table.iloc[:0], folder)
    told = history.history(contrast, declared.reasons)
    return replace(declared, reasons=(*declared.reasons, *told.reasons), notes=(*declared.notes, *told.notes))


@dataclass(frozen=True)
class _Paired:
    """The cells of a contrast, the questions about their images, the sources of data sets, and notes on them."""

    pairs: tuple[PairedCells, ...]
    question: Question
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    is_general: bool


def _cells(
    table: Cells, declared: Declared, expected: Sequence[tuple[str, int]], sources: Mapping[str, str]
) -> _Paired:
    """sources: those of the table, for data sets that the declaration does not name."""
    contrast = declared.contrast
    found, notes = paired_cells(table, contrast, expected)
    sources = {**sources, **declared.declaration.sources}
    files = {name: len(here) for here in files_by_source([pair.dataset for pair in found], sources) for name in here}
    pairs = [replace(pair, weight=1.0 / files[pair.dataset]) for pair in found]
    notes += filter(None, [told(files, sources)])
    question = Question(contrast.baseline, contrast.against, contrast.metric, contrast.margin, tuple(pairs))
    n_sources = round(sum(pair.weight for pair in pairs))
    is_general = n_sources > 1 and contrast.level == IN_GENERAL
    return _Paired(tuple(pairs), question, sources, tuple(notes), is_general)


class _Models:
    """Mixed models of the variants that contrasts compare, one per metric, fitted elsewhere."""

    def __init__(self, table: pd.DataFrame, contrasts: Sequence[Contrast], metrics: Collection[str]) -> None:
        self._prepared: dict[str, Prepared] = {}
        self._fitted: dict[str, MixedModel] = {}
        for metric in dict.fromkeys(contrast.metric for contrast in contrasts if contrast.metric in metrics):
            of_metric = [c for c in contrasts if c.metric == metric]
            variants = {variant for c in of_metric for variant in (c.baseline, c.against)}
            # A metric whose cells cannot support a model has none.
            with suppress(ValueError):
                # At the variants' own cost: a contrast is not one at equal MACs.
                cells = table[table["variant_id"].isin(variants)]
                self._prepared[metric] = prepared(cells, metric, macs=False)

    @property
    def designs(self) -> list[tuple[np.ndarray, ...]]:
        """What is to be fitted: plain arrays, which another process reads without pandas."""
        return [tuple(ready.design) for ready in self._prepared.values()]

    def fit(self, fits: Sequence[Fit | None]) -> None:
        """Takes the fits of the designs, in their order."""
        for (metric, ready), fit in zip(self._prepared.items(), fits):
            if fit is not None:
                self._fitted[metric] = fitted(ready, fit)

    def difference(self, contrast: Contrast) -> FixedEffect | None:
        """The difference between a contrast's variants; None where the cells cannot support a model."""
        model = self._fitted.get(contrast.metric)
        return None if model is None else model.difference(contrast.baseline, contrast.against)


def _found(declared: Declared, cells: _Paired, answer: Answer) -> Verdict:
    """The verdict before p values are adjusted: everything but its outcome and its mixed model."""
    contrast, declaration = declared.contrast, declared.declaration
    size = declaration.family_size(contrast)
    pairs, notes = cells.pairs, [*declared.notes, *cells.notes]
    per_dataset = tuple(
        DatasetDifference(here.dataset, here.difference, judgement.interval, here.n_seeds, n_images or here.n_test)
        for here, judgement, n_images in zip(pairs, answer.judgements, answer.n_images)
    )
    without = [here.dataset for here, n_images in zip(pairs, answer.n_images) if n_images is None]
    if without:
        notes.append(f"without per-image predictions: {listed(without)}")
    told_by: dict[str, list[str]] = {}
    for here, judgement in zip(pairs, answer.judgements):
        if judgement.note:
            told_by.setdefault(judgement.note, []).append(here.dataset)
    notes += [f"the interval on {listed(names)} {note}" for note, names in told_by.items()]
    differences = list(averaged({here.dataset: here.difference for here in pairs}, cells.sources).values())
    ratios = list(averaged({here.dataset: here.cost_ratio for here in pairs}, cells.sources).values())
    over = f"{unit_noun([here.dataset for here in pairs], cells.sources)}s"
    if cells.is_general:
        judged = in_general(differences, contrast.margin, over)
    elif are_folds(pairs):
        judged = over_folds(pairs, contrast.margin)
        notes.append(note_on_folds(pairs))
    elif len(pairs) > 1:
        judged = _on_these(pairs, answer, cells.sources, contrast.margin)
    else:
        judged = answer.judgements[0] if pairs else untested("data sets", 0)
    estimate = float(np.mean(differences)) if pairs else math.nan
    return Verdict(
        contrast=contrast,
        outcome="inconclusive",
        level=judged.level,
        estimate=estimate,
        interval=judged.interval,
        p_value=judged.p_value,
        adjusted_p=judged.p_value,
        equivalence_p=judged.equivalence_p,
        adjusted_equivalence_p=judged.equivalence_p,
        equivalence_interval=judged.equivalence_interval(estimate, declaration.alpha),
        n_datasets=len(pairs),
        n_seeds=min((here.n_seeds for here in pairs), default=0),
        n_images=sum(part.n_images for part in per_dataset),
        cost_ratio=float(np.mean(ratios)) if pairs else math.nan,
        rank_effect=judged.rank_effect,
        false_claim_probability=answer.false_claim,
        test=judged.test,
        exploratory=bool(declared.reasons),
        reasons=declared.reasons,
        notes=tuple(notes),
        per_dataset=per_dataset,
        mixed=None,
        location=_location(differences, declaration.alpha, over) if cells.is_general else None,
        alpha=declaration.alpha,
        correction=declaration.correction,
        family_size=size,
        n_sources=len(differences),
    )


def _on_these(pairs: Sequence[PairedCells], answer: Answer, sources: Mapping[str, str], margin: float) -> Judgement:
    keys = [sources.get(pair.dataset, pair.dataset) for pair in pairs]
    total = sum(pair.weight for pair in pairs)
    weights = [pair.weight / total for pair in pairs]
    return on_these(
        [pair.difference for pair in pairs], answer.judgements, weights, [keys.index(key) for key in keys], margin
    )


def _location(differences: Sequence[float], alpha: float, over: str) -> Location:
    found = hodges_lehmann(differences, level=1 - alpha)
    return replace(found, interval=replace(found.interval, over=over))


def _settled(found: Verdict, adjusted_p: float, adjusted_equivalence_p: float) -> Verdict:
    """The verdict with its outcome. Claims that the design cannot support are exploratory."""
    contrast = found.contrast
    better = found.estimate * (-1 if contrast.metric in LOWER_IS_BETTER else 1)
    outcome: Outcome = "inconclusive"
    if adjusted_equivalence_p <= found.alpha:
        outcome = "equivalent"
    elif adjusted_p <= found.alpha and better != 0 and not found.estimate * found.rank_effect < 0:
        # A mean and a sum of ranks that point to different sides decide nothing.
        outcome = "superior" if better > 0 else "inferior"
    reasons = list(found.reasons)
    confirmatory = contrast.contrasts_hash is not None and contrast.kind == "confirmatory"
    if confirmatory and contrast.level == THESE_DATA_SETS and found.level == OVER_FOLDS:
        if found.n_datasets < FEWEST_FOLDS:
            reasons.append(f"a claim over folds takes {FEWEST_FOLDS} of them, got {found.n_datasets}")
    elif confirmatory and contrast.level == THESE_DATA_SETS:
        if 0 < found.n_seeds < FEWEST_SEEDS:
            reasons.append(
                f"a claim on these data sets takes {FEWEST_SEEDS} seeds on each, got {found.n_seeds} where fewest"
            )
    elif confirmatory:
        reach = smallest_adjusted_p(max(1, found.n_sources), found.family_size, found.correction)
        if reach > found.alpha:
            paired = counted_units(found.n_datasets, found.n_sources)
            reasons.append(
                f"a difference in general cannot reach α = {found.alpha:g} with {paired} "
                f"(smallest adjusted p {reach:.3g})"
            )
    return replace(
        found,
        outcome=outcome,
        adjusted_p=adjusted_p,
        adjusted_equivalence_p=adjusted_equivalence_p,
        exploratory=bool(reasons),
        reasons=tuple(reasons),
    )
