"""Checkpoints within a cell: interrupted at any step it ends with the same bits, and no wrong checkpoint is taken."""

import dataclasses
import json

import pytest
import torch

from medmamba_variants.networks import read_network
from study.declaration import cells
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.store.checkpoints import Checkpoints
from study.training import loop
from study.training.cell import run_cell

# Of a 48-image set: three steps an epoch.
SET = "phantom_ct?size=16x20&n_train=48&n_val=24&n_test=24"
QUICK = Recipe(epochs=3, batch_size=16, warmup_epochs=0.5)
TINY = {"depths": [1, 1], "dims": [8, 16], "d_state": 2}
CASES = {
    "average, dropped paths": ({**TINY, "drop_path_rate": 0.5}, QUICK),
    "a counter of steps among the buffers": ({**TINY, "scan_order": "random_step", "split_ratio": 1.0}, QUICK),
    "batch norm, momentum, no average": (
        {"timm": "resnet10t", "stem": "small", "channels": [4, 4, 8, 8]},
        dataclasses.replace(QUICK, optimizer="sgd", ema_span=0.0, select_on="loss", class_weights=True),
    ),
}


def make_cell(variant=TINY, recipe=QUICK, seed=0):
    from study.data import open_source

    spec = {"kind": "phantom"}
    return Cell(read_network(variant), recipe, DataRef(SET, open_source(spec).describe(SET).fingerprint, spec), seed)


@pytest.fixture
def place(tmp_path):
    """Checkpoints after every step."""
    (tmp_path / "ledger").mkdir()
    return Checkpoints(tmp_path / "ledger" / "checkpoints", 1e-9)


@pytest.fixture
def interrupted(monkeypatch):
    """Runs a cell until just before its n-th step in this process, as a kill would end it."""
    real = loop.augment

    def run(cell, place, step, **how):
        calls = []

        def augment(*given):
            calls.append(given)
            if len(calls) == step:
                raise KeyboardInterrupt
            return real(*given)

        monkeypatch.setattr(loop, "augment", augment)
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, device="cpu", checkpoints=place, **how)
        monkeypatch.setattr(loop, "augment", real)

    return run


def assert_same(one, two):
    (record, arrays), (other, others) = one, two
    assert record["status"] == other["status"] == "done", (record["error"], other["error"])
    for name in ("curves", "validation", "test", "best_epoch", "cost"):
        assert json.dumps(record[name]) == json.dumps(other[name]), name
    assert {name: array.tobytes() for name, array in arrays.items()} == {k: v.tobytes() for k, v in others.items()}


@pytest.mark.parametrize("case", CASES)
def test_a_cell_that_is_killed_again_and_again_ends_with_the_same_bits(case, place, interrupted):
    cell = make_cell(*CASES[case])
    whole = run_cell(cell, device="cpu")
    # Amid an epoch, before the last step of the next, and at the first step of the last.
    for step in (2, 4, 2):
        interrupted(cell, place, step)
        assert [path.name for path in place.folder.iterdir()] == [f"{cell.cell_id}.pt"]
    resumed = run_cell(cell, device="cpu", checkpoints=place)
    assert_same(whole, resumed)
    assert resumed[0]["resumed"] == [[0, 1], [1, 1], [1, 2]]
    assert "resumed" not in whole[0] and "notes" not in resumed[0]


def test_a_cell_that_is_killed_after_its_last_step_only_evaluates(place, monkeypatch):
    cell = make_cell()
    whole = run_cell(cell, device="cpu", checkpoints=place)
    monkeypatch.setattr(loop, "augment", None)
    assert_same(whole, run_cell(cell, device="cpu", checkpoints=place))


def test_time_that_killed_processes_took_is_counted(place, interrupted):
    cell = make_cell()
    interrupted(cell, place, 3)
    path = place.path(cell.cell_id, None)
    edit(path, lambda found: found.update(seconds=1000.0))
    record, _ = run_cell(cell, device="cpu", checkpoints=place)
    assert 1000 < record["seconds"] < 2000


