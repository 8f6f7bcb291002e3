"""Protocol of all data sets, whatever their source: three checked splits and a fingerprint of their content."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.tasks import CLASSIFICATION, MULTILABEL, Task, supports
from medmamba_variants.hints import did_you_mean
from study.data.lying import blocks, mapping_of

SPLITS = ("train", "val", "test")
# Images that are hashed at a time where they lie in a file.
MAPPED_ROWS = 64


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a data set, without its pixels.

    `image_size` is pixels a side, or (height, width) where images are not square; `fingerprint` is 16 hex digits.
    `notes` say in a line each what a reader of results must know of the reading, such as how many files were left out.
    `source_key` names the collection that the images come from, by default the set's own name: sets of one key count
    once in statistics across data sets (`analysis.records.sources`). `task` is one of `analysis.tasks.TASKS`.
    """

    name: str
    modality: str
    classes: tuple[str, ...]
    channels: int
    image_size: int | tuple[int, int]
    n_train: int
    n_val: int
    n_test: int
    fingerprint: str
    source_key: str = ""
    notes: tuple[str, ...] = ()
    task: str = CLASSIFICATION.name

    def __post_init__(self) -> None:
        if not self.source_key:
            object.__setattr__(self, "source_key", self.name)


@dataclass(frozen=True, eq=False)
class Split:
    """A split: images (n, height, width, channels) uint8, labels (n,) int64, ids (n,) str, groups (n,) int64 or None.

    Images of one group (patient, lesion, tissue tile) are not independent. `masks` (n, height, width) uint8 is 1 where
    the finding lies, which is known only for phantoms. Where an image may have several labels, or none, labels are 0 or
    1 of each, (n, labels). All users in a process share the arrays: never write to them.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory: its description and its splits "train", "val" and "test"."""

    info: DatasetInfo
    splits: dict[str, Split]


class DividedGroupsError(ValueError):
    """Error of a data set in which a group, such as a patient, stands in two splits; `dataset` is that set.

    Nothing is trained on it, but an audit looks at it, and can write a copy whose groups are whole.
    """

    def __init__(self, text: str, dataset: Dataset) -> None:
        super().__init__(text)
        self.dataset = dataset


class Digest:
    """The fingerprint of a data set in the making, whose splits come in order, the images of one in chunks or at once.

    It is the SHA-256 of class names, images, labels and groups, and of the task where it is not classification. Name,
    modality, source and ids do not count: a renamed copy of a file is the same data.
    """

    def __init__(self, classes: Sequence[str], task: Task = CLASSIFICATION) -> None:
        self._digest = hashlib.sha256(json.dumps(list(classes), ensure_ascii=True).encode())
        if task is not CLASSIFICATION:
            self._digest.update(f"|task {task.name}|".encode())

    def begin(self, name: str, shape: tuple[int, ...], grouped: bool) -> None:
        """Starts a split of images of this shape (n, height, width, channels)."""
        self._digest.update(f"|{name}|{tuple(shape)}|{grouped}|".encode())

    def add(self, images: np.ndarray) -> None:
        """Adds the split's next images."""
        self._digest.update(np.ascontiguousarray(images).data)

    def end(self, labels: np.ndarray, groups: np.ndarray | None) -> None:
        """Ends the split with the labels and groups of all its images."""
        self._digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
        if groups is not None:
            self._digest.update(np.ascontiguousarray(groups, dtype="<i8").data)

    def hexdigest(self) -> str:
        """Sixteen hex digits of what was added."""
        return self._digest.hexdigest()[:16]


def fingerprint(classes: Sequence[str], splits: Mapping[str, Split], task: Task = CLASSIFICATION) -> str:
    """Sixteen hex digits that stand for class names, images, labels and groups of every split; see `Digest`."""
    digest = Digest(classes, task)
    for name in SPLITS:
        split = splits[name]
        digest.begin(name, split.images.shape, split.groups is not None)
        # At once, or some at a time where they are mapped from a file.
        for images in [split.images] if mapping_of(split.images) is None else blocks(split.images, MAPPED_ROWS):
            digest.add(images)
        digest.end(split.labels, split.groups)
    return digest.hexdigest()


