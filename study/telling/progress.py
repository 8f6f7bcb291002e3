"""Progress of a running study: a live table on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Protocol, TextIO

from analysis.records.schema import Record
from analysis.words import LONGEST_REASON, METRIC_NAMES, share, shortened
from study.telling.terminal import duration

if TYPE_CHECKING:
    from rich.table import Table

# Best so far is by validation: nobody should look at the test split while decisions are still open.
METRIC = "macro_f1"
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
    """The state of a running study: counts and what follows from them, independent of any terminal."""

    total: int | None
    done: int = 0
    failed: int = 0
    stopped: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    _seconds: list[float] = field(default_factory=list)
    _most_running: int = 0
    _values: dict[tuple[str, int], dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def adopt(self, label: str, record: Record) -> None:
        """Counts a cell that was finished before this launch."""
        self.done += 1
        self._rank(label, record)

    def start(self, cell_id: str, cell: Running) -> None:
        """A worker has begun a cell."""
        self.running[cell_id] = cell
        self._most_running = max(self._most_running, len(self.running))

    def end(self, label: str, record: Record, now: float) -> None:
        """A cell has ended, in whatever way."""
        cell = self.running.pop(record["cell_id"], None)
        if cell is not None:
            self._seconds.append(now - cell.begun)
        if record["status"] == "done":
            self.done += 1
            self._rank(label, record)
        elif record["status"] == "failed":
            self.failed += 1
        else:
            self.stopped += 1

    def waiting(self) -> int | None:
        """The number of cells that have not begun; None when the total is unknown."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - self.failed - self.stopped - len(self.running))

    def starting(self) -> bool:
        """Whether there are cells to run but none has begun, because workers are still loading what they need."""
        return not self._most_running and self.waiting() != 0

    def eta(self, now: float) -> float | None:
        """Seconds still to go, from the median cell of this launch; None before the first has ended."""
        waiting = self.waiting()
        if waiting is None or not self._seconds:
            return None
        usual = median(self._seconds)
        left = waiting * usual + sum(max(0.0, usual - (now - cell.begun)) for cell in self.running.values())
        return left / max(1, self._most_running)

    def best(self) -> tuple[str, float, int] | None:
        """The label of the best variant so far, its mean validation macro-F1, and over how many cells.

        Variants are ranked by their mean distance from the others on the same data set and seed, so that one that has
        run only on easy data sets is not ahead because of that.
        """
        ahead: dict[str, list[float]] = defaultdict(list)
        values: dict[str, list[float]] = defaultdict(list)
        for by_label in self._values.values():
            middle = fmean(by_label.values())
            for label, value in by_label.items():
                ahead[label].append(value - middle)
                values[label].append(value)
        if not ahead:
            return None
        label = max(ahead, key=lambda name: fmean(ahead[name]))
        return label, fmean(values[label]), len(values[label])

    def _rank(self, label: str, record: Record) -> None:
        value = (record.get("validation") or {}).get(METRIC)
        if value is not None:
            self._values[record["dataset"], record["seed"]][label] = value


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

    def ended(self, label: str, record: Record) -> None:
        """A cell has ended; a failure is shown at once, with its message."""
        self.status.end(label, record, self._clock())
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
        get_renderable=lambda: live_table(status, title, time.monotonic()),
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
    best = _best_text(status)
    return ", ".join(parts) + (f"; best so far {best}" if best else "")


def live_table(status: Status, title: str, now: float) -> Table:
    """The status as a table: counts, time, best so far, and the cells under way."""
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
    table.add_row("best so far", Text(_best_text(status) or "…"))
    for cell in list(status.running.values()):
        text = f"{cell.label} · {cell.dataset} · seed {cell.seed}"
        table.add_row(Text(duration(now - cell.begun), style="dim", justify="right"), Text(text))
    return table


def _best_text(status: Status) -> str:
    best = status.best()
    if best is None:
        return ""
    label, value, cells = best
    return f"{label} (validation {METRIC_NAMES[METRIC]} {share(value)}, n = {cells})"
