"""Simulated studies of a design: how often the tests behind verdicts err, and how often intervals hold the truth.

There are two kinds of simulated study, both with a truth that is known exactly:

- *Cells*: a difference between two variants on each data set and seed, from variance components. Judged in general,
  by the very functions that judge real studies, and by two wrong procedures for comparison.
- *Images*: scores of two variants on the images of one data set. A seed's skill varies, images share difficulty. An
  image's score is normal, so that a seed's true AUC is Φ(skill / √2), and its macro-F1, of two classes alike in number
  and difficulty, Φ(skill / 2). Judged on this data set and of these weights.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.across.mixed import mixed_model
from analysis.interval import check_generator
from analysis.metrics import METRICS
from analysis.power import pilot_spread
from analysis.records.predictions import Pairing
from analysis.records.sources import averaged, files_by_source, manifest_sources
from analysis.records.table import sources_of
from analysis.verdicts.judgement import in_general, on_dataset, on_these
from analysis.verdicts.levels import THESE_DATA_SETS
from analysis.words import metric_name

# SD, over other test images, of a one-seed difference on n of them is .27 / √n, as for macro-F1 and macro-AUC of
# networks near .9. Of that variance .36 is common to all seeds, the rest each seed's own.
IMAGE_SD = 0.27
COMMON_SHARE = 0.36
# A seed's true AUC is near .9 and moves with skill by Φ'(1.2816) / √2.
SKILL = 1.2816 * math.sqrt(2)
AUC_BY_SKILL = float(stats.norm.pdf(1.2816)) / math.sqrt(2)
# The share of the variance of an image's score that all variants and seeds have in common.
SHARED_DIFFICULTY = 0.6
# The metric that a seed's skill would reach on endlessly many images.
TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "macro_auc_ovr": lambda skill: stats.norm.cdf(skill / math.sqrt(2)),
    "macro_f1": lambda skill: stats.norm.cdf(skill / 2),
}
# How data sets differ for all variants alike; no paired test sees it.
DIFFICULTY_SD = 0.05
WANTED_COVERAGE = (0.93, 0.97)


@dataclass(frozen=True)
class Design:
    """A study's size and its variance: standard deviations over seeds of one variant, and of data set × variant.

    n_datasets: sources of data sets. n_files: the files that they come as, None: one each. Sources share them as evenly
    as can be, and what suits a variant on one file of a source does so on all. on_these: whether a contrast is about
    the study's own data sets.
    """

    n_datasets: int = 8
    n_seeds: int = 5
    n_images: int = 2000
    seed_sd: float = 0.006
    interaction_sd: float = 0.01
    family_size: int = 1
    alpha: float = 0.05
    correction: str = "holm"
    margin: float = 0.01
    n_files: int | None = None
    on_these: bool = False

    def __post_init__(self) -> None:
        for name in ("n_datasets", "n_seeds", "n_images", "family_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("seed_sd", "interaction_sd"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.n_files is not None and self.n_files < self.n_datasets:
            raise ValueError(f"n_files must be at least as many as n_datasets, {self.n_datasets}, got {self.n_files}")

    @property
    def sources(self) -> dict[str, str]:
        """The source of each file, by name."""
        return {f"file {i}": f"source {i % self.n_datasets}" for i in range(self.n_files or self.n_datasets)}

    @property
    def image_sd(self) -> float:
        """SD of a one-seed difference that is due to test images."""
        return IMAGE_SD / math.sqrt(self.n_images)

    @property
    def difference_sd(self) -> float:
        """SD over data sets of a difference averaged over seeds."""
        own = 2 * self.seed_sd**2 + (1 - COMMON_SHARE) * self.image_sd**2
        return math.sqrt(own / self.n_seeds + COMMON_SHARE * self.image_sd**2 + self.interaction_sd**2)


@dataclass(frozen=True)
class Rate:
    """A share of simulated studies, and what it should be: at most `high`, at least `low`; None: reported only."""

    name: str
    value: float
    simulations: int
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float:
        """Monte Carlo standard error of the share."""
        return math.sqrt(self.value * (1 - self.value) / self.simulations)

    @property
    def holds(self) -> bool:
        """Whether the rate is where it should be, as far as the simulations can tell: within two standard errors."""
        below = self.low is not None and self.value < self.low - self._slack(self.low)
        return not below and not (self.high is not None and self.value > self.high + self._slack(self.high))

    def _slack(self, limit: float) -> float:
        return 2 * math.sqrt(limit * (1 - limit) / self.simulations)


def simulate_cells(design: Design, *, rng: np.random.Generator, simulations: int) -> list[Rate]:
    """Error rates and coverage of claims in general, and those of wrong procedures for comparison.

    Empty for a design of one data set (or source).
    """
    check_generator(rng)
    if design.n_datasets < 2:
        return []
    alpha = design.alpha
    values = _values(design, rng, simulations)
    # Contrasts share their baseline.
    family = values[:, 1:] - values[:, :1]
    by_file = family.mean(axis=3)
    by_source = _averaged(by_file, design)
    judged = [[in_general(one, design.margin) for one in of_study] for of_study in by_source]
    p_values = np.array([[judgement.p_value for judgement in of_study] for of_study in judged])
    covers = _share(np.array([0.0 in of_study[0].interval for of_study in judged]))
    # Equivalence is claimed falsely where the truth lies on the margin.
    at_margin = by_source[:, 0] + design.margin
    within = np.array([in_general(one, design.margin).equivalence_p for one in at_margin])
    cells = family[:, 0].reshape(simulations, -1)
    pooled = stats.ttest_1samp(cells, 0.0, axis=1).pvalue if cells.shape[1] > 1 else np.ones(simulations)
    one_seed = np.abs(family[:, 0, 0, 0]) > stats.norm.isf(alpha / 2) * design.image_sd
    rates = [
        Rate("signed-rank test over data-set means: false claims of a difference", _share(p_values[:, 0] <= alpha),
             simulations, high=alpha + 0.01),
        Rate("Student's interval over data sets holds the truth", covers, simulations, *WANTED_COVERAGE),
        Rate("two one-sided tests at the margin: false claims of equivalence", _share(within <= alpha), simulations,
             high=alpha + 0.01),
    ]  # fmt: skip
    if design.family_size > 1:
        name = f"any false claim in a family of {design.family_size}, correction {design.correction}"
        high = None if design.correction == "none" else alpha + 0.01
        rates.append(Rate(name, _share(_any_claim(p_values, design)), simulations, high=high))
    if design.n_files is not None:
        as_sources = np.array([in_general(one, design.margin).p_value for one in by_file[:, 0]])
        name = "not used: signed-rank test over files, as if each were a source"
        rates.append(Rate(name, _share(as_sources <= alpha), simulations))
    return [
        *rates,
        Rate("not used: t over all cells as if they were independent", _share(pooled <= alpha), simulations),
        Rate("not used: one seed on one data set, taken as a claim in general", _share(one_seed), simulations),
    ]


def simulate_mixed(design: Design, *, rng: np.random.Generator, simulations: int) -> list[Rate]:
    """Coverage of the mixed model's interval, which accompanies claims in general; empty for one data set.

    With few data sets it may be wider than necessary: it keeps data sets − 1 degrees of freedom even where the variance
    of data set × variant is estimated as zero. So only too narrow counts as wrong.
    """
    check_generator(rng)
    if design.n_datasets < 2:
        return []
    sources = design.sources
    variants, files, seeds = np.indices((2, len(sources), design.n_seeds)).reshape(3, -1)
    cells = pd.DataFrame({"variant_id": variants, "dataset": np.array(list(sources))[files], "seed": seeds})
    cells["source_key"] = cells["dataset"].map(sources)
    difficulty = rng.standard_normal((simulations, 1, len(sources), 1))
    values = _values(replace(design, family_size=1), rng, simulations) + DIFFICULTY_SD * difficulty
    models = [mixed_model(cells.assign(metric=one.ravel()), "metric", macs=False) for one in values]
    covers = _share(np.array([0.0 in model.effects[0].interval for model in models]))
    return [Rate("mixed model's interval holds the truth", covers, simulations, low=WANTED_COVERAGE[0])]


def simulate_images(
    design: Design, *, rng: np.random.Generator, simulations: int, draws: int = 1000, metric: str = "macro_auc_ovr"
) -> list[Rate]:
    """Error rates and coverage of claims on one data set, over seeds and images, and of two sets of weights.

    Variants are alike, their seeds drawn from one distribution, so that the true difference on the data set is 0; that
    of two sets of weights is known. metric: macro_auc_ovr or macro_f1.
    """
    check_generator(rng)
    if metric not in TRUTHS:
        raise ValueError(f"metric must be one of {', '.join(TRUTHS)}, got {metric!r}")
    over_seeds, of_weights = [], []
    for _ in range(simulations):
        pairing, skills = _made_up(design, rng)
        if design.n_seeds > 1:
            judged = on_dataset(metric, design.margin, pairing, rng=rng, draws=draws)
            over_seeds.append((judged.p_value <= design.alpha, 0.0 in judged.interval))
        one = replace(pairing, baseline=pairing.baseline[:1], against=pairing.against[:1])
        baseline, against = TRUTHS[metric](skills[:, 0])
        of_weights.append(against - baseline in on_dataset(metric, design.margin, one, rng=rng, draws=draws).interval)
    name = metric_name(metric)
    rates = []
    if over_seeds:
        claims, covers = (float(value) for value in np.mean(over_seeds, axis=0))
        two_level = f"two-level bootstrap of {name}"
        rates += [
            Rate(f"{two_level}: false claims of a difference", claims, simulations, high=design.alpha + 0.01),
            # Never narrower than over images alone, it is too wide where seeds make no difference.
            Rate(f"{two_level}, interval holds the truth", covers, simulations, low=WANTED_COVERAGE[0]),
        ]
    test = "DeLong's interval" if metric == "macro_auc_ovr" else "paired bootstrap interval"
    covers = _share(np.array(of_weights))
    of_two = f"{test} of {name}, two sets of weights, holds the truth"
    return [*rates, Rate(of_two, covers, simulations, *WANTED_COVERAGE)]


def simulate_these(
    design: Design, *, rng: np.random.Generator, simulations: int, draws: int = 500, metric: str = "macro_auc_ovr"
) -> list[Rate]:
    """Error rates and coverage of claims on these data sets, which are fixed; empty with fewer than two, or one seed.

    Variants are alike on each data set, their seeds drawn from one distribution, so that the true mean difference is 0.
    """
    check_generator(rng)
    if design.n_datasets < 2 or design.n_seeds < 2:
        return []
    n = design.n_datasets
    weights, sources = [1 / n] * n, list(range(n))
    found = []
    for _ in range(simulations):
        pairings = [_made_up(design, rng)[0] for _ in range(n)]
        judged = [on_dataset(metric, design.margin, pairing, rng=rng, draws=draws) for pairing in pairings]
        values = [float(np.mean(_differences(metric, pairing))) for pairing in pairings]
        whole = on_these(values, judged, weights, sources, design.margin)
        at_margin = on_these([value + design.margin for value in values], judged, weights, sources, design.margin)
        claims = (whole.p_value <= design.alpha, at_margin.equivalence_p <= design.alpha)
        found.append((*claims, 0.0 in whole.interval))
    test, most = f"stratified test of {metric_name(metric)} on these data sets", design.alpha + 0.01
    false, equivalent, covers = (float(value) for value in np.mean(found, axis=0))
    return [
        Rate(f"{test}: false claims of a difference", false, simulations, high=most),
        Rate(f"{test}, at the margin: false claims of equivalence", equivalent, simulations, high=most),
        Rate(f"{test}, its interval holds the truth", covers, simulations, low=WANTED_COVERAGE[0]),
    ]


def _differences(metric: str, pairing: Pairing) -> list[float]:
    value = METRICS[metric]
    sides = ([value(pairing.labels, seed) for seed in side] for side in (pairing.against, pairing.baseline))
    return [against - baseline for against, baseline in zip(*sides)]


def design_of(manifest: Mapping[str, Any], table: pd.DataFrame) -> tuple[Design, str]:
    """A study's design, and where its variance components come from, in words.

    From its finished cells where variants of the first family share two seeds on two data sets, without what test
    images explain; else the defaults.
    """
    datasets, seeds = manifest.get("datasets") or sorted(set(table["dataset"])), manifest.get("seeds") or [0]
    n_sources = len(files_by_source(datasets, {**sources_of(table), **manifest_sources(manifest)}))
    contrasts = manifest.get("contrasts") or []
    images = table["n_test"].dropna() if "n_test" in table else pd.Series(dtype=float)
    design = Design(
        n_datasets=n_sources,
        n_files=None if n_sources == len(datasets) else len(datasets),
        n_seeds=len(seeds),
        n_images=int(images.median()) if len(images) else Design.n_images,
        alpha=float(manifest.get("alpha", Design.alpha)),
        correction=str(manifest.get("correction", Design.correction)),
    )
    if not contrasts:
        return design, "assumed: the study declares no contrast to take them from"
    first = contrasts[0]
    family = [c for c in contrasts if all(c.get(key) == first.get(key) for key in ("family", "kind"))]
    design = replace(design, margin=float(first.get("margin") or Design.margin), family_size=len(family))
    design = replace(design, on_these=any(c.get("level") == THESE_DATA_SETS for c in contrasts))
    variants = {str(c[side]) for c in family for side in ("baseline", "against")}
    try:
        spread = pilot_spread(table[table["variant_id"].isin(variants)], str(first["metric"]))
    except ValueError:
        return design, "assumed: no two variants have finished on two data sets yet"
    if not spread.separated:
        return design, "assumed: one seed cannot tell the spread over seeds from that over data sets"
    # Test images are simulated separately: their part is subtracted from both spreads.
    own, common = ((share / 2) * design.image_sd**2 for share in (1 - COMMON_SHARE, COMMON_SHARE))
    design = replace(
        design,
        seed_sd=math.sqrt(max(0.0, spread.residual**2 - own)),
        interaction_sd=math.sqrt(2 * max(0.0, spread.dataset_variant**2 - common)),
    )
    return design, f"estimated from the finished cells of {spread.n_variants} variants"


def _values(design: Design, rng: np.random.Generator, simulations: int) -> np.ndarray:
    """Simulated values (simulations, baseline and variants of the family, data sets, seeds), all of one true mean."""
    shape = (simulations, design.family_size + 1, len(design.sources), design.n_seeds)
    # Each side contributes half of the variance of a difference.
    seeds = design.seed_sd * rng.standard_normal(shape)
    own = math.sqrt((1 - COMMON_SHARE) / 2) * design.image_sd * rng.standard_normal(shape)
    common = math.sqrt(COMMON_SHARE / 2) * design.image_sd * rng.standard_normal(shape[:3])
    interaction = math.sqrt(0.5) * design.interaction_sd * rng.standard_normal((*shape[:2], design.n_datasets))
    # Files of one source share it.
    interaction = interaction[:, :, np.arange(shape[2]) % design.n_datasets]
    return np.asarray(seeds + own + (common + interaction)[..., None])


def _averaged(by_file: np.ndarray, design: Design) -> np.ndarray:
    """Differences by file (…, files) as differences by source (…, sources), as verdicts average them."""
    if design.n_files is None:
        return by_file
    rows = by_file.reshape(-1, by_file.shape[-1])
    means = [list(averaged(dict(zip(design.sources, row)), design.sources).values()) for row in rows]
    return np.array(means).reshape(*by_file.shape[:-1], -1)


def _made_up(design: Design, rng: np.random.Generator) -> tuple[Pairing, np.ndarray]:
    """Simulated predictions of two equal variants on one data set of two classes, and their skills (2, seeds)."""
    images, seeds = design.n_images, design.n_seeds
    labels = rng.permutation(np.arange(images) % 2)
    shared = math.sqrt(SHARED_DIFFICULTY) * rng.standard_normal(images)
    skills = SKILL + design.seed_sd / AUC_BY_SKILL * rng.standard_normal((2, seeds))
    own = math.sqrt(1 - SHARED_DIFFICULTY) * rng.standard_normal((2, seeds, images))
    scores = skills[..., None] * (labels - 0.5) + shared + own
    positive = 1 / (1 + np.exp(-scores))
    both = np.stack([1 - positive, positive], axis=3)
    return Pairing(labels, both[0], both[1], np.arange(images), None), skills


def _any_claim(p_values: np.ndarray, design: Design) -> np.ndarray:
    """Whether any contrast of a family (simulations, contrasts) has an adjusted p of at most α, (simulations,)."""
    ordered, size = np.sort(p_values, axis=1), p_values.shape[1]
    if design.correction == "bh":
        return np.any(ordered <= design.alpha * np.arange(1, size + 1) / size, axis=1)
    # Holm rejects anything exactly where its first step does.
    return np.asarray(ordered[:, 0] <= design.alpha / (size if design.correction == "holm" else 1))


def _share(claims: np.ndarray) -> float:
    return float(np.mean(claims))