def edit(path, change):
    """Writes a checkpoint anew, whole, after a change."""
    import io

    from study.store.checkpoints import read_checked, write_checked

    found = torch.load(io.BytesIO(read_checked(path)), weights_only=True)
    change(found)
    write_checked(path, lambda file: torch.save(found, file))


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_shape(found):
    found["state"]["model"] = {name: tensor[None] for name, tensor in found["state"]["model"].items()}


def half_restored(found):
    found["state"]["order"] = found["state"]["order"][:7]


BAD = {
    "a flipped bit": (damage, "is damaged and does not count"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is damaged and does not count"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged and does not count"),
    "no checkpoint": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "is damaged and does not count"),
    "other weights": (lambda path: edit(path, other_shape), "must fit the training, got"),
    "half of it fits": (lambda path: edit(path, half_restored), "must fit the training, got"),
    "other threads": (
        lambda path: edit(path, lambda found: found["identity"]["machine"].update(threads=2)),
        "has other machine and does not count",
    ),
    "other versions": (
        lambda path: edit(path, lambda found: found["identity"]["versions"].update(torch="1.0")),
        "has other versions and does not count",
    ),
    "of another cell": (
        lambda path: edit(path, lambda found: found["identity"].update(cell_id="a" * 16)),
        "has other cell_id and does not count",
    ),
}


@pytest.fixture(scope="module")
def uninterrupted():
    return run_cell(make_cell(), device="cpu")


@pytest.mark.parametrize("case", BAD)
def test_a_checkpoint_that_cannot_be_its_own_is_told_and_not_taken(case, place, interrupted, uninterrupted):
    cell = make_cell()
    interrupted(cell, place, 6)
    spoil, told = BAD[case]
    spoil(place.path(cell.cell_id, None))
    record, arrays = run_cell(cell, device="cpu", checkpoints=dataclasses.replace(place, seconds=1e9))
    assert_same(uninterrupted, (record, arrays))
    (note,) = record["notes"]
    assert told in note and "\n" not in note and "/" not in note.partition(" ")[0]
    assert "resumed" not in record


def test_no_checkpoint_of_another_recipe_seed_data_or_numerics_is_looked_at(place, monkeypatch):
    cell = make_cell()
    others = [
        make_cell(seed=1),
        make_cell(recipe=dataclasses.replace(QUICK, epochs=4)),
        dataclasses.replace(cell, data=dataclasses.replace(cell.data, fingerprint="0" * 16)),
        make_cell(variant={**TINY, "d_state": 3}),
    ]
    ids = {other.cell_id for other in [*others, cell]}
    monkeypatch.setattr(cells, "NUMERICS_VERSION", cells.NUMERICS_VERSION + 1)
    ids.add(make_cell().cell_id)
    assert len({place.path(cell_id, None) for cell_id in ids}) == 6
    assert place.path(cell.cell_id, None) != place.path(cell.cell_id, 8)


def test_a_disk_that_is_full_costs_a_note_and_no_training(place, monkeypatch, uninterrupted):
    from study.training import checkpoints

    def full(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_checked", full)
    record, arrays = run_cell(make_cell(), device="cpu", checkpoints=place)
    assert_same(uninterrupted, (record, arrays))
    assert record["notes"] == [f"{make_cell().cell_id}.pt: a checkpoint must have room, got No space left on device"]


def test_a_machine_without_the_store_keeps_none(tmp_path):
    record, _ = run_cell(make_cell(), device="cpu", checkpoints=Checkpoints(tmp_path / "none" / "checkpoints", 1e-9))
    assert record["status"] == "done" and not (tmp_path / "none").exists()


def test_leavings_of_finished_cells_are_swept_and_those_under_way_stay(place):
    place.folder.mkdir()
    names = ["aa.pt", "aa-micro4.pt", ".aa.pt.77.tmp", "bb.pt", ".bb.pt.78.tmp"]
    for name in names:
        (place.folder / name).touch()
    place.sweep({"aa"})
    assert {path.name for path in place.folder.iterdir()} == {"bb.pt", ".bb.pt.78.tmp"}
    place.remove("bb")
    assert not place.folder.exists()
