"""Training loop of a cell: optimiser, schedule, loss, and the choice of an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from analysis.metrics import all_metrics
from analysis.records.schema import Record
from medmamba_variants.config import VariantConfig
from medmamba_variants.networks import build_network, network_cost, without_weights
from medmamba_variants.peers.starting import frozen_parts, start_from_weights
from study.data.protocol import Dataset
from study.declaration.cells import Cell
from study.declaration.recipe import Recipe
from study.training.augment import augment
from study.training.checkpoints import Keeper, Reached, Training
from study.training.clipping import clip_gradients
from study.training.evaluation import predict, validate
from study.training.images import EVALUATION_BATCH, Normalise, Normaliser, as_trained
from study.training.steps import add_gradients

Probabilities = dict[str, np.ndarray]


class NotFiniteError(ArithmeticError):
    """Raised when the training loss is no longer finite."""


@dataclass
class Outcome:
    """The outcome of a training: its fields of the record, and the probabilities by name."""

    fields: Record
    probabilities: Probabilities


def train_network(
    cell: Cell,
    data: Dataset,
    device: torch.device,
    should_stop: Callable[[int, float], bool] | None,
    keep_model: Callable[[nn.Module, Normalise], None] | None,
    keeper: Keeper | None = None,
    micro_batch: int | None = None,
) -> Outcome:
    """Trains a cell's network, from where `keeper` has a checkpoint of it, and evaluates it.

    Raises NotFiniteError, and UnfitError for a checkpoint that is of another network; then nothing may be kept of
    torch's global generator.
    """
    recipe, info = cell.recipe, data.info
    splits = {name: as_trained(split.images, split.labels, recipe, device) for name, split in data.splits.items()}
    train = splits["train"]
    height, width = train.size
    normalise = Normaliser(train)
    num_classes = len(info.classes)

    shape = {"num_classes": num_classes, "in_channels": info.channels}
    counted = network_cost(cell.variant, image_size=(height, width), **shape)
    cost = {"params": counted.params, "macs": counted.macs, "flops": counted.flops}
    model = build_network(cell.variant, image_size=(height, width), **shape)
    start = start_from_weights(model, cell.variant)
    model = model.to(device)
    frozen = frozen_parts(model)
    epochs = recipe.epochs_for(len(train))
    steps = len(_batches(torch.arange(len(train)), cell))
    # A span in steps would average over all of a short run and next to nothing of a long one.
    span = recipe.ema_span * epochs * steps
    ema = ModelEmaV3(model, decay=math.exp(-1 / span)) if span else None
    evaluated = ema.module if ema else model
    optimizer = _optimizer(model, recipe)
    parameters = list(model.parameters())
    schedule = _schedule(optimizer, recipe, epochs * steps, steps)
    weights = _class_weights(train.labels, num_classes) if recipe.class_weights else None
    order = torch.Generator().manual_seed(stream_seed(cell.seed, 1))
    changes = torch.Generator().manual_seed(stream_seed(cell.seed, 2))
    cast = _autocast(recipe, device)

    at_once = min(EVALUATION_BATCH, micro_batch or EVALUATION_BATCH)
    reached = Reached(total=torch.zeros((), device=device))
    training = Training(model, ema.module if ema else None, optimizer, order, changes, device, reached)
    if keeper is not None and (state := keeper.take()) is not None:
        training.restore(state)
    while reached.epoch < epochs:
        epoch = reached.epoch
        begun = time.perf_counter() - reached.train_seconds
        model.train()
        for part in frozen:
            part.eval()
        order_before = order.get_state()
        batches = _batches(torch.randperm(len(train), generator=order), cell)[reached.step :]
        losses: list[Tensor] = []
        for index, pixels in train.gathered(batches):
            reached.learning_rate = optimizer.param_groups[0]["lr"]
            images = augment(normalise(pixels), recipe, changes)
            optimizer.zero_grad(set_to_none=True)
            loss = add_gradients(
                model,
                images,
                train.labels[index],
                weight=weights,
                smoothing=recipe.label_smoothing,
                cast=cast,
                micro_batch=micro_batch,
            )
            if recipe.clip_grad_norm:
                clip_gradients(parameters, recipe.clip_grad_norm)
            optimizer.step()
            reached.step += 1
            update = epoch * steps + reached.step
            schedule.step_update(update)
            if ema:
                ema.update(model, step=update)
            losses.append(loss)
            reached.total += loss * len(index)
            if keeper is not None and keeper.due() and math.isfinite(float(reached.total)):
                keeper.write(training.state(order_before, time.perf_counter() - begun))
        train_loss = float(reached.total) / len(train)
        reached.train_seconds = time.perf_counter() - begun
        if not math.isfinite(train_loss):
            raise NotFiniteError(_not_finite(losses, epoch, steps))

        validation_loss, metrics = validate(evaluated, splits["val"], normalise, num_classes, cast, at_once)
        reached.curves.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": validation_loss}
            | {f"val_{name}": value for name, value in metrics.items()}
            | {"learning_rate": reached.learning_rate}
        )
        value = -validation_loss if recipe.select_on == "loss" else metrics.get(recipe.select_on, float(epoch))
        # A small validation split often ties at its best AUC; then the lower loss decides, then the earlier epoch.
        candidate = (value, 0.0 if recipe.select_on == "last" else -validation_loss)
        if reached.best is None or candidate > reached.best:
            reached.best, reached.best_epoch = candidate, epoch
            reached.best_state = {name: tensor.detach().clone() for name, tensor in evaluated.state_dict().items()}
        if should_stop is not None and epoch + 1 < epochs and should_stop(epoch, value):
            fields = {"status": "stopped", "best_epoch": reached.best_epoch, "curves": reached.curves, "cost": cost}
            return Outcome(fields, {})
        reached.epoch, reached.step = epoch + 1, 0
        reached.total = torch.zeros((), device=device)

    evaluated.load_state_dict(reached.best_state)
    if keep_model is not None:
        keep_model(evaluated, normalise)
    probabilities: Probabilities = {}
    results: Record = {}
    for split_name, long_name in (("val", "validation"), ("test", "test")):
        split = data.splits[split_name]
        scores = predict(evaluated, splits[split_name], normalise, cast, at_once).cpu().numpy()
        results[long_name] = all_metrics(split.labels, scores, classes=info.classes)
        probabilities[f"{long_name}_probabilities"] = scores
        probabilities[f"{long_name}_labels"] = np.asarray(split.labels)
        probabilities[f"{long_name}_ids"] = np.asarray(split.ids)
        if split.groups is not None:
            probabilities[f"{long_name}_groups"] = np.asarray(split.groups)
    fields = {
        "status": "done",
        "best_epoch": reached.best_epoch,
        "curves": reached.curves,
        "cost": cost,
        "train_seconds": reached.train_seconds,
        "images_per_second": epochs * len(train) / reached.train_seconds,
        **start,
        **results,
    }
    return Outcome(fields, probabilities)


def _not_finite(losses: list[Tensor], epoch: int, steps: int) -> str:
    """The error of an epoch whose last losses are these, one of them not finite, or their sum."""
    values = [float(loss) for loss in losses]
    first = next((place for place, value in enumerate(values) if not math.isfinite(value)), len(values) - 1)
    step = steps - len(values) + first
    return f"the training loss must stay finite, got {values[first]} in step {step} of epoch {epoch}"


def _batches(order: Tensor, cell: Cell) -> list[Tensor]:
    """The images of an epoch in batches of the recipe's size, the last with what is left.

    A single image that is left joins the batch before it for networks by other people: their batch norms refuse a
    single image whose map has shrunk to a pixel.
    """
    batches = list(order.split(cell.recipe.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 and not isinstance(without_weights(cell.variant), VariantConfig):
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    make = partial(
        create_optimizer_v2, model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    # One fused call for all parameters: for small variants the loop over them costs more than the arithmetic.
    return make(fused=True) if recipe.optimizer in ("adamw", "adam", "sgd") else make()


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int, steps: int) -> CosineLRScheduler:
    """Linear warm-up, then a cosine to zero, in updates; the warm-up never takes more than a third of the run."""
    warmup = min(round(recipe.warmup_epochs * steps), updates // 3)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(1, updates - warmup),
        warmup_t=warmup,
        warmup_lr_init=recipe.learning_rate * 0.01 if warmup else 0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    schedule.step_update(0)
    return schedule


def _class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weights (classes,) inverse to class frequency, with mean one over the images."""
    counts = torch.bincount(labels, minlength=num_classes).clamp_min(1).float()
    return len(labels) / (num_classes * counts)


def _autocast(recipe: Recipe, device: torch.device) -> Callable[[], Any]:
    enabled = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device.type == "cuda")
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def stream_seed(seed: int, purpose: int) -> int:
    """An independent 63-bit seed for one purpose (0 weights, 1 order, 2 augmentation) of a cell's seed."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(1))
