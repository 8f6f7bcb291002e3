"""Progress of a running study: a live table on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Protocol, TextIO

from analysis.records.schema import Record
from analysis.words import LONGEST_REASON, METRIC_NAMES, NOTHING, ends, share, shortened
from study.telling.board import METRIC, Board
from study.telling.heat import heat_table
from study.telling.terminal import duration

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SECONDS_BETWEEN_LINES = 5.0
REFRESHES_A_SECOND = 2


@dataclass
class Running:
    """A cell under way."""

    label: str
    dataset: str
    seed: int
    begun: float


@dataclass
class Status:
    """The state of a running study: counts and what follows from them, independent of any terminal.

    Counts are of all cells, `trials` of a tuning among them; those that count in the end are on the board.
    """

    total: int | None
    board: Board = field(default_factory=Board)
    done: int = 0
    failed: int = 0
    stopped: int = 0
    trials: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    _seconds: list[float] = field(default_factory=list)
    _most_running: int = 0

    def adopt(self, label: str, record: Record, judged: bool = True) -> None:
        """Counts a cell that was finished before this launch; judged: whether it counts in the end."""
        self.done += 1
        self._place(label, record, judged)

    def start(self, cell_id: str, cell: Running) -> None:
        """A worker has begun a cell."""
        self.running[cell_id] = cell
        self._most_running = max(self._most_running, len(self.running))

    def end(self, label: str, record: Record, now: float, judged: bool = True) -> None:
        """A cell has ended, in whatever way; judged: whether it counts in the end."""
        cell = self.running.pop(record["cell_id"], None)
        if cell is not None:
            self._seconds.append(now - cell.begun)
        if record["status"] == "done":
            self.done += 1
        elif record["status"] == "failed":
            self.failed += 1
        else:
            self.stopped += 1
        self._place(label, record, judged)

    def waiting(self) -> int | None:
        """The number of cells that have not begun; None when the total is unknown."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - self.failed - self.stopped - len(self.running))

    def starting(self) -> bool:
        """Whether there are cells to run but none has begun, because workers are still loading what they need."""
        return not self._most_running and self.waiting() != 0

    def eta(self, now: float) -> float | None:
        """Seconds still to go; None before anything is known of the cells to come.

        A cell to come takes what such cells took, by variant and data set, else the median cell of this launch.
        """
        waiting = self.waiting()
        if waiting is None:
            return None
        under_way = Counter((cell.label, cell.dataset) for cell in self.running.values())
        places = list((Counter(self.board.missing()) - under_way).elements())
        known = self.board.seconds_left(places) if len(places) <= waiting else None
        others = waiting if known is None else waiting - len(places)
        if not self._seconds and (others or (known is None and self.running)):
            return None
        usual = median(self._seconds) if self._seconds else 0.0
        left = (known or 0.0) + others * usual
        for cell in self.running.values():
            left += max(0.0, (self.board.usual(cell.label, cell.dataset) or usual) - (now - cell.begun))
        return left / max(1, self._most_running)

    def best(self) -> tuple[str, float, int] | None:
        """The label of the best variant so far, its mean validation macro-F1, and over how many cells."""
        found = self.board.best()
        return None if found is None else (found.label, found.value, found.cells)

    def _place(self, label: str, record: Record, judged: bool) -> None:
        if judged:
            self.board.add(label, record)
        else:
            self.trials += 1


class Display(Protocol):
    """The interface of displays of progress."""

    def changed(self, status: Status, *, at_once: bool) -> None:
        """The status has changed; `at_once` when a person would want to know immediately."""

    def note(self, text: str) -> None:
        """Shows a line to keep, from any thread."""


