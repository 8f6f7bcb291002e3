"""Memory that runs out, and losses that are no numbers: half the images at a time, and a named step."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_cells_under_way import make_cell
from torch import nn

from study.store.checkpoints import Checkpoints
from study.training import loop
from study.training.cell import run_cell
from study.training.steps import add_gradients, is_out_of_memory


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("parts", [1, 3, 4, 7])
def test_gradients_of_parts_add_up_to_those_of_the_batch(weighted, parts):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    images = torch.randn(7, 1, 2, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 2, 0, 2])
    weight = torch.tensor([0.5, 3.0, 1.0], dtype=torch.float64) if weighted else None
    expected = F.cross_entropy(model(images), labels, weight=weight, label_smoothing=0.1)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    # In single precision, as the loop has it.
    loss = add_gradients(
        model,
        images,
        labels,
        weight=None if weight is None else weight.float(),
        smoothing=0.1,
        cast=lambda: torch.autocast("cpu", enabled=False),
        micro_batch=parts,
    )
    assert math.isclose(float(loss), float(expected.detach()), rel_tol=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


def test_what_says_that_memory_ran_out():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes must fit")) and not is_out_of_memory(ValueError("out of memory"))


@pytest.fixture
def room_for(monkeypatch):
    """Makes the memory of this process suffice for some images at a time; returns how many went through each time."""
    real, seen = loop.add_gradients, []

    def set_room(most):
        def limited(model, images, labels, *, micro_batch, **how):
            at_a_time = min(len(labels), micro_batch or len(labels))
            seen.append(at_a_time)
            if at_a_time > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(model, images, labels, micro_batch=micro_batch, **how)

        monkeypatch.setattr(loop, "add_gradients", limited)
        return seen

    return set_room


def test_a_cell_without_memory_is_tried_again_at_half_with_the_same_batch(room_for):
    cell = make_cell()
    whole, _ = run_cell(cell, device="cpu")
    seen = room_for(5)
    record, _ = run_cell(cell, device="cpu")
    assert record["status"] == "done", record["error"]
    assert seen == [16, 8, *[4] * 9]
    assert record["micro_batch"] == 4 and "micro_batch" not in whole
    assert record["notes"] == [
        "memory ran out with 16 images at a time, tried again with 8",
        "memory ran out with 8 images at a time, tried again with 4",
    ]
    assert record["recipe"]["batch_size"] == 16 and record["cell_id"] == whole["cell_id"]


def test_a_cell_that_not_even_one_image_has_room_for_fails(room_for):
    seen = room_for(0)
    record, _ = run_cell(make_cell(), device="cpu")
    assert record["status"] == "failed" and record["error"]["type"] == "OutOfMemoryError"
    assert seen == [16, 8, 4, 2, 1]


def test_a_killed_cell_goes_on_from_the_checkpoint_of_its_half_batches(room_for, tmp_path, monkeypatch):
    place = Checkpoints(tmp_path / "checkpoints", 1e-9)
    seen = room_for(8)
    whole = run_cell(make_cell(), device="cpu")
    limited, calls = loop.add_gradients, []

    def killed(*given, **how):
        calls.append(given)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return limited(*given, **how)

    monkeypatch.setattr(loop, "add_gradients", killed)
    with pytest.raises(KeyboardInterrupt):
        run_cell(make_cell(), device="cpu", checkpoints=place)
    seen.clear()
    record, arrays = run_cell(make_cell(), device="cpu", checkpoints=place)
    assert seen == [16, *[8] * 5]
    assert record["resumed"] == [[1, 1]] and record["micro_batch"] == 8
    assert record["test"] == whole[0]["test"]
    assert arrays["test_probabilities"].tobytes() == whole[1]["test_probabilities"].tobytes()


def test_a_loss_that_is_no_number_is_told_with_its_step(tmp_path, monkeypatch):
    place = Checkpoints(tmp_path / "checkpoints", 1e-9)
    real, calls = loop.add_gradients, []

    def spoilt(*given, **how):
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*given, **how) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(loop, "add_gradients", spoilt)
    with pytest.raises(KeyboardInterrupt):
        run_cell(make_cell(), device="cpu", checkpoints=place)
    record, _ = run_cell(make_cell(), device="cpu", checkpoints=place)
    assert record["status"] == "failed" and record["resumed"] == [[1, 1]]
    # The fifth call was step 1 of the epoch, tried again as the sixth.
    assert record["error"]["message"] == "the training loss must stay finite, got nan in step 1 of epoch 1"
