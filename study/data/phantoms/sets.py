"""Built-in procedural data sets: modality-like images and controlled tasks with dials, the same on every machine.

A name may carry dials, `phantom_position?where=top_left&size=64`. Each image is drawn from a stream that depends on the
set, the split, the image's number and the dial `seed` alone: other dials change what is drawn, not the draws.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from analysis.tasks import CLASSIFICATION, MULTILABEL, ORDINAL, Task
from medmamba_variants.design.kinds import Choice, Number, Setting, SettingError, whole
from medmamba_variants.hints import did_you_mean
from study.data.phantoms import colour, controlled, graded, grey
from study.data.phantoms.brush import Array, Canvas, Dials, Picture
from study.data.phantoms.dials import COMMON_DIALS
from study.data.protocol import SPLITS, Dataset, Split, assemble, unknown_name

# Images drawn together from one stream: enough for numpy, few enough for the cache. Another number would give other
# images.
CHUNK = 40


@dataclass(frozen=True)
class Phantom:
    """A phantom, drawn by `draw(canvas, labels, dials)` → (images, masks), images in grey levels 0 to 255.

    Images are (n, height, width) or, of three channels, (n, height, width, 3); masks (n, height, width) boolean.
    `shown` is how many of its classes it has unless the dial `classes` says otherwise; None means all. `task`: what
    labels mean; of several an image they are (n, labels).
    """

    modality: str
    classes: tuple[str, ...]
    channels: int
    draw: Callable[[Canvas, Array, Dials], Picture]
    dials: Mapping[str, Setting] = field(default_factory=dict)
    shown: int | None = None
    task: Task = CLASSIFICATION


PHANTOMS: dict[str, Phantom] = {
    "phantom_ultrasound": Phantom("breast ultrasound", ("normal", "benign mass", "malignant mass"), 1, grey.ultrasound),
    "phantom_xray": Phantom("chest X-ray", ("normal", "consolidation", "interstitial pattern"), 1, grey.xray),
    "phantom_ct": Phantom("abdominal CT", ("no lesion", "cyst", "metastasis"), 1, grey.ct),
    "phantom_mri": Phantom("brain MRI", ("no tumour", "glioma", "meningioma"), 1, grey.mri),
    "phantom_fundus": Phantom("fundus photography", ("no finding", "microaneurysms", "exudates"), 3, colour.fundus),
    "phantom_dermatoscopy": Phantom("dermatoscopy", ("naevus", "melanoma", "keratosis"), 3, colour.dermatoscopy),
    "phantom_histology": Phantom("histology", ("normal", "adenocarcinoma", "squamous carcinoma"), 3, colour.histology),
    "phantom_texture": Phantom(
        "local texture", ("striped across", "striped upright", "checked", "spotted"), 1, controlled.texture, shown=2
    ),
    "phantom_sparse": Phantom(
        "sparse structure",
        ("blurs", "points"),
        1,
        controlled.sparse,
        {"count": Setting(whole(1, 64), "points or blurs", default=6)},
    ),
    "phantom_relation": Phantom(
        "relation of two findings",
        ("level", "tilted"),
        1,
        controlled.relation,
        {"distance": Setting(Number(0.2, 0.8), "distance of the findings, as a share of the side", default=0.5)},
    ),
    "phantom_position": Phantom(
        "lesion at a position",
        ("absent", "present"),
        1,
        controlled.position,
        {"where": Setting(Choice(controlled.PLACES), "place of the lesion", default="anywhere")},
    ),
    "phantom_findings": Phantom(
        "several findings", ("nodule", "strand", "cluster"), 1, graded.findings, task=MULTILABEL
    ),
    "phantom_grades": Phantom(
        "grades of a finding", ("none", "few", "several", "many"), 1, graded.grades, task=ORDINAL
    ),
}


class PhantomSets:
    """Reader of phantoms by name; `defaults` are common dials for every name that does not set them itself."""

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self._defaults = dict(defaults)
        for dial, value in self._defaults.items():
            _turn("source", dial, value, COMMON_DIALS)

    def names(self) -> list[str]:
        """Names of the phantoms, without dials."""
        return sorted(PHANTOMS)

    def stamp(self, name: str) -> Hashable:
        """Always None: a phantom never changes."""
        return None

    def read(self, name: str) -> Dataset:
        """The data set, drawn anew."""
        plain, dials = parse_name(name, self._defaults)
        phantom = PHANTOMS[plain]
        classes = phantom.classes[: dials.get("classes", len(phantom.classes))]
        splits, start = {}, 0
        for split in SPLITS:
            labels = (_several if phantom.task.has_many else _labels)(plain, split, dials, len(classes))
            images, masks = _draw(plain, split, dials, labels)
            ids = np.array([f"{split}/{i}" for i in range(len(labels))])
            # Every image is a patient of its own.
            groups = np.arange(start, start + len(labels), dtype=np.int64)
            splits[split] = Split(images, labels, ids, groups, masks)
            start += len(labels)
        return assemble(name, phantom.modality, classes, splits, name, task=phantom.task)


def parse_name(name: str, defaults: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """A phantom's plain name and all its dials: those in the name, else in `defaults`, else their own defaults."""
    plain, _, query = name.partition("?")
    if plain not in PHANTOMS:
        raise unknown_name("phantoms", plain, PHANTOMS)
    known = dials_of(plain)
    turned = dict(defaults or {})
    named: set[str] = set()
    for dial, value in parse_qsl(query, keep_blank_values=True):
        if dial in named:
            raise ValueError(f"{name}: the dial {dial} must be turned once, got it twice")
        named.add(dial)
        turned[dial] = value
    if query and not named:
        raise ValueError(f"{name}: dials must be written dial=value with & between, got '{query}'")
    return plain, {dial: spec.default for dial, spec in known.items()} | {
        dial: _turn(name, dial, value, known) for dial, value in turned.items()
    }


