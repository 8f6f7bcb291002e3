"""Plan of a study: its cells by id, and which of them its store already holds. Made once per command.

Of a study in shards a plan has those of one shard: of a grid its share of the cells, of a tuned grid its share of the
variants, whose cells wait for all their trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from analysis.records.schema import Record
from medmamba_variants.networks import Network
from study.declaration.cells import Cell, DataRef
from study.declaration.definition import Study
from study.planning.tuning import choose, tuning_cells
from study.store.ledger import Ledger


@dataclass(frozen=True)
class Plan:
    """The plan of a study: its cells, and those already finished or failed.

    cells: every cell of a grid by its id, in the study's order; empty for a search, whose cells are not known yet; of a
    tuned grid those of variants whose recipe is chosen. trials: the cells of the tuning, if any.
    finished: the finished cells of the whole ledger by id, since a search may yet ask for any of them. failed: the ids
    of the plan's cells whose record is a failure. ids: those of all cells of a grid, of other shards too.
    shard: (number, count), such as (1, 4) for the first of four; None for the whole study.
    """

    study: Study
    refs: Mapping[str, DataRef]
    cells: Mapping[str, Cell]
    finished: Mapping[str, Record]
    failed: frozenset[str]
    trials: Mapping[str, Cell] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None

    @property
    def total(self) -> int:
        """The number of cells to have, done ones included; a search counts all variants it may accept."""
        study = self.study
        if self.shard is not None and study.tuning is None:
            return len(self.cells)
        variants = len(self.variants()) if study.is_grid else study.strategy.trials
        return len(self.trials) + variants * len(study.seeds) * len(study.datasets)

    def variants(self) -> list[tuple[str, Network]]:
        """The variants of a grid as (label, variant), of a tuned grid in shards only the shard's."""
        every = self.study.variants()
        if self.shard is None or self.study.tuning is None:
            return every
        return [row for place, row in enumerate(every) if _deals(self.shard, place)]

    def done(self) -> list[Record]:
        """The records of the plan's cells that are finished."""
        return [self.finished[cell_id] for cell_id in (*self.trials, *self.cells) if cell_id in self.finished]

    def left(self) -> list[Cell]:
        """The plan's cells still to run, including those that failed before."""
        known = {**self.trials, **self.cells}
        return [cell for cell_id, cell in known.items() if cell_id not in self.finished]


def make_plan(study: Study, refs: Mapping[str, DataRef], ledger: Ledger, shard: tuple[int, int] | None = None) -> Plan:
    """The plan of a study, or of a shard of it, as its ledger stands. `refs` has an entry for each of its data sets.

    Raises ValueError when two data sets have the same content, since their cells would be one, and for shards of a
    search, whose next variant depends on all before it.
    """
    owners: dict[str, str] = {}
    for name in study.datasets:
        earlier = owners.setdefault(refs[name].fingerprint, name)
        if earlier != name:
            raise ValueError(
                f"{study.path}: datasets must differ in content, got {earlier} and {name}, which are equal"
            )
    if shard is not None and not study.is_grid:
        raise ValueError(
            f"{study.path}: --shard must go with strategy: grid, got {study.strategy.name}, whose next variant depends "
            "on all before it"
        )
    plan = Plan(study, refs, {}, ledger.finished(), frozenset(), shard=shard)
    if study.tuning is not None:
        cells, trials = _tuned(plan)
        plan = replace(plan, cells=cells, trials=trials)
    elif study.is_grid:
        every = {cell.cell_id: cell for cell in study.cells(refs)}
        plan = replace(plan, ids=tuple(every), cells=every if shard is None else _dealt(study, every, shard))
    if shard is not None and not (plan.trials or plan.cells):
        parts = len(study.variants()) if study.tuning is not None else len(plan.ids)
        raise ValueError(f"{study.path}: --shard must be of at most {parts} parts, got {shard[0]}/{shard[1]}")
    records = ledger.records()
    failed = frozenset(i for i in (*plan.trials, *plan.cells) if records.get(i, {}).get("status") == "failed")
    return replace(plan, failed=failed)


def _dealt(study: Study, cells: Mapping[str, Cell], shard: tuple[int, int]) -> dict[str, Cell]:
    """Those of a grid's cells that belong to a shard.

    They are dealt like cards, but each data set and seed begins one shard later: so every shard gets its share of every
    variant, and more seeds at the end of the list leave a cell in its shard.
    """
    width = max(1, len(study.variants()))
    places = enumerate(cells.items())
    return {cell_id: cell for place, (cell_id, cell) in places if _deals(shard, place % width + place // width)}


def _deals(shard: tuple[int, int], place: int) -> bool:
    number, count = shard
    return place % count == number - 1


def _tuned(plan: Plan) -> tuple[dict[str, Cell], dict[str, Cell]]:
    """The cells of variants whose recipe can be chosen already, and all trials: seeds outermost, then data sets."""
    study, refs, finished = plan.study, plan.refs, plan.finished
    assert study.tuning is not None
    cells: dict[str, Cell] = {}
    trials: dict[str, Cell] = {}
    by_variant = [tuning_cells(study, variant, refs) for _, variant in plan.variants()]
    for together in zip(*(row for rows in by_variant for row in rows)):
        trials |= {cell.cell_id: cell for cell in together}
    for (_, variant), tried in zip(plan.variants(), by_variant):
        if all(cell.cell_id in finished for row in tried for cell in row):
            choice = choose(study, tried, finished)
            if choice is not None:
                recipe = study.tuning.recipes[choice.place]
                cells |= {cell.cell_id: cell for cell in study.cells_of(variant, refs, recipe)}
    return cells, trials
