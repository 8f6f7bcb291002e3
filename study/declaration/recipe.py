"""Recipes, which say how a variant is trained: their settings, declared once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.hashes import content_hash
from medmamba_variants.design.kinds import Choice, Flag, Kind, Mapped, Number, Setting, SettingError, whole


def _setting(default: Any, kind: Kind, meaning: str) -> Any:
    return field(default=default, metadata={"setting": Setting(kind, meaning, default=default)})


@dataclass(frozen=True)
class Recipe:
    """A recipe: how a variant is trained; every field changes the cell's id."""

    epochs: int = _setting(30, whole(1, 100_000), "passes over the training split, at most")
    image_budget: int = _setting(0, whole(0, 10**12), "training images seen in all, to the nearest epoch (0: no limit)")
    batch_size: int = _setting(32, whole(1, 65_536), "images a step")
    optimizer: str = _setting("adamw", Choice(("adamw", "nadamw", "adam", "sgd", "lamb", "lion")), "timm optimiser")
    learning_rate: float = _setting(2e-3, Number(1e-8, 10.0), "peak learning rate")
    weight_decay: float = _setting(
        0.05, Number(0.0, 10.0), "decoupled weight decay; none on norms, biases and scan parameters"
    )
    warmup_epochs: float = _setting(2.0, Number(0.0, 1000.0), "epochs of linear warm-up before the cosine")
    label_smoothing: float = _setting(0.05, Number(0.0, 0.9), "share of the target spread over all classes")
    class_weights: bool = _setting(False, Flag(), "weight the loss by inverse class frequency")
    ema_span: float = _setting(
        0.2, Number(0.0, 1.0), "span of the moving average of the weights, as a share of all steps (0: no average)"
    )
    clip_grad_norm: float = _setting(1.0, Number(0.0, 1e6), "largest norm of the whole gradient (0: no clipping)")
    flip: str = _setting("horizontal", Choice(("none", "horizontal", "both")), "random flips")
    shift: float = _setting(0.05, Number(0.0, 0.5), "largest random shift, as a share of the side")
    rotate: float = _setting(5.0, Number(0.0, 180.0), "largest random rotation, degrees")
    intensity: float = _setting(0.1, Number(0.0, 1.0), "largest random change of contrast and brightness")
    image_size: int | None = _setting(
        None, whole(8, 4096, nothing=True), "resize images to this many pixels a side (null: as stored)"
    )
    max_image_size: int | None = _setting(
        None, whole(8, 4096, nothing=True), "resize only images with more pixels a side than this (null: none)"
    )
    select_on: str = _setting(
        "macro_auc_ovr",
        Choice(("macro_auc_ovr", "macro_f1", "balanced_accuracy", "loss", "last")),
        "validation metric that picks the epoch",
    )
    precision: str = _setting("auto", Choice(("auto", "float32", "bfloat16")), "auto: bfloat16 on GPU, float32 on CPU")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """A recipe from plain values. Raises SettingError below `where` for an unknown key, a wrong type or bound."""
        checked = Mapped(RECIPE).parse(dict(values), (where,))
        if checked.get("image_size") is not None and checked.get("max_image_size") is not None:
            raise SettingError(
                (where, "max_image_size"),
                "must be left out where image_size fixes the size, "
                f"got {checked['max_image_size']} beside {checked['image_size']}",
            )
        return cls(**checked)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self)

    @property
    def recipe_id(self) -> str:
        """Hash of the difference from the defaults, so that a new setting never renames an old recipe."""
        default = Recipe()
        return content_hash({k: v for k, v in self.to_dict().items() if v != getattr(default, k)})

    def size_for(self, stored: int | tuple[int, int]) -> tuple[int, int]:
        """The training size (height, width) of images stored at some size; `max_image_size` keeps their proportions."""
        if self.image_size is not None:
            return self.image_size, self.image_size
        height, width = stored if isinstance(stored, tuple) else (stored, stored)
        longest = max(height, width)
        if self.max_image_size is None or longest <= self.max_image_size:
            return height, width
        ratio = self.max_image_size / longest
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def epochs_for(self, images: int) -> int:
        """The number of epochs on a training split of `images` images, the image budget applied; at least one."""
        if self.image_budget:
            return max(1, min(self.epochs, round(self.image_budget / images)))
        return self.epochs


# Every setting by its name in study files.
RECIPE: dict[str, Setting] = {field.name: field.metadata["setting"] for field in dataclasses.fields(Recipe)}
