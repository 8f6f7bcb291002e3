"""What trained networks look at, scored: python -m analysis.explanations FILE … [--out DIR].

Reads the files that `python -m study.explain` writes, one a cell, prints their scores and writes figures and a table.
Scores of one file are of one network; their intervals are over test images. Whether a variant points better than
another is a question for cells of several seeds and data sets.
"""

import argparse
import json
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.embedding import Separation, separation
from analysis.saliency import PLACES, Score, context, extent, faithfulness, localise, places
from analysis.wording import bounds, share, signed

ORDERS = ("map", "random", "untrained")
KINDS = ("deletion", "insertion")
NEEDED = ("ids", "labels", "predicted", "targets", "probabilities", "features", "images", "fractions")
# Of one file, and of all random draws in scoring it: the same file gives the same numbers.
SEED = 0


@dataclass(frozen=True)
class FieldExtent:
    """How far an output at a place of a stage reaches: shares of the image's pixels that hold half, and 95 %, of the
    energy.

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

    about: study, variant_label, dataset, seed, classes, `cells` (pixels a side of a cell of each stage's grid), and
    where it comes from. `groups` is None where no two images share one.
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
        """(n,): which images have a known lesion that does not fill them."""
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
    """One file as `study.explain` wrote it. Raises ValueError, one line starting with the file."""
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


def score_table(explanations: Sequence[Explanations], *, rng: np.random.Generator) -> pd.DataFrame:
    """One row a file, measure and stage: value with its interval, and gain over each control with its interval.

    Measures: "pointing game", "energy in lesion" (by stage), "deletion area", "insertion area" (of the last stage's
    maps), "silhouette", "kNN accuracy" (no interval: one network's features on fixed images). All intervals are over
    test images (or groups of them), network and seed held fixed; `interval_over` and `n` say so in each row.
    """
    rows: list[dict[str, Any]] = []
    for one in explanations:
        cell = {name: one.about.get(name) for name in ("variant_label", "dataset", "seed")}
        by_stage = one.localisation(rng)
        scored = [(stage, score) for stage, scores in by_stage.items() for score in scores]
        scored += [(one.stages[-1], score) for score in one.curve_scores(rng)]
        for stage, score in scored:
            row = cell | {"measure": score.measure, "stage": stage, "value": score.value}
            row |= {"low": score.interval.low, "high": score.interval.high}
            row |= {"interval_over": score.interval.over, "n": score.interval.n, "n_empty": score.n_empty}
            for control in score.controls:
                row[control.name] = control.value
                row[f"gain over {control.name}"] = control.gain
                row[f"gain over {control.name}, low"] = control.interval.low
                row[f"gain over {control.name}, high"] = control.interval.high
            rows.append(row)
        apart = one.separation()
        for measure, value in (("silhouette", apart.silhouette), ("kNN accuracy", apart.knn_accuracy)):
            rows.append(cell | {"measure": measure, "value": value, "interval_over": "none", "n": apart.n_images})
    return pd.DataFrame(rows)


def describe(one: Explanations) -> list[str]:
    """The scores of a file in lines, each with its controls and what its interval is over."""
    rng = np.random.default_rng(SEED)
    images, about = len(one.arrays["ids"]), one.about
    lines = [f"{one.title}: {images} images of {about['split']}, maps for {about['maps_for']} classes"]
    lines.append("  all intervals: test images drawn anew (or groups of them), network and seed are held fixed")
    for stage, scores in one.localisation(rng).items():
        for score in scores:
            lines.append(_line(f"{score.measure}, stage {stage}", score))
    if not one.lesions.any():
        lines.append("  no known lesions, hence no pointing game")
    for score in one.curve_scores(rng):
        lines.append(_line(score.measure, score))
    apart = one.separation()
    lines.append(
        f"  features: {apart.neighbours}-NN accuracy {share(apart.knn_accuracy)} (always the commonest class "
        f"{share(apart.majority)}), silhouette {signed(apart.silhouette, 3)}"
    )
    pairs = zip(one.fields(), one.fields("untrained_"))
    last = [(field, before) for field, before in pairs if field.stage == one.stages[-1]]
    reach = ", ".join(f"{field.place} {share(field.most, 2)} ({share(before.most, 2)})" for field, before in last)
    return [*lines, f"  share of the image behind 95 % of an output, last stage (before training): {reach}"]


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 2 for a file that cannot be read, told in one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.explanations",
        description="Score and draw what trained networks look at, from the files that study.explain writes.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="files of explanations")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for figures and the table (default: beside each file)")
    options = parser.parse_args(arguments)
    try:
        explanations = [load_explanations(path) for path in options.files]
        for one in explanations:
            print("\n".join(describe(one)))
        for path in write(explanations, options.out):
            print(f"  {path}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(explanations: Sequence[Explanations], out: Path | None) -> list[Path]:
    """Writes a table of all scores and each file's figures into a folder of its own; returns the table and folders."""
    # Matplotlib takes a second, which a reader of scores need not wait for.
    from analysis.canvas import render
    from analysis.explanation_figures import draw_all

    home = out or explanations[0].path.parent
    home.mkdir(parents=True, exist_ok=True)
    written = [home / "explanations.csv"]
    score_table(explanations, rng=np.random.default_rng(SEED)).to_csv(written[0], index=False)
    for one in explanations:
        folder = (out or one.path.parent) / one.path.stem
        folder.mkdir(exist_ok=True)
        for drawing in draw_all(one, rng=np.random.default_rng(SEED)):
            picture = render(drawing)
            (folder / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (folder / f"{picture.name}.png").write_bytes(picture.png)
        written.append(folder)
    return written


def _line(name: str, score: Score) -> str:
    controls = "; ".join(
        f"{control.name} {share(control.value)}, gain {signed(control.gain, 3)} {bounds(control.interval, sign=True)}"
        for control in score.controls
    )
    empty = f", {score.n_empty} of them with empty maps" if score.n_empty else ""
    over = f"{100 * score.interval.level:g} % over {score.interval.over}, n = {score.interval.n}"
    return f"  {name}: {share(score.value)} {bounds(score.interval)} ({over}{empty}); {controls}"


if __name__ == "__main__":
    sys.exit(main())
