"""Strategy of a grid whose variants are tuned: the same trials for each, then its cells under the recipe chosen."""

from __future__ import annotations

from analysis.records.schema import Record
from analysis.words import counted
from medmamba_variants.networks import Network
from study.declaration.cells import Cell
from study.planning.plan import Plan
from study.planning.tuning import Choice, choose, tuning_cells
from study.strategies.waiting import Waiting


class Tuned:
    """The strategy of a tuned grid. A variant's cells follow as soon as all its trials are in."""

    def __init__(self, plan: Plan) -> None:
        self.study = plan.study
        self.choices: dict[str, Choice] = {}
        self.resumed: list[Record] = []
        self._refs, self._finished, self._total = plan.refs, plan.finished, plan.total
        self._ids: list[str] = []
        self._waiting = Waiting()
        self._failed: list[str] = []
        # Trials by variant, their records, and the variant that a trial is of.
        self._variants: dict[str, Network] = {}
        self._trials: dict[str, list[list[Cell]]] = {}
        self._records: dict[str, Record] = {}
        self._owners: dict[str, str] = {}
        for _, variant in plan.variants():
            trials = tuning_cells(self.study, variant, self._refs)
            self._variants[variant.variant_id], self._trials[variant.variant_id] = variant, trials
            self._owners |= {cell.cell_id: variant.variant_id for tried in trials for cell in tried}
        for cell in plan.trials.values():
            if cell.cell_id in self._finished:
                self._records[cell.cell_id] = self._finished[cell.cell_id]
                self.resumed.append(self._finished[cell.cell_id])
            else:
                self._waiting.add(cell)
        for variant_id in self._variants:
            self._settle(variant_id)

    def ask(self) -> Cell | None:
        """The next cell; None when there is nothing to hand out until trials are in, or at all."""
        return self._waiting.next()

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out; a variant's last trial brings its own cells."""
        cell_id = record["cell_id"]
        self._waiting.back(cell_id)
        if cell_id in self._owners:
            self._records[cell_id] = record
            self._settle(self._owners[cell_id])

    def done(self) -> bool:
        """Whether every trial and every cell has come back."""
        return self._waiting.is_over()

    def total(self) -> int | None:
        """The number of trials and cells, finished ones included."""
        return self._total

    def label(self, cell: Cell) -> str:
        """The label of a cell's variant in the grid."""
        return self.study.label(cell.variant)

    def cell_ids(self) -> list[str]:
        """The ids of the cells that are judged: those of variants whose recipe is chosen, never a trial's."""
        return list(self._ids)

    def is_trial(self, cell_id: str) -> bool:
        """Whether a cell is a trial of the tuning, which is not judged."""
        return cell_id in self._owners

    def notes(self) -> list[str]:
        """Sentences on trials that failed, and on variants left without a recipe."""
        notes = []
        failed = sum(record["status"] != "done" for record in self._records.values())
        if failed:
            notes.append(f"{counted(failed, 'trial')} of the tuning failed: their recipes were not chosen")
        if self._failed:
            names = ", ".join(self.study.label(self._variants[variant_id]) for variant_id in self._failed)
            notes.append(f"no recipe could be chosen for {names}: each failed on some data set")
        return notes

    def _settle(self, variant_id: str) -> None:
        """Chooses a variant's recipe once all its trials are in, and hands its cells to the queue."""
        trials = self._trials[variant_id]
        if any(cell.cell_id not in self._records for tried in trials for cell in tried):
            return
        choice = choose(self.study, trials, self._records)
        if choice is None:
            self._failed.append(variant_id)
            self._total -= len(self.study.seeds) * len(self.study.datasets)
            return
        self.choices[variant_id] = choice
        assert self.study.tuning is not None
        recipe = self.study.tuning.recipes[choice.place]
        for cell in self.study.cells_of(self._variants[variant_id], self._refs, recipe):
            self._ids.append(cell.cell_id)
            if cell.cell_id in self._finished:
                self.resumed.append(self._finished[cell.cell_id])
            else:
                self._waiting.add(cell)
