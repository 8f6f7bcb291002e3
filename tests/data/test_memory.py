"""What a dry run says of memory: the images that a worker holds, the copies that it trains on, what is mapped."""

import re

from study.data import DatasetInfo, lying
from study.data.sources import KEPT_BYTES
from study.declaration.recipe import Recipe
from study.planning import memory
from study.planning.inputs import Inputs


def inputs(**sizes: tuple[int, int]) -> Inputs:
    infos = {name: DatasetInfo(name, "none", ("a", "b"), 3, (100, 200), 1000, 100, 100, "f" * 16) for name in sizes}
    return Inputs({}, infos, sizes)


def images_of(lines: list[str]) -> str:
    found = re.match(r"memory: a worker takes about (?:[\d.]+ .B, )?([\d.]+ .?B) of images", lines[0])
    assert found is not None, lines
    return found[1]


STORED = 1200 * 100 * 200 * 3


def test_a_worker_holds_its_sets_and_a_resized_copy_of_one(monkeypatch):
    monkeypatch.setattr(memory, "_machine", lambda: None)
    two = inputs(a=(STORED, 0), b=(STORED, 0))
    assert images_of(memory.memory_lines(two, Recipe(), 1)) == "144 MB"
    assert images_of(memory.memory_lines(two, Recipe(image_size=50), 1)) == "153 MB"
    many = inputs(**{f"set {n}": (300 << 20, 0) for n in range(9)})
    assert KEPT_BYTES == 1 << 30
    assert images_of(memory.memory_lines(many, Recipe(), 1)) == "1.07 GB"


def test_a_mapped_set_is_held_only_where_its_training_size_is_small(monkeypatch):
    monkeypatch.setattr(memory, "_machine", lambda: None)
    mapped = inputs(a=(0, STORED))
    lines = memory.memory_lines(mapped, Recipe(image_size=10), 1)
    assert images_of(lines) == "360 kB"
    assert lines[1] == "note: a: 72 MB of images are mapped from a file, and held by no worker"
    monkeypatch.setattr(memory, "HELD", 10_000_000)
    # Train alone is too large: 60 MB of 72 MB.
    assert images_of(memory.memory_lines(mapped, Recipe(), 1)) == "12 MB"
    assert lying.HELD == 1 << 28


def test_workers_together_and_a_machine_that_is_too_small(monkeypatch):
    monkeypatch.setattr(memory, "_resident", lambda: 400_000_000)
    monkeypatch.setattr(memory, "held_here", lambda: 100_000_000)
    monkeypatch.setattr(memory, "_machine", lambda: 1_000_000_000)
    (line,) = memory.memory_lines(inputs(a=(STORED, 0)), Recipe(), 4)
    assert line == (
        "memory: a worker takes about 372 MB, 72 MB of images and 300 MB besides; 4 workers 1.49 GB, more than the 1 "
        "GB of this machine"
    )