def assemble(
    name: str,
    modality: str,
    classes: Sequence[str] | None,
    splits: Mapping[str, Split],
    where: str,
    source_key: str = "",
    *,
    notes: Iterable[str] = (),
    digest: Digest | None = None,
    task: Task = CLASSIFICATION,
) -> Dataset:
    """The data set made of some splits. Raises a ValueError that begins with `where` (a path) and says what is wrong.

    `classes` None: as many classes as train has labels, named by their number. `source_key` empty: the name. `notes`:
    what the reader has to tell; `digest`: that of the whole content, where the reader has made it.
    """
    first = splits["train"].images.shape[1:]
    for split_name in SPLITS:
        shape = splits[split_name].images.shape[1:]
        if shape != first:
            raise ValueError(
                f"{where}: {split_name}_images must have the size of train_images, {_words(first)}, got {_words(shape)}"
            )
    names = (_checked_labels if task.has_many else _checked_classes)(classes, splits, where)
    _refuse_partial_groups(splits, where)
    height, width, channels = first
    info = DatasetInfo(
        name=name,
        modality=modality,
        classes=names,
        channels=channels,
        image_size=height if height == width else (height, width),
        n_train=len(splits["train"]),
        n_val=len(splits["val"]),
        n_test=len(splits["test"]),
        fingerprint=fingerprint(names, splits, task) if digest is None else digest.hexdigest(),
        source_key=source_key,
        notes=(*notes, *_absent_classes(names, splits)),
        task=task.name,
    )
    dataset = Dataset(info, dict(splits))
    _refuse_shared_groups(dataset, where)
    return dataset


def checked_split(
    where: str,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None,
    ids: np.ndarray | None = None,
    task: Task = CLASSIFICATION,
) -> Split:
    """A split in the protocol's layout from MedMNIST-layout arrays; `ids` None: "train/0", "train/1" and so on."""
    checked = checked_parts(where, name, images, labels, groups, ids, task)
    return replace(checked, images=np.ascontiguousarray(checked.images))


def checked_parts(
    where: str,
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None,
    ids: np.ndarray | None = None,
    task: Task = CLASSIFICATION,
) -> Split:
    """A split as `checked_split` makes it, except that its images lie as they came: not one of them is looked at."""
    if images.dtype != np.uint8:
        raise ValueError(f"{where}: {name}_images must be uint8, got {images.dtype}")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"{where}: {name}_images must have the shape (n, height, width) or (n, height, width, 3), "
            f"got {images.shape}"
        )
    if len(images) == 0:
        raise ValueError(f"{where}: {name}_images must hold at least one image, got an empty split")
    if 0 in images.shape:
        raise ValueError(f"{where}: {name}_images must hold images with pixels, got the shape {images.shape}")
    label_key = f"{name}_labels"
    labels = (_rows if task.has_many else _column)(where, label_key, labels, len(images))
    if groups is not None:
        groups = _column(where, f"{name}_groups", groups, len(images))
    if ids is None:
        ids = np.array([f"{name}/{i}" for i in range(len(images))])
    return Split(images, labels, ids, groups)


