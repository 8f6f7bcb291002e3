"""Explanation of a cell, trained again: arrays that show what its network looks at, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.explanations.pointing import spread
from analysis.tasks import TASKS
from medmamba_variants.config import VariantConfig
from medmamba_variants.model import MedMambaVariant, build_model
from study.data.protocol import Split
from study.data.sources import load_dataset
from study.declaration.cells import Cell
from study.explain.attribution import deletion_and_insertion, look, receptive_fields
from study.store.ledger import Ledger, whole_file
from study.training.cell import run_cell
from study.training.images import Normalise, on_device

# Receptive fields are means over images, and settle early.
IMAGES_FOR_FIELDS = 64


@dataclass(frozen=True)
class Options:
    """Options of an explanation: a split, the most images of it, and the number of steps in which pixels change.

    `predicted`: maps are for the predicted classes, not for the labelled ones. `threads` changes the last bits of
    training, `device` more than that.
    """

    split: str = "test"
    images: int = 512
    steps: int = 20
    predicted: bool = False
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explanation: the arrays of `explain`, what they are about, and the probabilities for the cell's record."""

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]
    probabilities: dict[str, np.ndarray]


def explain_cell(cell: Cell, options: Options) -> Explanation:
    """The explanation of a cell, which is trained again.

    Raises ValueError for a network by other people, whose maps and stages are not known, and where the training fails.
    """
    variant = own_variant(cell)
    _refuse_several(cell)
    kept: list[tuple[nn.Module, Normalise]] = []
    record, probabilities = run_cell(
        cell,
        device=options.device,
        threads=options.threads,
        keep_model=lambda model, normalise: kept.append((model, normalise)),
    )
    if not kept:
        error = record["error"] or {}
        raise ValueError(f"the training must end well, got {error.get('type')}: {error.get('message')}")
    split = load_dataset(dict(cell.data.source), cell.data.name).splits[options.split]
    model, normalise = kept[0]
    arrays = explain(cast(MedMambaVariant, model), normalise, split, cell, options)
    about = {
        "variant_id": cell.variant.variant_id,
        "cell_id": cell.cell_id,
        "recipe_id": cell.recipe.recipe_id,
        "dataset": cell.data.name,
        "data_fingerprint": cell.data.fingerprint,
        "seed": cell.seed,
        "split": options.split,
        "classes": record["classes"],
        "modality": record["modality"],
        "maps_for": "predicted" if options.predicted else "labelled",
        "cells": [variant.patch_size * 2**stage for stage in range(len(variant.depths))],
        "test": {name: record["test"][name] for name in ("macro_f1", "macro_auc_ovr")},
        **{name: record[name] for name in ("commit", "versions", "machine")},
    }
    return Explanation(arrays, about, probabilities)


def own_variant(cell: Cell) -> VariantConfig:
    """The variant of MedMamba that a cell trains. Raises ValueError for a network by other people."""
    if not isinstance(cell.variant, VariantConfig):
        raise ValueError(f"the variant must be one of MedMamba to be explained, got {cell.variant.label()}")
    return cell.variant


def _refuse_several(cell: Cell) -> None:
    data = load_dataset(dict(cell.data.source), cell.data.name)
    if TASKS[data.info.task].has_many:
        raise ValueError(
            f"the data set must have one class an image to be explained, got {data.info.name}, with several"
        )


