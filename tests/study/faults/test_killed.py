"""The command killed amid a cell, as often as one likes: it goes on there and leaves what an undisturbed one leaves."""

import json

import pytest
from command_fixture import folder, lines_of, start, told, wait_while
from patience import HANG

from study.launch import main

__all__ = ["folder"]
ONE_CELL = ("--seeds", "0", "--set", "axes.split_ratio=[0.5]", "--set", "recipe.epochs=200")


def results(folder, store):
    """What must be the same in two stores: metrics and curves by cell, and the bytes of the probabilities' files."""
    records = {
        record["cell_id"]: json.dumps({name: record[name] for name in ("test", "validation", "curves", "best_epoch")})
        for record in lines_of(folder, store)
    }
    files = {path.name: path.read_bytes() for path in (folder / store / "ledger" / "probabilities").iterdir()}
    return records, files


def kill_amid_cells(folder, *arguments, times, cells=1):
    """Starts the command and kills it, again and again, each time after every running cell has written a checkpoint."""
    kept = folder / "killed" / "ledger" / "checkpoints"
    for _ in range(times):
        before = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.pt")} if kept.exists() else {}

        def newer(before=before):
            found = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.pt")}
            return sum(before.get(name) != stamp for name, stamp in found.items()) >= cells

        process = start(folder, "--store", "killed", "--checkpoint-every", "0.1", *arguments)
        wait_while(process, folder, newer)
        process.kill()
        process.wait(HANG)
    assert lines_of(folder, "killed") == []


def test_a_cell_that_is_killed_three_times_leaves_the_same_bytes(folder, capsys):
    undisturbed = ("study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", *ONE_CELL)
    kill_amid_cells(folder, "--executor", "inline", *ONE_CELL, times=3)
    assert main([*undisturbed, "--store", "killed"]) == 0
    assert main([*undisturbed, "--store", "whole"]) == 0
    assert results(folder, "killed") == results(folder, "whole")
    (record,) = lines_of(folder, "killed")
    assert len(record["resumed"]) == 3 and record["resumed"] == sorted(record["resumed"])
    assert not (folder / "killed" / "ledger" / "checkpoints").exists(), "removed when the cell ends"


@pytest.mark.slow
def test_cells_of_ray_that_are_killed_leave_the_same_bytes(folder):
    arguments = ("--set", "recipe.epochs=400", "--executor", "ray", "--workers", "2", "--seeds", "0")
    kill_amid_cells(folder, *arguments, times=2, cells=2)
    for store, executor in (
        ("killed", arguments),
        ("whole", (*arguments[:2], "--executor", "inline", *arguments[-2:])),
    ):
        process = start(folder, "--store", store, *executor)
        assert process.wait(HANG) == 0, told(folder)
    assert results(folder, "killed") == results(folder, "whole")
    # Workers outlive their driver by seconds, in which their checkpoints may look like those of the next.
    assert all(1 <= len(record["resumed"]) <= 2 for record in lines_of(folder, "killed"))
    assert not (folder / "killed" / "ledger" / "checkpoints").exists()
