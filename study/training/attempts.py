"""Attempts at a cell: from its checkpoint or anew, and with fewer images at a time where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from analysis.records.schema import Record
from study.declaration.cells import Cell
from study.store.checkpoints import Checkpoints
from study.training.checkpoints import Keeper, UnfitError
from study.training.steps import is_out_of_memory

Ended = TypeVar("Ended")
# A training from a keeper's checkpoint, in parts of that many images.
Train = Callable[[Keeper | None, int | None], Ended]


class Attempts:
    """Attempts at one cell, and what its record says of them. `seconds_before`: of processes that were killed."""

    def __init__(self, cell: Cell, checkpoints: Checkpoints | None, micro_batch: int | None) -> None:
        self.seconds_before = 0.0
        self._cell = cell
        self._checkpoints = checkpoints
        self._micro_batch = micro_batch
        self._notes: list[str] = []
        self._keeper: Keeper | None = None

    def run(self, train: Train[Ended], identity: Mapping[str, Any], images: int) -> Ended:
        """What `train` returns, once there is memory enough for it. `images`: those of the training split.

        `identity`: what must be the same, beside the cell, for a checkpoint to be its own.
        """
        while True:
            try:
                return self._from_checkpoint(train, identity)
            except Exception as error:
                whole = min(self._cell.recipe.batch_size, images)
                at_a_time = min(self._micro_batch or whole, whole)
                if not is_out_of_memory(error) or at_a_time == 1:
                    raise
            # Out here, since the error holds the network and all its activations.
            self._micro_batch = at_a_time // 2
            self._notes.append(f"memory ran out with {at_a_time} images at a time, tried again with {at_a_time // 2}")
            gc.collect()
            torch.cuda.empty_cache()

    def told(self) -> Record:
        """The record's fields: `micro_batch`, `resumed` as [epoch, step] of each resumption, `notes`; each if any."""
        keeper = self._keeper
        notes = [*self._notes, *([] if keeper is None else keeper.notes)]
        resumed = [] if keeper is None else keeper.resumed
        fields = {"micro_batch": self._micro_batch, "resumed": resumed, "notes": notes}
        return {name: value for name, value in fields.items() if value}

    def _from_checkpoint(self, train: Train[Ended], identity: Mapping[str, Any]) -> Ended:
        keeper = None
        if self._checkpoints is not None and self._checkpoints.there():
            keeper = Keeper(self._checkpoints, self._cell.cell_id, self._micro_batch, identity)
        self._keeper = keeper
        try:
            return train(keeper, self._micro_batch)
        except UnfitError as error:
            assert keeper is not None, "only what a keeper returned can be unfit"
            keeper.refuse(error)
        finally:
            self.seconds_before = 0.0 if keeper is None else keeper.seconds_before
        return train(keeper, self._micro_batch)
