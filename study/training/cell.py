"""Run of a cell: from a cell to its record and per-image probabilities, in one loop without callbacks."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

import torch
from torch import nn

from analysis.records.schema import SCHEMA, Record
from study.data.protocol import Dataset
from study.data.sources import load_dataset
from study.declaration.cells import NUMERICS_VERSION, Cell
from study.declaration.recipe import Recipe
from study.store.checkpoints import Checkpoints
from study.training.allocator import keep_freed_memory
from study.training.attempts import Attempts
from study.training.checkpoints import Keeper
from study.training.devices import device_name, resolved_device
from study.training.images import Normalise
from study.training.loop import Outcome, Probabilities, stream_seed, train_network
from study.training.memory import PeakMemory
from study.training.provenance import commit, machine, versions


def run_cell(
    cell: Cell,
    *,
    device: str = "auto",
    threads: int = 1,
    should_stop: Callable[[int, float], bool] | None = None,
    keep_model: Callable[[nn.Module, Normalise], None] | None = None,
    checkpoints: Checkpoints | None = None,
    micro_batch: int | None = None,
) -> tuple[Record, Probabilities]:
    """Trains one cell and returns its record and the probabilities of its validation and test images.

    An error of any kind becomes a record with status "failed", message and traceback; only a keyboard interrupt
    propagates. `should_stop(epoch, value)` is called after each epoch with the selection metric; True ends the cell
    with status "stopped", the test split untouched. `threads` sets torch's CPU threads: the last bits of a result
    depend on it, so every executor passes the same number. `keep_model` receives the network behind the test metrics
    and the function that turns its uint8 images into inputs, since a record keeps no weights.

    With `checkpoints` the cell goes on from where an earlier process of the same kind left it. Where memory runs out,
    it is tried again with half as many images at a time, whose gradients add up to those of the same batch; the record
    then says how many, as `micro_batch`, which is also where to begin.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    record = _identity(cell)
    started = time.perf_counter()
    probabilities: Probabilities = {}
    attempts = Attempts(cell, checkpoints, micro_batch)
    try:
        where = resolved_device(device)
        record["machine"] = {**machine(), "threads": threads, "device": device_name(where)}
        data = load_dataset(dict(cell.data.source), cell.data.name)
        record |= _describe(data, cell)

        def train(keeper: Keeper | None, images_at_a_time: int | None) -> Outcome:
            # Weights, dropped paths and other draws of layers come from torch's global generator: fork it, so that
            # neither the caller's state affects the cell nor the cell the caller's.
            with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
                torch.manual_seed(stream_seed(cell.seed, 0))
                return train_network(cell, data, where, should_stop, keep_model, keeper, images_at_a_time)

        identity = {name: record[name] for name in ("versions", "machine")}
        with PeakMemory(where) as memory:
            outcome = attempts.run(train, identity, len(data.splits["train"]))
        probabilities = outcome.probabilities
        record |= outcome.fields | {"peak_bytes": memory.peak_bytes}
    except Exception as error:
        record |= {
            "status": "failed",
            "error": {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()},
        }
    record |= attempts.told()
    record["seconds"] = attempts.seconds_before + time.perf_counter() - started
    record["finished"] = _now()
    return record, probabilities


def failed_record(cell: Cell, error: BaseException) -> Record:
    """The record of a cell whose worker was lost before it could make its own."""
    text = "".join(traceback.format_exception(error))
    fault = {"type": type(error).__name__, "message": str(error), "traceback": text}
    return _identity(cell) | {"status": "failed", "error": fault, "finished": _now()}


def _identity(cell: Cell) -> Record:
    return {
        "schema": SCHEMA,
        "cell_id": cell.cell_id,
        "variant_id": cell.variant.variant_id,
        "recipe_id": cell.recipe.recipe_id,
        "variant": cell.variant.diff(),
        "recipe": cell.recipe.to_dict(),
        "dataset": cell.data.name,
        "data_fingerprint": cell.data.fingerprint,
        "source_key": cell.data.source_key,
        "seed": cell.seed,
        "numerics_version": NUMERICS_VERSION,
        "status": "failed",
        "error": None,
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "started": _now(),
        "probabilities": None,
    }


def _describe(data: Dataset, cell: Cell) -> Record:
    info = data.info
    if info.fingerprint != cell.data.fingerprint:
        raise ValueError(
            f"{info.name}: the data must have the fingerprint {cell.data.fingerprint}, got {info.fingerprint}: "
            "its content changed since the study was read"
        )
    return {
        **({"data_notes": list(info.notes)} if info.notes else {}),
        "modality": info.modality,
        "classes": list(info.classes),
        "channels": info.channels,
        "image_size": _side(cell.recipe, info.image_size),
        "n_train": info.n_train,
        "n_val": info.n_val,
        "n_test": info.n_test,
    }


def _side(recipe: Recipe, stored: int | tuple[int, int]) -> int | list[int]:
    """The side in pixels at which a cell trains, or [height, width]."""
    height, width = recipe.size_for(stored)
    return height if height == width else [height, width]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
