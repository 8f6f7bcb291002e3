"""Progress: the counts and what follows from them, plain lines, the live table."""

import io
import re

import pytest

from analysis.words import ends, quantity, share
from study.telling.progress import Lines, Progress, Running, Status, describe_failure, line, live_table, say, shown
from study.telling.terminal import about, columns, duration

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def make_record(cell_id="a", status="done", dataset="ct", seed=0, macro_f1=0.5, error=None):
    validation = {"macro_f1": macro_f1} if status == "done" else {}
    return {
        "cell_id": cell_id,
        "status": status,
        "dataset": dataset,
        "seed": seed,
        "validation": validation,
        "error": error,
    }


def test_counts_follow_what_happens():
    clock = Clock()
    status = Status(total=5, begun=clock())
    status.adopt("half", make_record("z"))
    for cell_id in "abc":
        status.start(cell_id, Running("half", "ct", 0, clock()))
    assert (status.done, len(status.running), status.waiting()) == (1, 3, 1)
    status.end("half", make_record("a"), clock())
    status.end("half", make_record("b", status="failed"), clock())
    status.end("half", make_record("c", status="stopped"), clock())
    assert (status.done, status.failed, status.stopped, len(status.running), status.waiting()) == (2, 1, 1, 0, 1)


def test_eta_shares_the_median_cell_among_as_many_as_ran_at_a_time():
    status = Status(total=9, begun=0.0)
    assert status.eta(0.0) is None
    for cell_id in "ab":
        status.start(cell_id, Running("half", "ct", 0, 0.0))
    status.end("half", make_record("a"), 10.0)
    status.start("c", Running("half", "ct", 0, 10.0))
    # Six wait for 10 s each; b (begun at 0) should be over, c has 6 of its 10 s to go; two run at a time.
    assert status.eta(14.0) == pytest.approx((6 * 10 + 0 + 6) / 2)


def test_workers_that_still_load_are_told_of():
    from rich.console import Console

    status = Status(total=3, begun=0.0)
    status.adopt("half", make_record("z"))
    console = Console(file=io.StringIO(), width=100)
    console.print(live_table(status, "split_ratio", 9.0))
    assert "0:09 so far, starting" in console.file.getvalue()
    assert line(status, 9.0).startswith("1 of 3 cells done, starting")
    status.start("a", Running("half", "ct", 0, 20.0))
    status.end("half", make_record("a"), 30.0)
    assert not status.starting() and "ETA 0:10" in line(status, 30.0)
    assert not Status(total=0).starting()


def test_eta_of_a_search_without_an_end_is_unknown():
    status = Status(total=None, begun=0.0)
    status.start("a", Running("half", "ct", 0, 0.0))
    status.end("half", make_record("a"), 10.0)
    assert status.eta(10.0) is None
    assert "of ? cells" in line(status, 10.0)


def test_best_so_far_compares_on_equal_data_and_seeds():
    status = Status(total=9)
    status.adopt("strong", make_record("a", dataset="hard", macro_f1=0.5))
    status.adopt("weak", make_record("b", dataset="hard", macro_f1=0.3))
    # The weak variant alone has met the easy set yet.
    status.adopt("weak", make_record("c", dataset="easy", macro_f1=0.95))
    label, value, cells = status.best()
    assert (label, value, cells) == ("strong", 0.5, 1)


def test_a_metric_that_is_undefined_takes_no_part_in_best():
    status = Status(total=2)
    assert status.best() is None
    status.adopt("half", make_record(macro_f1=None))
    assert status.best() is None


