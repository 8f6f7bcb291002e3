"""What test images say about a contrast, data set by data set, from per-image predictions that are read once.

It needs only numpy, no tables: it may run in a process of its own.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.across.reml import Fit, attempt
from analysis.paired.false_claim import false_claim_probability
from analysis.paired.models import Matched, Model, rank
from analysis.records.places import predictions_path
from analysis.records.predictions import PredictionFiles, Predictions, aligned_probabilities, check_value, load_unique
from analysis.verdicts.judgement import Judgement, on_dataset
from analysis.verdicts.pairs import PairedCells

# Ten times as many draws where a single data set decides as where one among several is described.
DECISIVE = 10
# Bytes of a baseline's predictions that are kept while it is compared; beyond them cells are read again.
KEPT = 1 << 26


@dataclass(frozen=True)
class Question:
    """A question to test images: two variants, a metric, a margin, and the pairs of cells."""

    baseline: str
    against: str
    metric: str
    margin: float
    pairs: tuple[PairedCells, ...]

    @property
    def cells(self) -> list[str]:
        """Ids of the cells whose predictions are asked for."""
        return [cell_id for pair in self.pairs for cell_id in (*pair.baseline_cells, *pair.against_cells)]


@dataclass(frozen=True)
class Answer:
    """The answer of test images: a judgement and image count by data set (None without predictions), P(false claim)."""

    judgements: tuple[Judgement, ...]
    n_images: tuple[int | None, ...]
    false_claim: float


class Images:
    """Per-image predictions of a ledger's cells, and the draws that use them."""

    def __init__(self, folder: Path | str | None, rng: np.random.Generator | None, draws: int) -> None:
        self.folder = folder
        self._files = None if folder is None else PredictionFiles(folder)
        self.rng = rng
        self.draws = draws
        self._pair: tuple[str, str] | None = None
        self._matched: dict[tuple[str, ...], Matched | None] = {}
        self._baseline: str | None = None
        self._first: dict[str, Predictions] = {}
        self._models: dict[tuple[str, str], Model] = {}
        self._bytes = 0

    def answer(self, question: Question) -> Answer:
        """The answer to a question. Consecutive questions with one baseline read its predictions once.

        Without rng nothing is drawn. Raises ValueError, one line naming the file, where images do not match or
        predictions do not reproduce the metric in their record.
        """
        found = [self._matching(question, cells) for cells in question.pairs]
        draws = self.draws * (1 if len(found) > 1 else DECISIVE)
        judgements = [
            on_dataset(question.metric, question.margin, images, rng=self.rng, draws=draws) for images in found
        ]
        claim = math.nan
        whole = [images for images in found if images is not None]
        if self.rng is not None and len(whole) == len(found):
            weights = [cells.weight for cells in question.pairs]
            claim = false_claim_probability(question.metric, whole, rng=self.rng, weights=weights)
        return Answer(tuple(judgements), tuple(None if images is None else images.n_images for images in found), claim)

    def forget(self, cell_ids: Iterable[str]) -> None:
        """Gives up what was read of cells of which no further question will ask."""
        if self._files is not None:
            for cell_id in cell_ids:
                self._files.forget(cell_id)

    def _matching(self, question: Question, cells: PairedCells) -> Matched | None:
        """The models of some cells; None where any lacks predictions."""
        if self.folder is None:
            return None
        if question.baseline != self._baseline:
            self._baseline, self._first, self._models, self._bytes = question.baseline, {}, {}, 0
        pair = (question.baseline, question.against)
        if pair != self._pair:
            self._pair, self._matched = pair, {}
        key = (*cells.against_cells, *cells.baseline_cells)
        if key not in self._matched:
            whole = all(predictions_path(self.folder, cell_id).is_file() for cell_id in key)
            self._matched[key] = self._read(cells) if whole else None
        found = self._matched[key]
        if found is not None:
            if question.metric == "macro_auc_ovr":
                rank(found.models)
            # The baseline comes first, as its predictions are read first.
            models = [*zip(cells.baseline_cells, found.baseline), *zip(cells.against_cells, found.against)]
            for cell_id, model in models:
                value = model.value(question.metric)
                check_value(self.folder, cell_id, question.metric, cells.values[cell_id], value)
        return found

    def _read(self, cells: PairedCells) -> Matched:
        assert self._files is not None
        first_id = cells.baseline_cells[0]
        first = self._first.get(first_id) or load_unique(self._files, first_id)
        baseline = [self._kept(cell_id, first_id, first) for cell_id in cells.baseline_cells]
        against = [
            Model(first.labels, aligned_probabilities(self._files, cell_id, first, first_id))
            for cell_id in cells.against_cells
        ]
        return Matched(against, baseline, first.groups)

    def _kept(self, cell_id: str, first_id: str, first: Predictions) -> Model:
        """The model of a baseline's cell."""
        assert self._files is not None
        key = (first_id, cell_id)
        if key in self._models:
            return self._models[key]
        is_first = cell_id == first_id
        found = first.probabilities if is_first else aligned_probabilities(self._files, cell_id, first, first_id)
        model = Model(first.labels, found)
        if self._bytes < KEPT:
            self._models[key] = model
            self._bytes += model.probabilities.nbytes
            if is_first:
                # Its labels, ids and groups serve to check others; its probabilities are in the model.
                self._first[first_id] = first
        return model


def answers(
    folder: Path | str,
    questions: Sequence[Question],
    rng: np.random.Generator,
    draws: int,
    designs: Sequence[tuple[np.ndarray, ...]] = (),
) -> Iterator[Answer | Fit | None]:
    """The answers to several questions, one by one, drawn one after the other with one generator.

    Then the fits of designs of mixed models, None where there is none.
    """
    images = Images(folder, rng, draws)
    last = {cell_id: place for place, question in enumerate(questions) for cell_id in question.cells}
    for place, question in enumerate(questions):
        yield images.answer(question)
        images.forget(cell_id for cell_id in question.cells if last[cell_id] == place)
    for design in designs:
        yield attempt(design)
