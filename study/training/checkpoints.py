"""Checkpoints within a cell: everything that a step changes, kept every so often, so that a kill costs minutes.

A cell that goes on from its checkpoint ends with the bits of one that was never interrupted.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from analysis.records.schema import Record
from study.store.checkpoints import Checkpoints, read_checked, write_checked

State = dict[str, Any]


class UnfitError(ValueError):
    """Raised when a checkpoint is whole but cannot be that of this training."""


@dataclass
class Reached:
    """How far a training has come: the next step of an epoch, what the epoch has added up, and the best epoch so far.

    `total` () is the sum of the epoch's losses over images. `best_state` are the weights of the best epoch.
    """

    total: Tensor
    epoch: int = 0
    step: int = 0
    learning_rate: float = 0.0
    train_seconds: float = 0.0
    curves: list[Record] = field(default_factory=list)
    best: tuple[float, float] | None = None
    best_epoch: int = -1
    best_state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """All that a step of training changes. The schedule is not among it: the number of a step says its rate.

    `order` draws an epoch's order, `changes` the augmentation; layers draw from torch's global generators.
    """

    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    changes: torch.Generator
    device: torch.device
    reached: Reached

    def state(self, order: Tensor, train_seconds: float) -> State:
        """Everything as tensors and plain values; `order`: the state of that generator when the epoch began."""
        cuda = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": order,
            "changes": self.changes.get_state(),
            "layers": torch.get_rng_state(),
            "layers_on_device": torch.cuda.get_rng_state(self.device) if cuda else None,
            "reached": vars(self.reached) | {"train_seconds": train_seconds},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts everything back to where `state` was taken. Raises UnfitError where it does not fit; then start anew."""
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.order.set_state(state["order"])
            self.changes.set_state(state["changes"])
            torch.set_rng_state(state["layers"])
            if state["layers_on_device"] is not None:
                torch.cuda.set_rng_state(state["layers_on_device"], self.device)
            for name in vars(self.reached):
                value = state["reached"][name]
                setattr(self.reached, name, value.to(self.device) if isinstance(value, Tensor) else value)
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UnfitError(f"must fit the training, got {' '.join(str(error).split())}") from error


class Keeper:
    """Keeper of one cell's checkpoint.

    `identity` says of which training it is, beside the cell: of any other, no checkpoint is taken. `notes` collects, in
    a line each, what a user should know: a checkpoint that was not taken, or could not be written. `resumed` has epoch
    and step of each resumption, `seconds_before` what earlier processes took up to their last checkpoint.
    """

    def __init__(
        self,
        place: Checkpoints,
        cell_id: str,
        micro_batch: int | None,
        identity: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.notes: list[str] = []
        self.resumed: list[list[int]] = []
        self.seconds_before = 0.0
        self.path = place.path(cell_id, micro_batch)
        self._every = place.seconds
        self._identity = {"cell_id": cell_id, "micro_batch": micro_batch, **identity}
        self._clock = clock
        self._begun = self._written = clock()

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self._clock() - self._written >= self._every

    def write(self, state: State) -> None:
        """Writes the checkpoint in place of the one before. A disk that is full costs a note and no training."""
        seconds = self.seconds_before + self._clock() - self._begun
        whole = {"identity": self._identity, "seconds": seconds, "resumed": self.resumed, "state": state}
        try:
            write_checked(self.path, lambda file: torch.save(whole, file))
        except OSError as error:
            self._note(f"{self.path.name}: a checkpoint must have room, got {error.strerror}")
        self._written = self._clock()

    def take(self) -> State | None:
        """The state that an earlier process left, if it is whole and of this very training; else None, and a note."""
        try:
            content = read_checked(self.path)
            if content is None:
                return None
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            other = [name for name, value in self._identity.items() if found["identity"].get(name) != value]
        except Exception:  # Whatever a file of other content makes of the reader.
            self._note(f"{self.path.name}: the checkpoint is damaged and does not count, the cell begins anew")
            return None
        if other:
            self._note(f"{self.path.name}: the checkpoint has other {', '.join(other)} and does not count")
            return None
        reached = found["state"]["reached"]
        self.resumed = [*found["resumed"], [reached["epoch"], reached["step"]]]
        self.seconds_before = float(found["seconds"])
        return dict(found["state"])

    def refuse(self, error: UnfitError) -> None:
        """Removes a checkpoint whose state did not fit, and begins to count anew."""
        self._note(f"{self.path.name}: the checkpoint {error}; the cell begins anew")
        self.path.unlink(missing_ok=True)
        self.resumed, self.seconds_before = [], 0.0

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