def test_lines_are_plain_and_rare_but_failures_come_at_once():
    clock, out = Clock(), io.StringIO()
    status = Status(total=40, begun=clock())
    progress = Progress(status, Lines(out, clock), clock)
    for index in range(30):
        progress.started(str(index), "half", "ct", index)
        clock.now += 1.0
        progress.ended("half", make_record(str(index), seed=index))
    regular = out.getvalue().splitlines()
    assert 5 <= len(regular) <= 7
    progress.started("x", "quarter", "mri", 3)
    error = {"type": "ValueError", "message": "two\nlines"}
    progress.ended("quarter", make_record("x", "failed", "mri", 3, error=error))
    new = out.getvalue().splitlines()[len(regular) :]
    assert new[0] == "failed: quarter · mri · seed 3: ValueError: two lines"
    assert "1 failed" in new[1]
    assert not CONTROL.search(out.getvalue())


def test_lines_do_not_repeat_themselves():
    out = io.StringIO()
    lines, status = Lines(out), Status(total=1)
    for _ in range(3):
        lines.changed(status, at_once=True)
    assert len(out.getvalue().splitlines()) == 1


def test_piped_output_has_first_and_last_counts_and_no_control_codes():
    out = io.StringIO()
    status = Status(total=2)
    with shown(status, "split_ratio", out) as progress:
        for cell_id in "ab":
            progress.started(cell_id, "[half]", "ct", 0)
            progress.ended("[half]", make_record(cell_id))
        progress.note("a note")
    text = out.getvalue()
    assert text.splitlines()[0].startswith("0 of 2 cells done")
    assert text.splitlines()[-1].startswith("2 of 2 cells done; best so far [half]")
    assert "a note" in text
    assert not CONTROL.search(text)


def test_a_terminal_gets_a_table_that_repaints_and_lines_that_stay(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    with shown(Status(total=2), "split_ratio", out) as progress:
        progress.started("a", "[half]", "ct", 7)
        progress.note("warning: [not markup]")
    text = out.getvalue()
    assert "\x1b[" in text
    assert "warning: [not markup]" in text
    assert "[half] · ct · seed 7" in text
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor must be shown again"


def test_the_live_table_shows_counts_time_best_and_running_cells():
    from rich.console import Console

    status = Status(total=12, begun=0.0)
    status.adopt("half", make_record(macro_f1=0.812))
    status.start("a", Running("quarter", "ct", 3, 20.0))
    status.start("b", Running("half", "mri", 4, 50.0))
    console = Console(file=io.StringIO(), width=100)
    console.print(live_table(status, "split_ratio", 65.0))
    text = console.file.getvalue()
    for part in ("split_ratio", "1 done", "2 running", "0 failed", "of 12", "1:05 so far", "ETA …"):
        assert part in text
    assert re.search(r"0:45\s+quarter · ct · seed 3", text)
    assert re.search(r"0:15\s+half · mri · seed 4", text)
    assert "half (validation macro-F1 0.812, n = 1)" in text


def test_a_failure_without_a_message_is_still_told():
    assert describe_failure("half", make_record(status="failed")) == "half · ct · seed 0: error: no message"


def test_a_reader_that_has_gone_away_does_not_end_the_study(tmp_path):
    import os

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        say("nobody reads this", stream)
        say("nor this", stream)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (14457222, "14.5 M"),
        (999, "999"),
        (999_600, "1 M"),
        (1_000, "1 k"),
        (4.15e9, "4.15 G"),
        (231_000, "231 k"),
    ],
)
def test_quantities(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65, "1:05"), (3725, "1:02:05"), (-3, "0:00")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "0.1 s"), (1.54, "1.5 s"), (10.4, "10 s"), (89, "89 s"), (300, "5 min"), (9000, "2.5 h")],
)
def test_rough_times(seconds, text):
    assert about(seconds) == text


def test_missing_numbers_leave_no_nan_on_the_page():
    nan = float("nan")
    assert (quantity(nan), share(None), share(nan), ends(nan, 0.3)) == ("–", "–", "–", "–")
    assert ends(0.25, 0.5) == "[0.250, 0.500]"


def test_columns_are_aligned():
    lines = columns(("variant", "n"), [("a", "12"), ("longer name", "3")], right=(1,))
    assert lines == ["variant       n", "───────────  ──", "a            12", "longer name   3"]
