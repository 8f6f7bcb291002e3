"""A trained network from its kept weights: built again, with the normalisation of its cell in front."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.tasks import CLASSIFICATION, TASKS, Task
from medmamba_variants.networks import build_network, read_network
from study.store.weights import Kept, read_kept
from study.training.tasks import ACTIVATIONS


class Predictor(nn.Module):
    """A network that takes images as they are stored: uint8 (batch, height, width, channels) in, probabilities out.

    Probabilities are (batch, classes) in the order of the classes' names; of several labels an image, one of each.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, scale: Tensor, offset: Tensor, task: Task = CLASSIFICATION) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[task.activation]
        self.network = network
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, images: Tensor) -> Tensor:
        # Bit for bit what cells train on.
        inputs = torch.addcmul(self.offset, images.float(), self.scale).permute(0, 3, 1, 2)
        probabilities: Tensor = self.activation(self.network(inputs).float())
        return probabilities


@dataclass(frozen=True)
class Trained:
    """A trained network, ready to predict, and the description that its file had."""

    predictor: Predictor
    about: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that it takes."""
        height, width = self.about["image_size"]
        return height, width, self.about["channels"]


def load_trained(path: Path | str) -> Trained:
    """The network in a file of kept weights, on the CPU, in evaluation mode. Raises ValueError, one line."""
    return build(read_kept(path), str(path))


def build(kept: Kept, where: str) -> Trained:
    """The network of kept weights. Raises ValueError where they do not fit the variant that their description names."""
    about = kept.about
    height, width = about["image_size"]
    # Its first values, which go at once, must not take from the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            read_network(about["variant"]),
            num_classes=len(about["classes"]),
            in_channels=about["channels"],
            image_size=(height, width),
        )
    try:
        network.load_state_dict(kept.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: weights must fit the variant in the file, got {reason}") from None
    scale, offset = (torch.tensor(about["normalisation"][name]) for name in ("scale", "offset"))
    task = TASKS[about.get("task", CLASSIFICATION.name)]
    return Trained(Predictor(network, scale, offset, task).eval().requires_grad_(False), about)


def kept_file(store: Path, cell: str) -> Path:
    """The file of kept weights of a cell, by its id, the beginning of that, or the file's own path.

    Raises ValueError, one line, where the store has no such cell, or has its record but no weights.
    """
    from study.store.ledger import open_ledger

    if cell.endswith(".safetensors"):
        return Path(cell)
    ledger = open_ledger(store)
    records = ledger.finished()
    found = [record for cell_id, record in records.items() if cell_id.startswith(cell)] if cell else []
    if len(found) != 1:
        came = f"{cell!r}, with which {len(found)} of them begin" if found else f"{cell!r}"
        raise ValueError(
            f"{ledger.folder}: CELL must be the id of one of its {len(records)} finished cells, or its beginning, "
            f"got {came}"
        )
    record = found[0]
    if not record.get("weights"):
        raise ValueError(
            f"{ledger.folder}: the cell must have kept weights, got none of {record['cell_id']} "
            "(--keep weights at a launch keeps those of the cells that it runs)"
        )
    path: Path = ledger.folder / record["weights"]
    if not path.exists():
        raise ValueError(f"{path}: must be there, as the record of {record['cell_id']} says, got nothing")
    return path
