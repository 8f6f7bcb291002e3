"""A store that has no room, and records and files that were changed: one line, and the same command goes on."""

import json
import re
import resource

import numpy as np
from command_fixture import folder, lines_of

from study.launch import main
from study.running import session

__all__ = ["folder"]
ARGUMENTS = ["study.yaml", "--tracking-uri", "none", "--executor", "inline", "--no-report", "--set", "recipe.epochs=1"]


def test_a_full_disk_is_one_line_with_place_and_bytes_and_the_same_command_goes_on(folder, capsys, monkeypatch):
    real, limits = session.run_here, resource.getrlimit(resource.RLIMIT_FSIZE)

    def until_full(cell, **how):
        outcome = real(cell, **how)
        if len(lines_of(folder)) == 2:
            # The most that a file may grow to, in place of a disk: the third line does not fit.
            size = (folder / "mlruns" / "ledger" / "records.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        return outcome

    monkeypatch.setattr(session, "run_here", until_full)
    try:
        assert main(ARGUMENTS) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    place = re.escape(str(folder / "mlruns" / "ledger" / "records.jsonl"))
    told = re.fullmatch(rf"error: .*No space left on device.* needs (\d[\d,]*) bytes: '{place}'\n", error)
    assert told, error
    assert len(lines_of(folder)) == 2
    monkeypatch.setattr(session, "run_here", real)
    assert main(ARGUMENTS) == 0
    line = (folder / "mlruns" / "ledger" / "records.jsonl").read_bytes().splitlines(keepends=True)[2]
    assert int(told.group(1).replace(",", "")) > len(line) - 500
    assert len({line["cell_id"] for line in lines_of(folder)}) == len(lines_of(folder)) == 4


def test_what_was_taken_from_a_store_runs_again_and_what_was_spoilt_is_named(folder, capsys):
    assert main([*ARGUMENTS, "--seeds", "0"]) == 0
    ledger = folder / "mlruns" / "ledger"
    before = lines_of(folder)
    # A record is missing, and another's probabilities.
    (ledger / "records.jsonl").write_text(json.dumps(before[1]) + "\n")
    (ledger / "probabilities" / f"{before[1]['cell_id']}.npz").unlink()
    assert main([*ARGUMENTS, "--seeds", "0"]) == 0
    assert "the probabilities of a finished cell must exist, the cell will rerun" in capsys.readouterr().out
    after = {line["cell_id"]: line for line in lines_of(folder)}
    assert {cell_id: line["test"] for cell_id, line in after.items()} == {
        line["cell_id"]: line["test"] for line in before
    }
    # A line that an editor has spoilt.
    text = (ledger / "records.jsonl").read_text()
    (ledger / "records.jsonl").write_text(text.replace('"seed":0', '"seed":"zero"', 1))
    assert main([*ARGUMENTS, "--seeds", "0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "records.jsonl: line 2: record.seed must be int" in error


def test_data_that_change_between_launches_are_other_cells(folder, capsys):
    def write(shift):
        rng = np.random.default_rng(shift)
        arrays = {}
        for split, count in (("train", 24), ("val", 12), ("test", 12)):
            arrays[f"{split}_images"] = rng.integers(0, 255, (count, 12, 16), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
        np.savez(folder / "mine.npz", **arrays)

    own = [*ARGUMENTS, "--seeds", "0", "--data-root", str(folder), "--datasets", "mine"]
    own += ["--set", "axes.split_ratio=[0.5]"]
    write(0)
    assert main(own) == 0
    write(1)
    assert main(own) == 0
    first, second = lines_of(folder)
    assert first["data_fingerprint"] != second["data_fingerprint"] and first["cell_id"] != second["cell_id"]
    assert "done already" not in capsys.readouterr().out
    write(0)
    assert main(own) == 0 and "1 done already" in capsys.readouterr().out
