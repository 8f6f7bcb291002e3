"""Variances of a mixed model by restricted maximum likelihood: data sets, data sets × variants, seeds within data sets.

Data sets are independent, so the covariance of the values is block-diagonal with a block per data set, residual
variance times V = I + Σ γ K, where K says which cells share a random effect and γ is its variance, relative to the
residual's. Data sets with the same cells share their V.

Random effects are far fewer than cells, so a block's values and fixed effects are turned at first: by an orthogonal
matrix, which leaves V's identity as it is, into the few directions that random effects reach and those that none does.
In the latter V is the identity for good.
"""

import math
from dataclasses import dataclass

import numpy as np

COMPONENTS = ("data set", "data set × variant", "seed")
# Larger relative standard deviations leave V numerically singular; smaller relative variances are zero to all digits.
LARGEST, SMALLEST = 1e4, 1e-7
# Sums of squares below this share of the whole are rounding.
NOTHING = 1e-22
STARTS = (1.0, 5.0)
# Smaller slopes are level: they promise some 1e-8 of log-likelihood.
FLAT = 1e-3


@dataclass(frozen=True)
class Fit:
    """A REML fit: variances of the components (None where the design lacks one), coefficients, their covariance."""

    variances: tuple[float | None, ...]
    residual: float
    coefficients: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    converged: bool
    message: str


@dataclass(frozen=True)
class Block:
    """Data sets with the same cells, turned into the directions that random effects reach, and the rest.

    members: for each component, what its random effects add to those directions, (effects, directions). fixed (data
    sets, directions, coefficients), values (data sets, directions). Of the rest, all data sets together, what has the
    same sums of squares and products: fixed_rest (rows, coefficients), values_rest (rows,). n_values: cells in all.
    """

    members: tuple[np.ndarray, ...]
    fixed: np.ndarray
    values: np.ndarray
    fixed_rest: np.ndarray
    values_rest: np.ndarray
    n_values: int


@dataclass(frozen=True)
class State:
    """The criterion, −2 × the restricted log-likelihood up to a constant, and what it is made of.

    gradient: by the relative variances.
    """

    criterion: float
    gradient: np.ndarray
    coefficients: np.ndarray
    information: np.ndarray
    residual: float


def fit_variances(
    values: np.ndarray, fixed: np.ndarray, datasets: np.ndarray, variants: np.ndarray, seeds: np.ndarray
) -> Fit:
    """The REML fit of values (cells,) on fixed effects (cells, coefficients), full rank, and three random ones.

    datasets, variants, seeds: codes (cells,). A component that the design cannot tell from others is left out:
    data set × variant where no variant has two seeds on a data set, seeds where no two variants share one of several.
    Where the fixed effects and what is paired leave nothing over (identical variants, or ones that differ by a constant
    on every seed), the residual variance is 0 and the coefficients have no error; where seeds make no difference at
    all, they count as one.
    """
    # Means far from zero would cost digits.
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    standard = (values - centre) / scale
    present = _present(datasets, variants, seeds)
    paired = datasets * (int(seeds.max()) + 1) + seeds if present[2] else datasets
    if _left_over(standard, fixed, paired) <= NOTHING * len(values):
        fit = _without_residual(standard, fixed, datasets, paired, present)
    elif present[1] and _left_over(standard, None, datasets * (int(variants.max()) + 1) + variants) <= NOTHING * len(
        values
    ):
        fit = _seeds_alike(standard, fixed, datasets, variants, present)
    else:
        fit = _fit(_blocks(standard, fixed, datasets, variants, seeds, present), present)
    coefficients = scale * fit.coefficients
    coefficients[0] += centre
    freedom = len(values) - fixed.shape[1]
    return Fit(
        variances=tuple(None if variance is None else scale**2 * variance for variance in fit.variances),
        residual=scale**2 * fit.residual,
        coefficients=coefficients,
        covariance=scale**2 * fit.covariance,
        log_likelihood=fit.log_likelihood - freedom * math.log(scale),
        converged=fit.converged,
        message=fit.message,
    )


def attempt(design: tuple[np.ndarray, ...]) -> Fit | None:
    """The fit of the five arrays of `fit_variances`; None where they carry none."""
    try:
        return fit_variances(*design)
    except ValueError:
        return None