class Progress:
    """Counter of events that shows them; made by `shown`."""

    def __init__(self, status: Status, display: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self.status = status
        self._display = display
        self._clock = clock

    def started(self, cell_id: str, label: str, dataset: str, seed: int) -> None:
        """A worker has begun a cell."""
        self.status.start(cell_id, Running(label, dataset, seed, self._clock()))
        self._display.changed(self.status, at_once=False)

    def ended(self, label: str, record: Record, judged: bool = True) -> None:
        """A cell has ended; a failure is shown at once, with its message. judged: whether it counts in the end."""
        self.status.end(label, record, self._clock(), judged)
        failed = record["status"] == "failed"
        if failed:
            self._display.note(f"failed: {describe_failure(label, record)}")
        self._display.changed(self.status, at_once=failed)

    def note(self, text: str) -> None:
        """Shows a line to keep among the progress, from any thread."""
        self._display.note(text)


def describe_failure(label: str, record: Record) -> str:
    """A failure in one line: which cell, and what went wrong."""
    error = record.get("error") or {}
    message = " ".join(str(error.get("message", "no message")).split())
    what = f"{error.get('type', 'error')}: {shortened(message, LONGEST_REASON)}"
    return f"{label} · {record['dataset']} · seed {record['seed']}: {what}"


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints at once; when the reader is gone (`| head`) the output ends, not the study."""
    out = sys.stdout if stream is None else stream
    try:
        print(text, file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


@contextmanager
def shown(status: Status, title: str, stream: TextIO | None = None) -> Iterator[Progress]:
    """Context in which progress is shown on the stream (standard output): live on a terminal, else as plain lines."""
    out = sys.stdout if stream is None else stream
    if not out.isatty():
        lines = Lines(out)
        lines.changed(status, at_once=True)
        try:
            yield Progress(status, lines)
        finally:
            lines.changed(status, at_once=True)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=out)
    with Live(
        console=console,
        refresh_per_second=REFRESHES_A_SECOND,
        get_renderable=lambda: live_view(status, title, time.monotonic()),
        redirect_stderr=True,
    ):
        yield Progress(status, _OnConsole(console.print))


class Lines:
    """Display in plain lines, at most one every few seconds unless something failed; nothing is written twice."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._written = float("-inf")
        self._counts: tuple[int, ...] | None = None
        self._lock = threading.Lock()

    def changed(self, status: Status, *, at_once: bool) -> None:
        """Writes the counts, if they have changed and the last line is old enough."""
        now = self._clock()
        counts = (status.done, status.failed, status.stopped)
        if counts == self._counts or not (at_once or now - self._written >= SECONDS_BETWEEN_LINES):
            return
        self._written, self._counts = now, counts
        self.note(line(status, now))

    def note(self, text: str) -> None:
        """Writes a line."""
        with self._lock:
            say(text, self._stream)


class _OnConsole:
    """Display on a terminal: the live table repaints itself, so only lines to keep need writing."""

    def __init__(self, write: Callable[..., None]) -> None:
        self._write = write

    def changed(self, status: Status, *, at_once: bool) -> None:
        """Does nothing: the next refresh shows the change."""

    def note(self, text: str) -> None:
        """Writes a line above the table."""
        self._write(text, markup=False, highlight=False, soft_wrap=True)


def line(status: Status, now: float) -> str:
    """The status as one line."""
    parts = [f"{status.done} of {'?' if status.total is None else status.total} cells done"]
    parts += [f"{number} {name}" for number, name in ((status.failed, "failed"), (status.stopped, "stopped")) if number]
    if status.running:
        parts.append(f"{len(status.running)} running")
    eta = status.eta(now)
    if status.starting():
        parts.append("starting")
    elif status.waiting() or status.running:
        parts.append("ETA unknown yet" if eta is None else f"ETA {duration(eta)}")
    best = best_text(status.board)
    return ", ".join(parts) + (f"; best so far {best}" if best else "")


def live_view(status: Status, title: str, now: float) -> Group:
    """The status on a terminal: counts, time, best so far, the cells under way, and the heat map of all."""
    from rich.console import Group

    heat = heat_table(status.board)
    return Group(live_table(status, title, now), *([] if heat is None else [heat]))


def live_table(status: Status, title: str, now: float) -> Table:
    """The status as a table: counts, time, best so far, failures, and the cells under way."""
    from rich.table import Table
    from rich.text import Text

    eta = status.eta(now)
    total = "?" if status.total is None else status.total
    counts = Text.assemble(
        (f"{status.done} done", "green"),
        f"  {len(status.running)} running  ",
        (f"{status.failed} failed", "bold red" if status.failed else "dim"),
        f"  of {total}",
    )
    clock = f"{duration(now - status.begun)} so far, "
    clock += "starting" if status.starting() else f"ETA {'…' if eta is None else duration(eta)}"
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(title, style="bold"), counts)
    table.add_row("", clock)
    table.add_row("best so far", Text(best_text(status.board) or "…"))
    if status.board.failures:
        table.add_row("failures", Text(failures_text(status.board), style="red"))
    for cell in list(status.running.values()):
        text = f"{cell.label} · {cell.dataset} · seed {cell.seed}"
        table.add_row(Text(duration(now - cell.begun), style="dim", justify="right"), Text(text))
    return table


def best_text(board: Board) -> str:
    """The best variant so far with its mean and the interval of that; empty before the first finished cell."""
    best = board.best()
    if best is None:
        return ""
    interval = ends(best.low, best.high)
    within = "" if interval == NOTHING else f" {interval} over {best.over}"
    return f"{best.label} (validation {METRIC_NAMES[METRIC]} {share(best.value)}{within}, n = {best.cells})"


def failures_text(board: Board) -> str:
    """All failures in one line: how many of which kind, and the last one; empty without any."""
    if not board.failures:
        return ""
    kinds = Counter(str((record.get("error") or {}).get("type", "error")) for _, record in board.failures.values())
    named = ", ".join(f"{kind} × {count}" if count > 1 else kind for kind, count in kinds.most_common())
    return f"{len(board.failures)} ({named}); the last: {describe_failure(*list(board.failures.values())[-1])}"
