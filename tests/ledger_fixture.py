"""A synthetic ledger in the real layout, for tests of what reads one: reports, verdicts, notebooks.

Predictions are made so that pairing matters: an image has its own difficulty, shared by all variants and seeds of its
data set; a seed adds noise; a variant has a skill. Metrics in the records are those of the predictions beside them.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.hashes import declaration_hash
from analysis.metrics import all_metrics

CLASS_NAMES = ("normal", "benign", "malignant", "other")
RECIPE = {"epochs": 6, "batch_size": 32, "learning_rate": 0.002, "select_on": "macro_auc_ovr"}
BASE = {"d_state": 8, "depths": [1, 2, 1], "dims": [32, 64, 128], "patch_size": 2}
# Share of the scan, skill of a variant and its cost: enough to see an order, a tie and a front.
VARIANTS: dict[str, tuple[dict[str, Any], float, float]] = {
    "split_ratio=0": ({"branches": [[1.0, "conv"]]}, 0.8, 1.0),
    "baseline": ({}, 1.3, 1.25),
    "split_ratio=1": ({"branches": [[1.0, "ss2d"]]}, 1.35, 2.1),
}


@dataclass(frozen=True)
class Design:
    """What a synthetic study holds. `variants`: label → (difference from the base, skill, relative cost).

    against: the variants that contrasts compare with the baseline, None for all others.
    """

    name: str = "split_ratio"
    question: str = "What share of a block's channels should go through the scan?"
    variants: Mapping[str, tuple[dict[str, Any], float, float]] = field(default_factory=lambda: dict(VARIANTS))
    datasets: Sequence[str] = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
    seeds: Sequence[int] = (0, 1, 2)
    classes: int = 3
    images: int = 60
    epochs: int = 6
    metrics: Sequence[str] = ("macro_auc_ovr", "macro_f1")
    margin: float = 0.02
    baseline: str = "baseline"
    contrasts: bool = True
    against: Collection[str] | None = None
    strategy: str = "grid"
    groups: bool = False
    failed: Collection[tuple[str, str, int]] = ()
    stopped: Collection[tuple[str, str, int]] = ()
    missing: Collection[tuple[str, str, int]] = ()
    without_probabilities: Collection[tuple[str, str, int]] = ()

    def variant_id(self, label: str) -> str:
        return f"{list(self.variants).index(label):012x}"

    def cell_id(self, label: str, dataset: str, seed: int) -> str:
        return f"{list(self.variants).index(label):04x}{list(self.datasets).index(dataset):04x}{seed:08x}"

    @property
    def study_hash(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def contrasts_hash(self) -> str:
        return declaration_hash(_contrasts(self) if self.contrasts else [], 0.05, "holm")


def write_ledger(store: Path, design: Design | None = None) -> Path:
    """The store, with `ledger/` in it: records, probabilities and manifest of a study that ran as `design` says."""
    design = design or Design()
    ledger = store / "ledger"
    (ledger / "probabilities").mkdir(parents=True, exist_ok=True)
    (ledger / "studies").mkdir(exist_ok=True)
    lines = []
    for place, dataset in enumerate(design.datasets):
        rng = np.random.default_rng([7, place])
        splits = {split: _images(rng, design) for split in ("validation", "test")}
        for label in design.variants:
            for seed in design.seeds:
                if (label, dataset, seed) in design.missing:
                    continue
                record, arrays = _cell(design, label, dataset, seed, splits)
                if arrays is not None:
                    # Uncompressed and without fsync: thousands of cells are written in seconds.
                    np.savez(ledger / "probabilities" / f"{record['cell_id']}.npz", **arrays)
                lines.append(json.dumps(record))
    with (ledger / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))
    text = json.dumps(manifest(design), indent=1)
    (ledger / "studies" / f"{design.study_hash}.json").write_text(text, encoding="utf-8")
    return store


def manifest(design: Design) -> dict[str, Any]:
    """What the study asked, as the driver writes it."""
    cells = [design.cell_id(v, d, s) for v in design.variants for d in design.datasets for s in design.seeds]
    searched = design.strategy != "grid"
    return {
        "schema": 1,
        "name": design.name,
        "study_hash": design.study_hash,
        "contrasts_hash": design.contrasts_hash,
        "question": design.question,
        "hypothesis": "None of them < another.",
        "controls": "",
        "file": f"search_spaces/{design.name}.yaml",
        "file_text": f"question: {design.question}\nbase: nano\n",
        "base_name": "nano",
        "base": BASE,
        "axes": {"split_ratio": {"low": 0.0, "high": 1.0} if searched else [0.0, 0.5, 1.0]},
        "variants": {} if searched else {design.variant_id(label): label for label in design.variants},
        "strategy": {"name": design.strategy},
        "seeds": list(design.seeds),
        "datasets": list(design.datasets),
        "source": {"kind": "phantom"},
        "recipe": RECIPE,
        "contrasts": _contrasts(design) if design.contrasts else [],
        "alpha": 0.05,
        "correction": "holm",
        "cell_ids": cells,
    }


def _contrasts(design: Design) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{label} ({metric})",
            "baseline": design.variant_id(design.baseline),
            "against": design.variant_id(label),
            "baseline_label": design.baseline,
            "against_label": label,
            "baseline_variant": BASE | design.variants[design.baseline][0],
            "against_variant": BASE | design.variants[label][0],
            "metric": metric,
            "margin": design.margin,
            "family": metric,
            "kind": "confirmatory",
        }
        for metric in design.metrics
        for label in design.variants
        if label != design.baseline and (design.against is None or label in design.against)
    ]


def _images(rng: np.random.Generator, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Labels (images,) and the noise on their scores (images, classes) that all variants and seeds share."""
    labels = rng.permutation(np.arange(design.images) % design.classes).astype(np.int64)
    return labels, rng.normal(size=(design.images, design.classes))


