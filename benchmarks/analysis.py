"""Paired statistics against the scikit-learn loop that they replace: times, and the numbers compared.

    python benchmarks/analysis.py                # a minute; writes benchmarks/results/analysis.json
    python benchmarks/analysis.py --images 200 --classes 3 --draws 64 --loop-draws 2 --out small.json    # seconds

Two models on the same images. The loop draws the same images and calls scikit-learn on each resample; a few resamples
are enough to know its time, and both must agree on them. Both run in one process, in turns, and the fastest turn
counts. scikit-learn's macro-AUC is its one-vs-rest average, column by column. The targets for 10,000 images, 9 classes
and 10,000 draws stand beside the results.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.metrics import f1_score, roc_auc_score

# Python looks for modules beside the script first, and this script has the name of the package that it measures.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from analysis.paired import bootstrap_difference, delong, randomisation_difference, two_level_bootstrap  # noqa: E402
from analysis.paired.resampling import drawn_swaps, drawn_units  # noqa: E402
from benchmarks.machine import RESULTS, write_results  # noqa: E402

TURNS = 3
# Targets for 10,000 images × 9 classes, 10,000 draws: at most so many seconds, at least so many times the loop's speed.
WANTED = {"paired bootstrap": (3.0, 50.0), "DeLong": (0.1, None)}


def make_predictions(images: int, classes: int, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (images,) and two models' probabilities (seeds, images, classes), right about half of the time."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    shared = rng.standard_normal((images, classes)) + 1.5 * np.eye(classes)[labels]
    scores = np.exp(shared + 0.7 * rng.standard_normal((2, seeds, images, classes)))
    a, b = scores / scores.sum(axis=3, keepdims=True)
    return labels, a, b


def loop_macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(f1_score(labels, probabilities.argmax(axis=1), average="macro"))


def loop_macro_auc_ovr(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in range(probabilities.shape[1])]))


LOOPS = {"macro_f1": loop_macro_f1, "macro_auc_ovr": loop_macro_auc_ovr}


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Times a call: wall-clock seconds and CPU seconds, of which the latter hold even on a busy machine."""
    start, start_cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - start_cpu


def measure(name: str, ours: Callable[[], Any], draws: int | None = None, turns: int = TURNS) -> dict[str, Any]:
    seconds, cpu_seconds = np.min([timed(ours) for _ in range(turns)], axis=0)
    return {"what": name, "draws": draws, "seconds": seconds, "cpu_seconds": cpu_seconds}


def measure_beside(
    name: str, ours: Callable[[], Any], loop: Callable[[int], np.ndarray], loop_draws: int, draws: int
) -> dict[str, Any]:
    """Measures one row: ours, and the loop scaled up from a few draws, in turns."""
    times = np.array([[*timed(ours), *timed(lambda: loop(loop_draws))] for _ in range(TURNS)]).min(axis=0)
    times[2:] *= draws / loop_draws
    row = dict(zip(("seconds", "cpu_seconds", "loop_seconds", "loop_cpu_seconds"), times.tolist()))
    ratios = {"ratio": times[2] / times[0], "cpu_ratio": times[3] / times[1]}
    return {"what": name, "draws": draws, **row, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--loop-draws", type=int, default=16, help="draws of the scikit-learn loop that are timed")
    parser.add_argument("--out", type=Path, default=RESULTS / "analysis.json", metavar="FILE")
    options = parser.parse_args()
    labels, a, b = make_predictions(options.images, options.classes, options.seeds)

    def rng() -> np.random.Generator:
        return np.random.default_rng(1)

    rows = []
    for metric, scikit_learn in LOOPS.items():

        def bootstrap_loop(count: int, scikit_learn=scikit_learn) -> np.ndarray:  # type: ignore[no-untyped-def]
            images = np.concatenate(list(drawn_units(rng(), options.images, count)))
            return np.array([scikit_learn(labels[i], a[0][i]) - scikit_learn(labels[i], b[0][i]) for i in images])

        def randomisation_loop(count: int, scikit_learn=scikit_learn) -> np.ndarray:  # type: ignore[no-untyped-def]
            swaps = np.concatenate(list(drawn_swaps(rng(), options.images, count)))[..., None]
            pairs = [(np.where(swap, b[0], a[0]), np.where(swap, a[0], b[0])) for swap in swaps]
            return np.array([scikit_learn(labels, one) - scikit_learn(labels, other) for one, other in pairs])

        # A fast wrong answer is not a result. This also compiles what is compiled on first use.
        few = bootstrap_difference(metric, labels, a[0], b[0], rng=rng(), draws=4)
        error = abs(few.standard_error - bootstrap_loop(4).std(ddof=1))
        if not error < 1e-12:
            raise SystemExit(f"{metric}: ours and scikit-learn must agree to 1e-12, got a difference of {error:.1e}")
        randomisation_difference(metric, labels, a[0], b[0], rng=rng(), draws=4)

        for name, function, loop in (
            ("paired bootstrap", bootstrap_difference, bootstrap_loop),
            ("randomisation", randomisation_difference, randomisation_loop),
        ):
            ours = partial(function, metric, labels, a[0], b[0], draws=options.draws)
            row = measure_beside(
                f"{name}, {metric}", lambda ours=ours: ours(rng=rng()), loop, options.loop_draws, options.draws
            )
            rows.append(row | {"largest_error": error})
        what = f"two-level bootstrap of {options.seeds} seeds, {metric}"
        two_level = partial(two_level_bootstrap, metric, labels, a, b, draws=options.draws)
        rows.append(measure(what, lambda two_level=two_level: two_level(rng=rng()), options.draws, turns=1))
    # DeLong's test replaces a bootstrap; its own time needs no peer.
    rows.append(measure("DeLong, macro_auc_ovr", lambda: delong(labels, a[0], b[0]), turns=20))

    print(f"{options.images} images × {options.classes} classes, two models, {options.draws} draws")
    print(f"{'':<48}{'seconds':>9}{'of CPU':>9}{'scikit-learn loop':>20}{'ratio':>8}{'of CPU':>9}  wanted")
    for row in rows:
        peers = [f"{row[key]:.0f}" if key in row else "–" for key in ("loop_seconds", "ratio", "cpu_ratio")]
        times = f"{row['seconds']:>9.3f}{row['cpu_seconds']:>9.3f}"
        print(f"{row['what']:<48}{times}{peers[0]:>20}{peers[1]:>8}{peers[2]:>9}  {wanted(row['what'])}")
    versions = {"numpy": np.__version__, "numba": sys.modules["numba"].__version__, "sklearn": sklearn.__version__}
    size = {"images": options.images, "classes": options.classes}
    write_results(options.out, {"versions": versions, **size, "wanted": WANTED, "rows": rows})


def wanted(what: str) -> str:
    """The target of a row, in words; empty where there is none."""
    for name, (seconds, ratio) in WANTED.items():
        if what.startswith(name):
            return f"≤ {seconds:g} s" + (f", ≥ {ratio:g} ×" if ratio else "")
    return ""


if __name__ == "__main__":
    main()