def dials_of(plain: str) -> dict[str, Setting]:
    """Every dial of a phantom by name: the common ones, `classes` where it has more than two, and its own."""
    phantom = PHANTOMS[plain]
    dials = dict(COMMON_DIALS)
    if len(phantom.classes) > 2:
        dials["classes"] = Setting(
            whole(2, len(phantom.classes)), "classes, the first ones", default=phantom.shown or len(phantom.classes)
        )
    return dials | dict(phantom.dials)


def _turn(where: str, name: str, value: Any, known: Mapping[str, Setting]) -> Any:
    if name not in known:
        hint = did_you_mean(name, known, otherwise=f"its dials are {', '.join(known)}")
        raise ValueError(f"{where}: must have the dial {name}, and has not; {hint}")
    kind = known[name].kind
    if isinstance(value, str) and isinstance(kind, Number):
        # A name holds only text.
        with suppress(ValueError):
            value = int(value) if kind.whole else float(value)
    try:
        return kind.parse(value)
    except SettingError as error:
        raise ValueError(f"{where}: {name} {error.problem}") from None


def _pixels(size: str) -> tuple[int, int]:
    sides = size.split("x")
    return int(sides[0]), int(sides[-1])


def _labels(plain: str, split: str, dials: Mapping[str, Any], classes: int) -> Array:
    """Labels (n,) in random order; class sizes fall geometrically to 1 / imbalance, each at least one image."""
    count = dials[f"n_{split}"]
    if count < classes:
        raise ValueError(f"{plain}: n_{split} must be at least the number of classes, {classes}, got {count}")
    share = dials["imbalance"] ** -(np.arange(classes) / (classes - 1))
    exact = share / share.sum() * count
    sizes = np.maximum(np.floor(exact).astype(int), 1)
    # What rounding leaves over goes to the largest remainders; what the minimum adds is taken from the first class.
    order = np.argsort(-(exact - np.floor(exact)), kind="stable")
    sizes[order[: max(0, count - sizes.sum())]] += 1
    sizes[0] -= sizes.sum() - count
    labels = np.repeat(np.arange(classes, dtype=np.int64), sizes)
    return labels[np.argsort(_stream(plain, split, "labels", dials["seed"]).random(count), kind="stable")]


def _several(plain: str, split: str, dials: Mapping[str, Any], labels: int) -> Array:
    """Labels (n, labels) of 0 and 1, each in two fifths of the images, the last in 1 / imbalance of those of the first.

    Each is dealt out whatever the others are, to one image at least.
    """
    count = dials[f"n_{split}"]
    share = 0.4 * dials["imbalance"] ** -(np.arange(labels) / (labels - 1))
    sizes = np.clip(np.rint(share * count).astype(int), 1, count - 1)
    ranks = _stream(plain, split, "labels", dials["seed"]).random((count, labels)).argsort(axis=0, kind="stable")
    return (ranks.argsort(axis=0) < sizes).astype(np.int64)


def _draw(plain: str, split: str, dials: Mapping[str, Any], labels: Array) -> tuple[Array, Array]:
    phantom = PHANTOMS[plain]
    height, width = _pixels(dials["size"])
    images, masks = [], []
    for start in range(0, len(labels), CHUNK):
        part = labels[start : start + CHUNK]
        # A chunk is always drawn whole, so that an image does not depend on how many follow it.
        whole = np.concatenate([part, np.zeros((CHUNK - len(part), *part.shape[1:]), dtype=np.int64)])
        rng = _stream(plain, split, str(start // CHUNK), dials["seed"])
        drawn, mask = phantom.draw(Canvas(rng, CHUNK, height, width), whole, dials)
        images.append(np.rint(np.clip(drawn[: len(part)], 0, 255)).astype(np.uint8))
        masks.append(np.broadcast_to(mask, (CHUNK, height, width))[: len(part)].astype(np.uint8))
    joined = np.concatenate(images)
    return joined.reshape(len(labels), height, width, phantom.channels), np.concatenate(masks)


def _stream(plain: str, split: str, part: str, seed: int) -> np.random.Generator:
    """A generator that depends only on its arguments, never on Python's salted hash."""
    words = hashlib.sha256(f"{plain}/{split}/{part}/{seed}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(words[:16], "little")))