def unknown_name(where: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for an unknown data set, with the names that come close, else all known names."""
    names = list(known)
    held = f"it holds {', '.join(names[:12]) or 'none'}{', …' if len(names) > 12 else ''}"
    hint = did_you_mean(name, names, count=3, otherwise=held)
    return ValueError(f"{where}: must hold the data set '{name}', and does not; {hint}")


def _column(where: str, key: str, values: np.ndarray, count: int) -> np.ndarray:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{where}: {key} must be integers, got {values.dtype}")
    if values.ndim == 2 and values.shape[1] > 1 and key.endswith("_labels"):
        raise ValueError(
            f"{where}: {key} must hold one label an image, shape (n,) or (n, 1), got {values.shape}; where an "
            f"image may have several, its entry in datasets.json says so (task: {MULTILABEL.name})"
        )
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise ValueError(f"{where}: {key} must have the shape (n,) or (n, 1), got {values.shape}")
    if len(values) != count:
        raise ValueError(f"{where}: {key} must be as many as the images, {count}, got {len(values)}")
    return values.reshape(-1).astype(np.int64)


def _rows(where: str, key: str, values: np.ndarray, count: int) -> np.ndarray:
    """Labels of 0 and 1, (n, labels)."""
    if values.dtype.kind not in "iub":
        raise ValueError(f"{where}: {key} must be integers, got {values.dtype}")
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            f"{where}: {key} must be 0 or 1 for each of two labels or more, (n, labels), got {values.shape}"
        )
    if len(values) != count:
        raise ValueError(f"{where}: {key} must be as many as the images, {count}, got {len(values)}")
    wrong = values[(values < 0) | (values > 1)]
    if wrong.size:
        raise ValueError(f"{where}: {key} must be 0 or 1 for each label, got {wrong[0]}")
    return np.ascontiguousarray(values, dtype=np.int64)


def _checked_labels(classes: Sequence[str] | None, splits: Mapping[str, Split], where: str) -> tuple[str, ...]:
    """The names of labels of which an image may have several; each is there, and absent, in train."""
    count = splits["train"].labels.shape[1]
    names = tuple(classes) if classes is not None else tuple(f"label {label}" for label in range(count))
    for name in SPLITS:
        found = splits[name].labels.shape[1]
        if found != len(names):
            raise ValueError(f"{where}: {name}_labels must have {len(names)} labels ({', '.join(names)}), got {found}")
    totals = splits["train"].labels.sum(axis=0)
    for label, title in enumerate(names):
        if totals[label] in (0, len(splits["train"])):
            came = "none" if totals[label] == 0 else "it in all"
            raise ValueError(f"{where}: train_labels must hold images with {title} and without it, got {came}")
    return names


def _checked_classes(classes: Sequence[str] | None, splits: Mapping[str, Split], where: str) -> tuple[str, ...]:
    present = np.unique(splits["train"].labels)
    if classes is None:
        if present[0] != 0:
            raise ValueError(f"{where}: train_labels must start at 0, got labels from {present[0]} to {present[-1]}")
        count, owner = int(present[-1]) + 1, "in train"
    else:
        count, owner = len(classes), f"named {', '.join(classes)}"
    for name in SPLITS:
        labels = splits[name].labels
        wrong = labels[(labels < 0) | (labels >= count)]
        if wrong.size:
            raise ValueError(
                f"{where}: {name}_labels must lie in 0..{count - 1} ({count} classes {owner}), got {wrong[0]}"
            )
    if len(present) < count:
        missing = next(label for label in range(count) if label >= len(present) or present[label] != label)
        title = f" ({classes[missing]})" if classes is not None else ""
        raise ValueError(f"{where}: train_labels must hold every class, got no image of class {missing}{title}")
    if count < 2:
        raise ValueError(f"{where}: train_labels must hold at least two classes, got {count}")
    for name in SPLITS:
        if len(there := np.unique(splits[name].labels)) < 2:
            raise ValueError(f"{where}: {name}_labels must hold at least two classes, got only class {there[0]}")
    return tuple(classes) if classes is not None else tuple(f"class {label}" for label in range(count))


def _absent_classes(classes: Sequence[str], splits: Mapping[str, Split]) -> Iterator[str]:
    """A note for each split without an image of some class: metrics there are means over the classes it has."""
    for name in SPLITS:
        counts = supports(splits[name].labels, len(classes))
        absent = [title for label, title in enumerate(classes) if counts[label] == 0]
        if absent:
            yield f"{name} holds no image of {', '.join(absent)}: means over classes there leave it out"


def _refuse_partial_groups(splits: Mapping[str, Split], where: str) -> None:
    absent = [name for name in SPLITS if splits[name].groups is None]
    if absent and len(absent) < len(SPLITS):
        raise ValueError(f"{where}: groups must be given for every split or for none, got no {absent[0]}_groups")


def _refuse_shared_groups(dataset: Dataset, where: str) -> None:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        one, other = dataset.splits[first].groups, dataset.splits[second].groups
        if one is not None and other is not None and (shared := np.intersect1d(one, other)).size:
            text = f"a group must stand in one split only, got group {shared[0]} in {first} and in {second}"
            raise DividedGroupsError(f"{where}: {text} ({shared.size} such)", dataset)


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}, {shape[2]} channel{'s' if shape[2] > 1 else ''}"