def _cell(
    design: Design, label: str, dataset: str, seed: int, splits: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    difference, skill, cost = design.variants[label]
    key = (label, dataset, seed)
    status = "failed" if key in design.failed else "stopped" if key in design.stopped else "done"
    classes = [CLASS_NAMES[k] if k < len(CLASS_NAMES) else f"class {k}" for k in range(design.classes)]
    record: dict[str, Any] = {
        "schema": 1,
        "cell_id": design.cell_id(*key),
        "variant_id": design.variant_id(label),
        "recipe_id": "ec1be00000000000",
        "study": design.name,
        "study_hash": design.study_hash,
        "contrasts_hash": design.contrasts_hash,
        "variant": BASE | difference,
        "variant_label": label,
        "recipe": RECIPE,
        "dataset": dataset,
        "data_fingerprint": f"f-{dataset}",
        "seed": seed,
        "numerics_version": 1,
        "status": status,
        "error": None,
        "versions": {"python": "3.11.7", "torch": "2.14.1", "medmamba-suite": "0.1.0"},
        "commit": "d9a6eb0192ee",
        "machine": {"system": "Linux", "cpu": "a CPU", "cores": 2, "threads": 1, "device": "cpu"},
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:06+00:00",
        "modality": "made up",
        "classes": classes,
        "channels": 1,
        "image_size": 28,
        "n_train": 10 * design.images,
        "n_val": design.images,
        "n_test": design.images,
        "cost": {"params": int(5e5 * cost), "macs": int(1.7e7 * cost), "flops": int(3.4e7 * cost)},
        "seconds": 2.0 * cost,
        "train_seconds": 1.5 * cost,
        "images_per_second": 700.0 / cost,
        "peak_bytes": 10**9,
        "probabilities": None,
    }
    if status == "failed":
        record["error"] = {"type": "FloatingPointError", "message": "loss is NaN in epoch 3", "traceback": "…"}
    if status != "done":
        return record, None
    rng = np.random.default_rng([seed, *label.encode(), *dataset.encode()])
    arrays: dict[str, np.ndarray] = {}
    for split, (labels, shared) in splits.items():
        noise = 0.8 * shared + 0.5 * rng.normal(size=shared.shape) + 0.1 * rng.normal(size=design.classes)
        scores = skill * np.eye(design.classes)[labels] + noise
        probabilities = np.exp(1.5 * scores)
        probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
        record[split] = all_metrics(labels, probabilities, classes)
        arrays[f"{split}_probabilities"] = probabilities
        arrays[f"{split}_labels"] = labels
        arrays[f"{split}_ids"] = np.array([f"{dataset}-{split}-{i}" for i in range(design.images)])
        if design.groups:
            arrays[f"{split}_groups"] = np.arange(design.images) // 2
    final = record["validation"]
    steps = 1 - np.exp(-np.arange(1, design.epochs + 1) / 2)
    record["best_epoch"] = design.epochs - 1
    record["curves"] = [
        {
            "epoch": epoch,
            "train_loss": float(1.1 - 0.6 * step + 0.02 * rng.normal()),
            "val_loss": float(1.1 - 0.5 * step + 0.02 * rng.normal()),
            "val_macro_f1": float(final["macro_f1"] * step),
            "val_macro_auc_ovr": float(0.5 + (final["macro_auc_ovr"] - 0.5) * step),
            "learning_rate": 0.002,
        }
        for epoch, step in enumerate(steps)
    ]
    if key in design.without_probabilities:
        return record, None
    record["probabilities"] = f"probabilities/{record['cell_id']}.npz"
    return record, arrays


def as_table(values: np.ndarray, metric: str = "macro_f1") -> pd.DataFrame:
    """A ledger's table of values (data sets, variants, seeds) alone; NaN is a failed cell."""
    d, v, s = (index.ravel() for index in np.indices(values.shape))
    return pd.DataFrame(
        {
            "variant_id": [f"v{i}" for i in v],
            "variant_label": [f"label {i}" for i in v],
            "dataset": [f"d{i}" for i in d],
            "seed": s,
            "status": np.where(np.isnan(values.ravel()), "failed", "done"),
            f"test.{metric}": values.ravel(),
        }
    )
