"""Run of a cell that keeps its network: beside record and probabilities, the file of its weights."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from analysis.records.schema import Record
from study.declaration.cells import Cell
from study.store.checkpoints import Checkpoints
from study.store.weights import as_bytes
from study.training.cell import run_cell
from study.training.images import Normalise, Normaliser
from study.training.loop import Probabilities


def run_and_keep(
    cell: Cell,
    *,
    device: str,
    threads: int,
    checkpoints: Checkpoints | None = None,
    micro_batch: int | None = None,
) -> tuple[Record, Probabilities]:
    """As `run_cell`; in the record of a finished cell, `weights` are the bytes of the file for the ledger to write.

    They are those behind the test metrics: of the chosen epoch, averaged where the recipe averages.
    """
    kept: list[tuple[dict[str, Tensor], Normaliser]] = []

    def keep(model: nn.Module, normalise: Normalise) -> None:
        kept.append((model.state_dict(), cast(Normaliser, normalise)))

    record, probabilities = run_cell(
        cell, device=device, threads=threads, keep_model=keep, checkpoints=checkpoints, micro_batch=micro_batch
    )
    if record["status"] == "done":
        weights, normaliser = kept[0]
        record["weights"] = as_bytes(weights, described(record, normaliser))
    return record, probabilities


def described(record: Record, normaliser: Normaliser) -> dict[str, Any]:
    """The description of a finished cell's network."""
    side = record["image_size"]
    names = ("cell_id", "variant_id", "recipe_id", "dataset", "data_fingerprint", "seed", "numerics_version")
    return {
        **{name: record[name] for name in ("variant", "classes", "channels")},
        "image_size": side if isinstance(side, list) else [side, side],
        "normalisation": {"scale": normaliser.scale.tolist(), "offset": normaliser.offset.tolist()},
        **{name: record[name] for name in (*names, "best_epoch", "versions", "commit")},
        "precision": record["recipe"]["precision"],
        "device": record["machine"]["device"],
    }