def _present(datasets: np.ndarray, variants: np.ndarray, seeds: np.ndarray) -> tuple[bool, bool, bool]:
    """Which variance components the design can tell apart."""
    cells = np.column_stack([datasets, variants, seeds])
    repeated = len(np.unique(cells[:, :2], axis=0)) < len(cells)
    shared = False
    for dataset in np.unique(datasets):
        here = seeds[datasets == dataset]
        codes, counts = np.unique(here, return_counts=True)
        shared |= len(codes) > 1 and bool((counts > 1).any())
    return True, repeated, shared and repeated


def _blocks(
    values: np.ndarray,
    fixed: np.ndarray,
    datasets: np.ndarray,
    variants: np.ndarray,
    seeds: np.ndarray,
    present: tuple[bool, ...],
) -> list[Block]:
    alike: dict[bytes, list[np.ndarray]] = {}
    for dataset in np.unique(datasets):
        rows = np.flatnonzero(datasets == dataset)
        rows = rows[np.lexsort((seeds[rows], variants[rows]))]
        alike.setdefault(np.stack([variants[rows], seeds[rows]]).tobytes(), []).append(rows)
    blocks = []
    for members in alike.values():
        rows = np.stack(members)
        codes = (np.zeros_like(rows[0]), variants[rows[0]], seeds[rows[0]])
        indicators = tuple(
            (np.unique(code)[:, None] == code).astype(np.float64) for code, there in zip(codes, present) if there
        )
        blocks.append(_turned(indicators, fixed[rows], values[rows]))
    return blocks


def _turned(indicators: tuple[np.ndarray, ...], fixed: np.ndarray, values: np.ndarray) -> Block:
    """The block of data sets with the same cells.

    indicators: for each component, (effects, cells), of the cells that share each of its random effects. fixed (data
    sets, cells, coefficients), values (data sets, cells).
    """
    directions = np.linalg.qr(np.concatenate(indicators).T)[0]
    columns = np.concatenate([fixed, values[:, :, None]], axis=2)
    inside = directions.T @ columns
    rest = (columns - directions @ inside).reshape(-1, columns.shape[2])
    products = np.asarray(np.linalg.qr(rest, mode="r"))
    return Block(
        members=tuple(members @ directions for members in indicators),
        fixed=inside[:, :, :-1],
        values=inside[:, :, -1],
        fixed_rest=products[:, :-1],
        values_rest=products[:, -1],
        n_values=values.size,
    )


def _fit(blocks: list[Block], present: tuple[bool, ...]) -> Fit:
    """The better of the optimiser's ends from two starts."""
    # Late, here and below: naming a fit must not cost a solver's memory.
    from scipy import linalg, optimize

    def criterion(x: np.ndarray) -> tuple[float, np.ndarray]:
        state = _state(blocks, x + x**2)
        return state.criterion, (1 + 2 * x) * state.gradient

    # x + x² is the relative variance: by x, unlike by a standard deviation, the slope at zero says whether zero is the
    # optimum, and large values are still reached in a few steps.
    ends = [
        optimize.minimize(
            criterion,
            np.full(sum(present), start),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, LARGEST)] * sum(present),
            options={"ftol": 1e-15, "gtol": 1e-7, "maxiter": 1000},
        )
        for start in STARTS
    ]
    best = min(ends, key=lambda end: end.fun)
    x = np.where(best.x < SMALLEST, 0.0, best.x)
    state = _state(blocks, x + x**2)
    slope = (1 + 2 * x) * state.gradient
    converged = bool((np.abs(slope[x > 0]) < FLAT).all() and (slope[x == 0] > -FLAT).all() and (x < LARGEST).all())
    relative = x + x**2
    variances = iter(state.residual * relative)
    freedom = sum(block.n_values for block in blocks) - len(state.coefficients)
    constant = freedom * (1 + math.log(2 * math.pi / freedom))
    return Fit(
        variances=tuple(float(next(variances)) if there else None for there in present),
        residual=state.residual,
        coefficients=state.coefficients,
        covariance=state.residual * linalg.inv(state.information),
        log_likelihood=-(state.criterion + constant) / 2,
        converged=converged,
        message="" if converged else f"{best.message}, relative variances {relative.round(3).tolist()}",
    )


