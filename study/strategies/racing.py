"""Racing strategy: a grid in blocks, whose variants are dropped once they are behind the leader for good."""

from __future__ import annotations

from analysis.records.schema import Record
from analysis.words import counted, metric_name
from study.declaration.cells import Cell
from study.planning.plan import Plan
from study.planning.racing import Race, follow
from study.strategies.waiting import Waiting


class Racing:
    """The strategy of a race. Cells up to the next look are handed out at once; a look waits for all of them.

    What it does depends on records alone, so a killed launch goes on to the same decisions. A variant with a failed
    cell leaves the race, and is tried again at the next launch.
    """

    def __init__(self, plan: Plan) -> None:
        self.study = plan.study
        self.race = Race(plan.study, plan.refs)
        self.resumed: list[Record] = []
        self._finished = plan.finished
        self._waiting = Waiting()
        self._go_on()

    def ask(self) -> Cell | None:
        """The next cell; None while a look waits for cells that are out, or when the race is over."""
        return self._waiting.next()

    def tell(self, record: Record) -> None:
        """Takes the record of a cell that was handed out; the last one before a look brings the next cells."""
        self._waiting.back(record["cell_id"])
        self.race.take(record)
        if self._waiting.is_over() and self.race.advance():
            self._go_on()

    def done(self) -> bool:
        """Whether the race is over."""
        return self._waiting.is_over()

    def total(self) -> int | None:
        """The number of cells if nobody else is dropped, finished ones included."""
        return self.race.total()

    def label(self, cell: Cell) -> str:
        """The label of a cell's variant in the grid."""
        return self.study.label(cell.variant)

    def cell_ids(self) -> list[str]:
        """The ids of the cells of variants that were not dropped."""
        return self.race.judged()

    def notes(self) -> list[str]:
        """Sentences on who was dropped when, and on the cells saved."""
        return race_lines(self.race)

    def _go_on(self) -> None:
        self.resumed += follow(self.race, self._finished)
        for cell in self.race.wanted():
            self._waiting.add(cell)


def race_lines(race: Race) -> list[str]:
    """Who was dropped after how many blocks, who left for another reason, and how many cells were asked for."""
    n_variants, n_blocks = len(race.study.variants()), len(race.blocks)
    by_look = {n: [drop for drop in race.dropped if drop.blocks == n] for n in race.times}
    told = [f"{len(drops)} after {n}" for n, drops in by_look.items() if drops]
    grid = n_variants * len(race.study.seeds) * len(race.study.datasets)
    lines = []
    if told:
        lines.append(
            f"racing dropped {len(race.dropped)} of {counted(n_variants, 'variant')} as worse than the leader "
            f"({', '.join(told)} of {n_blocks} blocks): {race.asked():,} of {grid:,} cells; "
            "theirs enter no table, test or figure"
        )
    elif race.seen:
        lines.append(f"racing has dropped nobody after {race.seen} of {n_blocks} blocks")
    labels = {variant.variant_id: label for label, variant in race.study.variants()}
    best = race.leader()
    if best is not None:
        lines.append(f"best so far by validation {metric_name(race.metric)}: {labels[best]}")
    lines += [f"{labels[variant_id]} left the race: {why}" for variant_id, why in race.out.items()]
    return lines


def dropped_lines(race: Race, limit: int = 20) -> list[str]:
    """A line for each dropped variant, at most `limit`: after how many blocks, and how far behind which leader."""
    labels = {variant.variant_id: label for label, variant in race.study.variants()}
    lines = [
        f"{labels[drop.variant_id]}: dropped after {drop.blocks} blocks, {drop.difference:+.3f} from "
        f"{labels[drop.leader]} (p = {drop.p_value:.2g} ≤ {drop.level:.2g})"
        for drop in race.dropped
    ]
    more = len(lines) - limit
    return lines if more <= 0 else [*lines[:limit], f"and {more} more, which the study's page lists"]
