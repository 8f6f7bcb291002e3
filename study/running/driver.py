"""Driver of a launch, the only process that writes: passes outcomes from an executor to ledger, tracker and screen."""

from __future__ import annotations

from pathlib import Path

from analysis.records.schema import Record
from medmamba_variants.networks import read_network
from study.declaration.cells import Cell
from study.declaration.definition import Study
from study.executors.choice import Options
from study.executors.inline import Probabilities
from study.store.checkpoints import FOLDER as CHECKPOINTS
from study.store.checkpoints import Checkpoints
from study.store.ledger import Ledger
from study.store.tracking import StudyTags, Tracker
from study.strategies.search import Search
from study.strategies.strategy import Strategy
from study.strategies.tuned import Tuned
from study.telling.board import Board
from study.telling.closing import (
    Conclusion,
    conclude,
    failure_lines,
    for_tracking,
    front_lines,
    gather,
    place_lines,
    summarise,
    table_lines,
)
from study.telling.command import DEFAULT_STORE
from study.telling.progress import Progress, Status, say

SECONDS_TO_LOG = 300.0
SHARD_LINE = (
    "shard {} of {}: verdicts and report come from all of them together: python -m study.merge STORE... --into DIR, "
    "then this command with --store DIR and without --shard"
)
# Seconds. After an interrupt a person waits for the prompt; the next launch logs what is missing.
SECONDS_TO_LOG_WHEN_INTERRUPTED = 15.0