def _state(blocks: list[Block], relative: np.ndarray) -> State:
    """The profiled REML criterion at relative variances (Bates et al. 2015, equation 41)."""
    from scipy import linalg

    n, p = sum(block.n_values for block in blocks), blocks[0].fixed.shape[2]
    information, target, log_determinant = np.zeros((p, p)), np.zeros(p), 0.0
    solved = []
    for block in blocks:
        covariance = np.eye(block.values.shape[1])
        for variance, members in zip(relative, block.members):
            covariance += variance * (members.T @ members)
        root = linalg.cho_factor(covariance, lower=True)
        log_determinant += 2 * len(block.values) * float(np.log(np.diag(root[0])).sum())
        inverse = linalg.cho_solve(root, np.eye(len(covariance)))
        # (data sets, directions, coefficients)
        weighted = inverse @ block.fixed
        solved.append((inverse, weighted))
        information += np.tensordot(block.fixed, weighted, ((0, 1), (0, 1))) + block.fixed_rest.T @ block.fixed_rest
        target += np.tensordot(weighted, block.values, ((0, 1), (0, 1))) + block.values_rest @ block.fixed_rest
    root = linalg.cho_factor(information, lower=True)
    coefficients = linalg.cho_solve(root, target)
    squares, gradient, slopes = 0.0, np.zeros(len(relative)), np.zeros(len(relative))
    for block, (inverse, weighted) in zip(blocks, solved):
        residuals = block.values - block.fixed @ coefficients
        pulls = residuals @ inverse
        squares += float((residuals * pulls).sum())
        squares += float(np.square(block.values_rest - block.fixed_rest @ coefficients).sum())
        for k, members in enumerate(block.members):
            shared = members @ weighted
            inner = np.tensordot(shared, shared, ((0, 1), (0, 1)))
            gradient[k] += len(block.values) * float(((members @ inverse) * members).sum())
            gradient[k] -= float(np.trace(linalg.cho_solve(root, inner)))
            slopes[k] += float(((pulls @ members.T) ** 2).sum())
    gradient -= (n - p) * slopes / squares
    determinant = 2 * float(np.log(np.diag(root[0])).sum())
    criterion = (n - p) * math.log(squares) + log_determinant + determinant
    return State(criterion, gradient, coefficients, information, squares / (n - p))


def _left_over(values: np.ndarray, fixed: np.ndarray | None, groups: np.ndarray) -> float:
    """Sum of squares that groups' means and the fixed effects leave."""
    codes = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(codes)
    left = values - (np.bincount(codes, values) / counts)[codes]
    if fixed is not None:
        within = fixed - np.stack([np.bincount(codes, column) / counts for column in fixed.T], axis=1)[codes]
        left = left - within @ np.linalg.lstsq(within, left, rcond=None)[0]
    return float((left**2).sum())


def _without_residual(
    values: np.ndarray, fixed: np.ndarray, datasets: np.ndarray, paired: np.ndarray, present: tuple[bool, ...]
) -> Fit:
    """The limit of no residual: coefficients but the intercept hold exactly, the rest is what data sets differ by."""
    codes = np.unique(paired, return_inverse=True)[1]
    counts = np.bincount(codes)
    centred = values - (np.bincount(codes, values) / counts)[codes]
    within = fixed - np.stack([np.bincount(codes, column) / counts for column in fixed.T], axis=1)[codes]
    coefficients = np.linalg.lstsq(within, centred, rcond=None)[0]
    coefficients = np.where(np.abs(coefficients) < 1e-11, 0.0, coefficients)
    coefficients[0] = 0.0
    left = values - fixed @ coefficients
    units = np.unique(datasets)
    means = np.array([left[datasets == unit].mean() for unit in units])
    seeds = [left[datasets == unit] for unit in units]
    coefficients[0] = means.mean()
    covariance = np.zeros((fixed.shape[1], fixed.shape[1]))
    covariance[0, 0] = means.var(ddof=1) / len(means)
    spread = float(np.mean([np.var(here) for here in seeds]))
    variances = (float(means.var(ddof=1)), 0.0 if present[1] else None, spread if present[2] else None)
    return Fit(variances, 0.0, coefficients, covariance, math.inf, True, "")


def _seeds_alike(
    values: np.ndarray, fixed: np.ndarray, datasets: np.ndarray, variants: np.ndarray, present: tuple[bool, ...]
) -> Fit:
    """The fit of one cell per data set and variant, whose residual is then data set × variant."""
    first = np.unique(np.column_stack([datasets, variants]), axis=0, return_index=True)[1]
    zeros = np.zeros(len(first), dtype=np.int64)
    fit = fit_variances(values[first], fixed[first], datasets[first], variants[first], zeros)
    variances = (fit.variances[0], fit.residual, 0.0 if present[2] else None)
    return Fit(variances, 0.0, fit.coefficients, fit.covariance, math.inf, fit.converged, fit.message)