def explain(
    model: MedMambaVariant, normalise: Normalise, split: Split, cell: Cell, options: Options
) -> dict[str, np.ndarray]:
    """The arrays that explain a trained network on images of a split, evenly spread over it.

    ids, labels, predicted, targets (n,), probabilities (n, classes), features (n, channels), images (n, height, width,
    channels) uint8 as the network saw them, groups and masks (n, height, width) where the data has them;
    maps_<stage> (n, rows, columns) and, of the same network before training, untrained_maps_<stage>;
    receptive_fields (stages, places, height, width), and untrained_receptive_fields; fractions (steps + 1,), and by
    order of pixels `deletion_map`, `insertion_map`, …_random, …_untrained (n, steps + 1). All random draws follow the
    cell's seed.
    """
    variant = own_variant(cell)
    chosen = np.unique(np.linspace(0, len(split) - 1, min(options.images, len(split))).round().astype(int))
    device = next(model.parameters()).device
    seen = on_device(split.images[chosen], split.labels[chosen], cell.recipe, device)
    inputs = normalise(seen.pixels)
    height, width = inputs.shape[2:]
    generator = torch.Generator().manual_seed(cell.seed)
    classes, channels = model.head.out_features, inputs.shape[1]
    untrained = build_model(variant, num_classes=classes, in_channels=channels, seed=cell.seed).to(device)

    trained_view = look(model, inputs, None if options.predicted else seen.labels)
    targets = trained_view.targets
    untrained_view = look(untrained, inputs, targets)
    arrays: dict[str, Tensor | np.ndarray] = {
        "ids": np.asarray(split.ids)[chosen],
        "labels": np.asarray(split.labels)[chosen],
        "predicted": trained_view.probabilities.argmax(1),
        "targets": targets,
        "probabilities": trained_view.probabilities,
        "features": trained_view.features,
        "images": seen.pixels,
        "fractions": np.linspace(0, 1, options.steps + 1),
    }
    if split.groups is not None:
        arrays["groups"] = np.asarray(split.groups)[chosen]
    if split.masks is not None:
        arrays["masks"] = resized(split.masks[chosen], (height, width))
    orders = {"random": torch.zeros(len(inputs), height, width)}
    for name, network, view in (("", model, trained_view), ("untrained_", untrained, untrained_view)):
        for stage, maps in enumerate(view.maps):
            arrays[f"{name}maps_{stage}"] = maps
        last = spread(view.maps[-1].cpu().numpy(), variant.patch_size * 2 ** (len(view.maps) - 1), (height, width))
        orders[name.rstrip("_") or "map"] = torch.from_numpy(last)
        arrays[f"{name}receptive_fields"] = receptive_fields(network, inputs[:IMAGES_FOR_FIELDS], generator)
    for order, importance in orders.items():
        curves = deletion_and_insertion(model, inputs, importance, targets, options.steps, generator)
        arrays[f"deletion_{order}"], arrays[f"insertion_{order}"] = curves
    return {name: array.cpu().numpy() if isinstance(array, torch.Tensor) else array for name, array in arrays.items()}


def resized(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks (n, height, width) of the given size, boolean: a pixel is in where the lesion covers half of it or more.

    A lesion too small to cover half of any pixel keeps those it covers most.
    """
    if masks.shape[1:] == size:
        return masks.astype(bool)
    marked = torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None]
    cover = F.interpolate(marked, size=size, mode="bilinear", antialias=True)[:, 0].numpy()
    most = cover.max((1, 2), keepdims=True)
    return (cover >= np.minimum(0.5, most)) & (most > 0)


def compared(ledger: Ledger, cell: Cell, explanation: Explanation) -> str:
    """One line on how well the test probabilities of the retrained network agree with the record's."""
    record = ledger.finished().get(cell.cell_id)
    if record is None or not record.get("probabilities"):
        return f"record: none of cell {cell.cell_id} in {ledger.folder}, so there is nothing to compare with"
    name = "test_probabilities"
    difference = float(np.abs(ledger.probabilities(cell.cell_id)[name] - explanation.probabilities[name]).max())
    if difference == 0:
        return f"record: the test probabilities are those of cell {cell.cell_id}, bit for bit"
    there, here = _origin(record), _origin(explanation.about)
    reasons = [f"{name} {there.get(name)} there, {here[name]} here" for name in here if there.get(name) != here[name]]
    return (
        f"record: the test probabilities differ from those of cell {cell.cell_id} by up to {difference:.1e}; the maps "
        f"are of a like network, not of that one ({', '.join(reasons) or 'same commit, versions and machine'})"
    )


def _origin(record: Mapping[str, Any]) -> dict[str, Any]:
    """Commit, versions and machine of a record, flat."""
    found = {"commit": record.get("commit")}
    for group in ("versions", "machine"):
        found |= record.get(group) or {}
    return found


def write(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes arrays, and `about` as JSON text in an array of that name, completely or not at all."""
    with whole_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, about=np.array(json.dumps(about, ensure_ascii=False)), **arrays)
