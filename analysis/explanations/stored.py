"""Reader of stored explanations: the files that `python -m study.explain` writes, one per cell.

The scores of a file are of one network; their intervals are over test images. Whether one variant points better than
another is a question for cells of several seeds and data sets.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.explanations.features import Separation, separation
from analysis.explanations.pointing import PLACES, Score, context, extent, faithfulness, localise, places

ORDERS = ("map", "random", "untrained")
KINDS = ("deletion", "insertion")
NEEDED = ("ids", "labels", "predicted", "targets", "probabilities", "features", "images", "fractions")


@dataclass(frozen=True)
class FieldExtent:
    """The reach of an output at one place of a stage: shares of the image's pixels with half, and 95 %, of the energy.

    context: the share of the energy from beyond the neighbouring cells. One network's mean over images.
    """

    stage: int
    place: str
    half: float
    most: float
    context: float


@dataclass(frozen=True, eq=False)
class Explanations:
    """What one trained network looks at on images of one split; see `study.explanation.explain` for the arrays.

    about: study, variant_label, dataset, seed, classes, `cells` (side in pixels of a cell of each stage's grid), and
    provenance. `groups` is None where no two images share one.
    """

    path: Path
    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def stages(self) -> range:
        return range(len(self.about["cells"]))

    @property
    def groups(self) -> np.ndarray | None:
        groups = self.arrays.get("groups")
        return None if groups is None or len(np.unique(groups)) == len(groups) else groups

    @property
    def lesions(self) -> np.ndarray:
        """Which images have a known lesion that does not fill them, (n,)."""
        masks = self.arrays.get("masks")
        if masks is None:
            return np.zeros(len(self.arrays["ids"]), dtype=bool)
        return np.asarray(masks.any((1, 2)) & ~masks.all((1, 2)))

    @property
    def title(self) -> str:
        """The cell in words."""
        about = self.about
        return f"{about.get('variant_label', about['variant_id'])} on {about['dataset']}, seed {about['seed']}"

    def maps(self, stage: int, name: str = "") -> np.ndarray:
        """Grad-CAM maps (n, rows, columns) of a stage; name "untrained_": of the network before training."""
        return self.arrays[f"{name}maps_{stage}"]

    def localisation(self, rng: np.random.Generator) -> dict[int, list[Score]]:
        """Pointing game and energy by stage, on the images with a known lesion; empty where there are none."""
        found = self.lesions
        if found.sum() < 2:
            return {}
        groups = None if self.groups is None else self.groups[found]
        return {
            stage: localise(
                self.maps(stage)[found],
                self.about["cells"][stage],
                self.arrays["masks"][found],
                rng=rng,
                untrained=self.maps(stage, "untrained_")[found],
                groups=groups,
            )
            for stage in self.stages
        }

    def curve_scores(self, rng: np.random.Generator) -> list[Score]:
        """The areas under deletion and insertion curves, for the last stage's maps and other orders of pixels."""
        steps = self.arrays["fractions"]
        return [faithfulness(steps, self.curves(kind), kind, rng=rng, groups=self.groups) for kind in KINDS]

    def curves(self, kind: str) -> dict[str, np.ndarray]:
        """Deletion or insertion curves (n, steps) by order of pixels."""
        return {order: self.arrays[f"{kind}_{order}"] for order in ORDERS}

    def separation(self) -> Separation:
        """Silhouette and nearest-neighbour accuracy of the penultimate features."""
        return separation(self.arrays["features"], self.arrays["labels"], groups=self.groups)

    def fields(self, name: str = "") -> list[FieldExtent]:
        """How far outputs reach, by stage and place; name "untrained_": before training."""
        energies = self.arrays[f"{name}receptive_fields"]
        found = []
        for stage, cell in enumerate(self.about["cells"]):
            positions = places(*self.maps(stage).shape[1:])
            for place, position, field in zip(PLACES, positions, energies[stage]):
                found.append(
                    FieldExtent(stage, place, extent(field, 0.5), extent(field), context(field, position, cell))
                )
        return found


def load_explanations(path: Path | str) -> Explanations:
    """A file written by `study.explain`, read. Raises ValueError, one line starting with the file."""
    path = Path(path)
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(str(arrays.pop("about")))
    except FileNotFoundError:
        raise ValueError(f"{path}: must be a file of explanations, got no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as problem:
        raise ValueError(f"{path}: must be a whole file of explanations, got {problem}") from None
    stages = range(len(about.get("cells", ())))
    needed = [*NEEDED, "receptive_fields", "untrained_receptive_fields"]
    needed += [f"{name}maps_{stage}" for stage in stages for name in ("", "untrained_")]
    needed += [f"{kind}_{order}" for kind in KINDS for order in ORDERS]
    absent = [name for name in needed if name not in arrays]
    if absent:
        raise ValueError(f"{path}: must hold {', '.join(needed)}, got no {', '.join(absent)}")
    return Explanations(path, about, arrays)


def find_explanations(store: Path | str, study: str) -> list[Explanations]:
    """All explanations of a study's cells in a store, by variant, data set and seed."""
    found = [load_explanations(path) for path in sorted((Path(store) / "explanations").glob("*.npz"))]
    mine = [one for one in found if one.about.get("study") == study]
    return sorted(mine, key=lambda one: (one.about["variant_label"], one.about["dataset"], one.about["seed"]))