class Driver:
    """The only writer of a launch: passes outcomes from an executor to ledger, tracker and screen."""

    def __init__(self, study: Study, ledger: Ledger, strategy: Strategy, options: Options) -> None:
        self.study = study
        self.ledger = ledger
        self.strategy = strategy
        self.options = options
        self.status = Status(self._total(), self._board())
        self.failed = 0
        self.checkpoints = None
        if options.checkpoint_every:
            self.checkpoints = Checkpoints(ledger.folder / CHECKPOINTS, options.checkpoint_every)
        self._adopted = 0
        self._labels: dict[str, str] = {}
        self._progress: Progress | None = None
        self._tracker: Tracker | None = None
        self._adopt()

    def headline(self) -> str:
        """What is about to happen, in one line."""
        total = self.strategy.total()
        done = f", {len(self.strategy.resumed)} done already" if self.strategy.resumed else ""
        cut = "" if self.options.limit is None else f"; a smoke test of {self.options.limit} of them"
        if self.options.shard is not None:
            cut = f" (shard {self.options.shard[0]} of {self.options.shard[1]}){cut}"
        return f"{self.study.name}: {'?' if total is None else total} cells{done}{cut}; store {self.options.store}"

    def begin(self, progress: Progress) -> None:
        """Starts the tracker, which makes its database while workers start, and gives it what is already done."""
        self._progress = progress
        if self.checkpoints is not None and self.checkpoints.folder.is_dir():
            self.checkpoints.sweep(self.ledger.finished())
        if self.options.tracking_uri is not None:
            tags = StudyTags(self.study.name, self.study.study_hash, self.study.question)
            tracker = Tracker(self.options.tracking_uri, self.options.store, tags, progress.note)
            tracker.start()
            # Only once it runs: after an interrupt in between, closing would wait for a tracker that never started.
            self._tracker = tracker
            for record in self.strategy.resumed:
                self._track(record, self._label(record))

    def tell(self, text: str) -> None:
        """Shows a line among the progress, from any thread."""
        assert self._progress is not None
        self._progress.note(text)

    def started(self, cell: Cell) -> None:
        """A worker has begun this cell."""
        assert self._progress is not None
        self._progress.started(cell.cell_id, self.strategy.label(cell), cell.data.name, cell.seed)

    def ended(self, cell: Cell, record: Record, probabilities: Probabilities) -> Record:
        """Writes the record, informs tracker and screen, and returns the record as written."""
        assert self._progress is not None
        label = self.strategy.label(cell)
        origin = {"study": self.study.name, "study_hash": self.study.study_hash}
        origin |= {"contrasts_hash": self.study.contrasts_hash, "variant_label": label}
        kept = self.ledger.append({**record, **origin}, probabilities)
        # A worker that was lost has no seconds: its cell goes on from its checkpoint when it runs again.
        if self.checkpoints is not None and "seconds" in kept:
            self.checkpoints.remove(cell.cell_id)
        self.failed += kept["status"] == "failed"
        self._adopt()
        for text in kept.get("notes", []):
            self._progress.note(f"note: {label} · {cell.data.name} · seed {cell.seed}: {text}")
        self._progress.ended(label, kept, self._is_judged(kept))
        self._track(kept, label)
        return kept

    def check(self) -> None:
        """Raises ValueError, with the reasons, where a search has ended without a single variant to train."""
        if not self.strategy.cell_ids():
            why = "; ".join(self.strategy.notes())
            what = (
                "the search must find a variant to train" if self.study.tuning is None else "a recipe must train well"
            )
            raise ValueError(f"{self.study.path}: {what}, got none: {why}")

    def abandon(self) -> None:
        """Ends the tracker's run without a summary and without waiting long."""
        if self._tracker is not None:
            self._tracker.close("KILLED", self._counts(), SECONDS_TO_LOG_WHEN_INTERRUPTED)

    def close(self) -> int:
        """Prints the closing table, verdicts and places, ends the tracker's run, and returns the exit status."""
        evidence = gather(self.study, self.ledger)
        table = summarise(self.study, evidence)
        say("\n".join(["", *table_lines(table)]))
        if self._tracker is not None:
            self._tracker.summarise(for_tracking(table, evidence.records))
        lines = []
        if isinstance(self.strategy, Search) and self.options.limit is None:
            lines += front_lines(self.strategy.front())
        failures = failure_lines(self.study, evidence.records, self.strategy.cell_ids())
        lines += [*self.strategy.notes(), *self.ledger.warnings, *failures]
        end = Conclusion()
        if self.options.shard is not None:
            lines.append(SHARD_LINE.format(*self.options.shard))
        elif self.options.limit is None:
            say("\nmaking the verdicts" + (" and the report …" if self.options.report else " …"))
            end = conclude(self.study, evidence, self.options.store, self.options.report)
        lines += [*end.lines, ""]
        lines += place_lines(self.options.store, self.ledger, end.page, self.options.tracking_uri, Path(DEFAULT_STORE))
        say("\n".join(lines))
        if self._tracker is not None and not self._tracker.close(
            "FAILED" if self.failed else "FINISHED", self._counts(), SECONDS_TO_LOG
        ):
            say("warning: MLflow is still taking records; python -m study.sync logs what is missing")
        return 1 if self.failed else 0

    def _adopt(self) -> None:
        """Counts the cells finished by earlier launches, which a search discovers as it goes, and updates the total."""
        for record in self.strategy.resumed[self._adopted :]:
            label = self._label(record)
            self._track(record, label)
            if self.options.limit is None:
                self.status.adopt(label, record, self._is_judged(record))
        self._adopted = len(self.strategy.resumed)
        self.status.total = self._total()

    def _board(self) -> Board:
        study, options = self.study, self.options
        labels = [label for label, _ in study.variants()] if options.shard is None else []
        # A search knows neither its variants nor their cells, and a part of a study has some of each square.
        whole = study.is_grid and options.shard is None and options.limit is None
        return Board(labels, study.datasets, len(study.seeds) if whole else None, study.own_sources)

    def _is_judged(self, record: Record) -> bool:
        return not (isinstance(self.strategy, Tuned) and self.strategy.is_trial(record["cell_id"]))

    def _total(self) -> int | None:
        total, limit = self.strategy.total(), self.options.limit
        return total if limit is None or total is None else min(total, limit)

    def _label(self, record: Record) -> str:
        # Thousands of records may be of a dozen variants, each of which takes a fiftieth of a second to make.
        if record["variant_id"] not in self._labels:
            self._labels[record["variant_id"]] = self.study.label(read_network(record["variant"]))
        return self._labels[record["variant_id"]]

    def _track(self, record: Record, label: str) -> None:
        if self._tracker is not None:
            name = record.get("probabilities")
            self._tracker.log(record, label, [self.ledger.folder / name] if name else [])

    def _counts(self) -> dict[str, int]:
        return {"cells_done": self.status.done, "cells_failed": self.failed}
