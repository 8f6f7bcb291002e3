"""A cell trains on mapped images as on held ones, to the last bit, and holds little of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medmamba_variants.config import VariantConfig
from study.data import lying, open_source
from study.data.sources import _kept
from study.declaration.cells import Cell, DataRef
from study.declaration.recipe import Recipe
from study.training.cell import run_cell
from study.training.images import Images, MappedImages, Normaliser, as_trained, mean_and_deviation, on_device, resized

TINY = VariantConfig.from_dict({"depths": [1, 1], "dims": [8, 16], "d_state": 2, "patch_size": 4, "odd_maps": "pad"})
CPU = torch.device("cpu")


@pytest.fixture
def spec(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 50), ("val", 20), ("test", 30)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 200, (count, 20, 28, 3)) + 30 * labels[:, None, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    np.savez_compressed(tmp_path / "toy.npz", **arrays)
    _kept.clear()
    yield {"kind": "npz", "root": str(tmp_path), "cache": str(tmp_path / "cache")}
    _kept.clear()


@pytest.mark.parametrize("size", [{}, {"image_size": 16}, {"max_image_size": 12}])
def test_a_cell_has_the_same_numbers_to_the_last_bit(spec, monkeypatch, size, one_thread):
    recipe = Recipe(epochs=2, batch_size=16, warmup_epochs=0.5, **size)
    source = open_source(spec)
    found = []
    for held in (lying.HELD, 1 << 8):
        monkeypatch.setattr(lying, "HELD", held)
        _kept.clear()
        data = source.load("toy")
        is_mapped = lying.mapping_of(data.splits["train"].images) is not None
        assert is_mapped == (held == 1 << 8)
        trained = as_trained(data.splits["train"].images, data.splits["train"].labels, recipe, CPU)
        assert isinstance(trained, MappedImages if is_mapped else Images)
        cell = Cell(TINY, recipe, DataRef("toy", data.info.fingerprint, spec), 3)
        record, probabilities = run_cell(cell, device="cpu")
        assert record["status"] == "done", record["error"]
        found.append((record["curves"], record["test"], record["validation"], probabilities))
    assert found[0][:3] == found[1][:3]
    for name, values in found[0][3].items():
        assert np.array_equal(values, found[1][3][name])


def test_gathered_batches_are_the_images_in_the_order_asked_for(spec, monkeypatch):
    monkeypatch.setattr(lying, "HELD", 1 << 8)
    monkeypatch.setattr(lying, "LOOKED_AT", 5000)
    split = open_source(spec).load("toy").splits["train"]
    held = on_device(split.images, split.labels, Recipe(), CPU)
    mapped = as_trained(split.images, split.labels, Recipe(), CPU)
    assert isinstance(mapped, MappedImages) and (mapped.size, len(mapped)) == ((20, 28), 50)
    batches = torch.randperm(50, generator=torch.Generator().manual_seed(0)).split(7)
    for (a, pixels), (b, others) in zip(held.gathered(batches), mapped.gathered(batches), strict=True):
        assert torch.equal(a, b) and torch.equal(pixels, others)
    assert torch.equal(torch.cat(list(mapped.blocks(9))), held.pixels)


def test_the_normalisation_is_that_of_all_pixels():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (37, 11, 13, 3)).astype(np.uint8))
    pixels[..., 1] = 7
    images = Images(pixels, torch.zeros(37, dtype=torch.int64))
    values = pixels.double().flatten(0, 2)
    mean, deviation = (torch.tensor(each, dtype=torch.float64) for each in mean_and_deviation(images))
    assert torch.equal(mean, values.mean(0)) and torch.allclose(deviation, values.std(0), rtol=1e-14, atol=0)
    made = Normaliser(images)
    assert torch.equal(made.scale, (1 / values.std(0).clamp_min(1.0)).float())
    assert torch.equal(made.offset, (-values.mean(0) / values.std(0).clamp_min(1.0)).float())


def test_resizing_in_parts_is_resizing_at_once(monkeypatch):
    from study.training import images

    pixels = torch.randint(0, 256, (40, 30, 22, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = resized(pixels, (12, 16))
    monkeypatch.setattr(images, "RESIZED_BYTES", 1)
    assert torch.equal(resized(pixels, (12, 16)), whole)


MEMORY = """
import json, sys
import numpy as np
import torch
from pathlib import Path
from study.data.lying import mapped
from study.declaration.recipe import Recipe
from study.training.images import Normaliser, as_trained
from study.training.memory import PeakMemory

path, count = Path(sys.argv[1]), int(sys.argv[2])
images = mapped(path, 0, (count, 64, 64, 3))
split = as_trained(images, np.zeros(count, np.int64), Recipe(), torch.device("cpu"))
with PeakMemory(torch.device("cpu")) as before:
    pass
with PeakMemory(torch.device("cpu")) as during:
    Normaliser(split)
    for _, pixels in split.gathered(torch.randperm(count).split(32)):
        pixels.float().mean()
print(json.dumps([type(split).__name__, during.peak_bytes - before.peak_bytes]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are known on Linux alone")
@pytest.mark.slow
def test_a_pass_over_a_large_split_holds_little_of_it(tmp_path):
    path, count = tmp_path / "images", 60_000
    with path.open("wb") as file:
        # A hole: it takes no disk.
        file.truncate(count * 64 * 64 * 3)
    run = subprocess.run([sys.executable, "-c", MEMORY, str(path), str(count)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kind, growth = json.loads(run.stdout)
    assert kind == "MappedImages"
    # Of 737 MB.
    assert growth < 400e6
