"""How a variant is trained: the recipe's settings, declared once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.hashes import content_hash
from medmamba_variants.hints import did_you_mean, hint


def _setting(default: Any, meaning: str, **limits: Any) -> Any:
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class Recipe:
    """How a variant is trained; every field changes the cell's id."""

    epochs: int = _setting(30, "passes over the training split, at most", low=1, high=100_000)
    image_budget: int = _setting(
        0, "training images seen in all, to the nearest epoch (0: no limit)", low=0, high=10**12
    )
    batch_size: int = _setting(32, "images a step", low=1, high=65_536)
    optimizer: str = _setting("adamw", "timm optimiser", choices=("adamw", "nadamw", "adam", "sgd", "lamb", "lion"))
    learning_rate: float = _setting(2e-3, "peak learning rate", low=1e-8, high=10.0)
    weight_decay: float = _setting(
        0.05, "decoupled weight decay; none on norms, biases and scan parameters", low=0.0, high=10.0
    )
    warmup_epochs: float = _setting(2.0, "epochs of linear warm-up before the cosine", low=0.0, high=1000.0)
    label_smoothing: float = _setting(0.05, "share of the target spread over all classes", low=0.0, high=0.9)
    class_weights: bool = _setting(False, "weight the loss by inverse class frequency")
    ema_span: float = _setting(
        0.2, "span of the moving average of the weights, as a share of all steps (0: no average)", low=0.0, high=1.0
    )
    clip_grad_norm: float = _setting(1.0, "largest norm of the whole gradient (0: no clipping)", low=0.0, high=1e6)
    flip: str = _setting("horizontal", "random flips", choices=("none", "horizontal", "both"))
    shift: float = _setting(0.05, "largest random shift, as a share of the side", low=0.0, high=0.5)
    rotate: float = _setting(5.0, "largest random rotation, degrees", low=0.0, high=180.0)
    intensity: float = _setting(0.1, "largest random change of contrast and brightness", low=0.0, high=1.0)
    image_size: int | None = _setting(
        None, "resize images to this many pixels a side (null: as stored)", low=8, high=4096
    )
    max_image_size: int | None = _setting(
        None, "resize only images with more pixels a side than this (null: none)", low=8, high=4096
    )
    select_on: str = _setting(
        "macro_auc_ovr",
        "validation metric that picks the epoch",
        choices=("macro_auc_ovr", "macro_f1", "balanced_accuracy", "loss", "last"),
    )
    precision: str = _setting("auto", "auto: bfloat16 on GPU, float32 on CPU", choices=("auto", "float32", "bfloat16"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """A recipe from plain values; ValueError names `where.key` for an unknown key, a wrong type or bound."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        checked = {}
        for key, value in values.items():
            if key not in known:
                meant = did_you_mean(key, known, otherwise=f"known: {', '.join(known)}")
                raise ValueError(f"{where}.{key} is not a recipe setting ({meant})")
            checked[key] = _checked(f"{where}.{key}", value, str(known[key].type), known[key].metadata)
        if checked.get("image_size") is not None and checked.get("max_image_size") is not None:
            raise ValueError(
                f"{where}.max_image_size must be left out where image_size fixes the size, "
                f"got {checked['max_image_size']} beside {checked['image_size']}"
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
        """(height, width) at which images stored at that size are trained; `max_image_size` keeps their proportions."""
        if self.image_size is not None:
            return self.image_size, self.image_size
        height, width = stored if isinstance(stored, tuple) else (stored, stored)
        longest = max(height, width)
        if self.max_image_size is None or longest <= self.max_image_size:
            return height, width
        ratio = self.max_image_size / longest
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def epochs_for(self, images: int) -> int:
        """Epochs run on a training split of `images` images, the image budget applied; at least one."""
        if self.image_budget:
            return max(1, min(self.epochs, round(self.image_budget / images)))
        return self.epochs


def _checked(name: str, value: Any, type_name: str, limits: Mapping[str, Any]) -> Any:
    """`value` coerced to the field's type, or ValueError: what must hold, then what came."""
    if value is None and "None" in type_name:
        return None
    if type_name == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return value
    if type_name == "str":
        # YAML 1.1 reads a bare `none` as text but `off` and `no` as false.
        if value not in limits["choices"]:
            raise ValueError(f"{name} must be one of {', '.join(limits['choices'])}, got {value!r}")
        return value
    kind = "a whole number" if type_name.startswith("int") else "a number"
    if isinstance(value, str):
        raise ValueError(f"{name} must be {kind}, got the string {value!r}{hint(value)}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    if type_name.startswith("int"):
        if not math.isfinite(value) or value != math.floor(value):
            raise ValueError(f"{name} must be {kind}, got {value!r}")
        value = int(value)
    else:
        value = float(value)
    if not limits["low"] <= value <= limits["high"]:
        raise ValueError(f"{name} must be between {limits['low']} and {limits['high']}, got {value!r}")
    return value
