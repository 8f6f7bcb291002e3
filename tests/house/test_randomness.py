"""All randomness of `analysis` comes from the generator that is passed; functions are found, so none is forgotten."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledger_fixture import Design as Study
from ledger_fixture import write_ledger

import analysis
from analysis.across import along, effects, pareto
from analysis.across import bootstrap as redraws
from analysis.across import mean_tests as means
from analysis.explanations import features as embedding
from analysis.explanations import pointing as saliency
from analysis.paired import bootstrap as paired
from analysis.paired import false_claim as claims
from analysis.paired import resampling
from analysis.paired.models import matched
from analysis.records.ledger import load_ledger, load_manifest
from analysis.records.predictions import Pairing
from analysis.selftest import __main__ as selftest
from analysis.selftest import simulation
from analysis.verdicts import decisions as verdicts
from analysis.verdicts import images
from analysis.verdicts import judgement as judgements
from analysis.verdicts.cells import Cells, paired_cells
from analysis.verdicts.declared import Contrast

DRAWS = 40
# Pages and their figures pass the generator on to functions that are called below.
PAGES = {
    "compare.write",
    "explanations.figures",
    "explanations.table",
    "report.cost",
    "report.sections.claims",
    "report.write",
}


def made_up():
    """Labels (images,) and probabilities (two variants, seeds, images, classes), the same each time."""
    rng = np.random.default_rng(11)
    labels = rng.permutation(np.arange(60) % 3)
    scores = np.exp(rng.normal(size=(2, 3, 60, 3)) + np.eye(3)[labels])
    return labels, scores / scores.sum(axis=3, keepdims=True)


LABELS, (A, B) = made_up()
PAIRING = Pairing(LABELS, A, B, np.arange(60), None)
RUNS = np.random.default_rng(12).normal(0.8, 0.05, (7, 3))
DIFFERENCES = np.random.default_rng(13).normal(0.3, 1.0, means.EXACT_FLIPS + 5)
SMALL = simulation.Design(n_datasets=3, n_seeds=2, n_images=30)
LOOSE = simulation.Design(n_datasets=2, n_seeds=2, n_images=30, alpha=0.4)
WIDER = simulation.Design(n_datasets=9, n_seeds=2)
MASKS = np.random.default_rng(14).random((6, 6, 10)) < 0.4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_ledger(tmp_path_factory.mktemp("store"), Study(images=30, datasets=("alpha",), seeds=(0, 1)))


@pytest.fixture(scope="module")
def calls(store):
    """Module and function → a call whose result depends on the draws."""
    table, manifest = load_ledger(store), load_manifest(store, "split_ratio")
    contrast = manifest["contrasts"][0]
    declared = Contrast.from_dict(contrast)
    pairs, _ = paired_cells(Cells(table), declared, ())
    question = images.Question(declared.baseline, declared.against, declared.metric, declared.margin, tuple(pairs))
    rows = [(f"v{v}", f"d{d}", 0, RUNS[d, v], 2.0**v) for d, v in np.ndindex(RUNS.shape)]
    close = pd.DataFrame(rows, columns=["variant_id", "dataset", "seed", "macro_f1", "cost.macs"])
    many = np.random.default_rng(16).normal(0.8, 0.05, (9, 3, 3))
    rows = [(f"v{v}", f"d{d}", s, many[d, v, s], 2.0**v) for d, v, s in np.ndindex(many.shape)]
    wide = pd.DataFrame(rows, columns=["variant_id", "dataset", "seed", "macro_f1", "cost.macs"])
    fractions = np.linspace(0, 1, 5)
    curves = {order: np.random.default_rng(15).random((6, 5)) for order in ("map", "random")}
    return {
        "paired.false_claim.false_claim_probability": lambda rng: claims.false_claim_probability(
            "macro_f1", [PAIRING], rng=rng
        ),
        "across.along.dataset_slope": lambda rng: along.dataset_slope(
            wide, "macro_f1", "v0", "v1", {f"d{d}": d for d in range(9)}, rng=rng
        ),
        "across.along.rank_agreement": lambda rng: along.rank_agreement(
            wide, "macro_f1", "cost.macs", rng=rng, draws=DRAWS
        ),
        "across.effects.iqm": lambda rng: effects.iqm(RUNS, rng=rng, draws=DRAWS),
        "across.effects.performance_profile": lambda rng: effects.performance_profile(
            RUNS, [0.8], rng=rng, draws=DRAWS, level=0.5
        ).to_dict(),
        "explanations.features.tsne": lambda rng: embedding.tsne(RUNS, rng=rng).tolist(),
        "verdicts.judgement.on_dataset": lambda rng: judgements.on_dataset(
            "macro_f1", 0.02, PAIRING, rng=rng, draws=DRAWS
        ),
        "across.mean_tests.sign_flip": lambda rng: means.sign_flip(DIFFERENCES, rng=rng, draws=999),
        "paired.bootstrap.bootstrap_difference": lambda rng: paired.bootstrap_difference(
            "macro_f1", LABELS, A[0], B[0], rng=rng, draws=DRAWS
        ),
        "paired.bootstrap.bootstrap_metric": lambda rng: paired.bootstrap_metric(
            "ece", LABELS, A[0], rng=rng, draws=DRAWS
        ),
        "paired.bootstrap.matched_difference": lambda rng: paired.matched_difference(
            "macro_f1", matched(Pairing(LABELS, A[:1], B[:1], np.arange(60), None)), rng=rng, draws=DRAWS
        ),
        "paired.bootstrap.matched_two_level": lambda rng: paired.matched_two_level(
            "macro_f1", matched(PAIRING), rng=rng, draws=DRAWS
        ),
        "paired.bootstrap.randomisation_difference": lambda rng: paired.randomisation_difference(
            "macro_auc_ovr", LABELS, A[0], B[0], rng=rng, draws=DRAWS
        ),
        "paired.bootstrap.two_level_bootstrap": lambda rng: paired.two_level_bootstrap(
            "macro_f1", LABELS, A, B, rng=rng, draws=DRAWS
        ),
        "across.pareto.best_under_budget": lambda rng: pareto.best_under_budget(
            close, "macro_f1", 1e12, rng=rng, draws=DRAWS
        ),
        "across.pareto.pareto_front": lambda rng: pareto.pareto_front(close, "macro_f1", rng=rng, draws=DRAWS),
        "across.bootstrap.redraw": lambda rng: [part.tolist() for part in next(redraws.redraw([3, 2], DRAWS, rng))],
        "paired.resampling.drawn_swaps": lambda rng: [
            block.tolist() for block in resampling.drawn_swaps(rng, 5, DRAWS)
        ],
        "paired.resampling.drawn_units": lambda rng: [
            block.tolist() for block in resampling.drawn_units(rng, 5, DRAWS)
        ],
        "explanations.pointing.faithfulness": lambda rng: saliency.faithfulness(fractions, curves, "deletion", rng=rng),
        "explanations.pointing.localise": lambda rng: saliency.localise(MASKS[:, :3, :5] + 0.1, 2, MASKS, rng=rng),
        "explanations.pointing.mean_interval": lambda rng: saliency.mean_interval(RUNS[:, 0], None, rng),
        "selftest.__main__.rates": lambda rng: selftest.rates(SMALL, rng=rng, simulations=40),
        "selftest.simulation.simulate_cells": lambda rng: simulation.simulate_cells(SMALL, rng=rng, simulations=40),
        "selftest.simulation.simulate_mixed": lambda rng: simulation.simulate_mixed(WIDER, rng=rng, simulations=12),
        "selftest.simulation.simulate_images": lambda rng: simulation.simulate_images(
            SMALL, rng=rng, simulations=20, draws=DRAWS
        ),
        "selftest.simulation.simulate_these": lambda rng: simulation.simulate_these(
            LOOSE, rng=rng, simulations=20, draws=DRAWS
        ),
        "verdicts.images.answers": lambda rng: list(images.answers(store, [question], rng, DRAWS)),
        "verdicts.decisions.decide": lambda rng: verdicts.decide(table, contrast, rng=rng, draws=DRAWS),
        "verdicts.decisions.decide_all": lambda rng: verdicts.decide_all(table, manifest, store, rng=rng, draws=DRAWS),
    }


def modules():
    return [importlib.import_module(found.name) for found in pkgutil.walk_packages(analysis.__path__, "analysis.")]


def random_functions():
    """Every public function of analysis, its pages aside, that takes a generator, by module and name."""
    return {
        f"{module.__name__.removeprefix('analysis.')}.{name}"
        for module in modules()
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        if "rng" in inspect.signature(function).parameters and module.__name__.removeprefix("analysis.") not in PAGES
    } - {"interval.check_generator"}


def test_every_random_function_is_called_here(calls):
    assert random_functions() == set(calls)


def test_the_generator_decides_and_the_global_seed_has_no_effect(calls):
    for name, call in calls.items():
        np.random.seed(1)
        before = repr(np.random.get_state())
        first = repr(call(np.random.default_rng(3)))
        assert repr(np.random.get_state()) == before, f"{name} draws from the global generator"
        np.random.seed(2)
        assert repr(call(np.random.default_rng(3))) == first, f"{name} depends on the global seed"
        others = (repr(call(np.random.default_rng(seed))) for seed in range(4, 12))
        assert any(other != first for other in others), f"{name} does not use its generator"


def test_a_seed_is_no_generator(calls):
    refused = {name for name in calls if name.split(".")[-2] not in ("features", "resampling", "pointing")}
    for name in refused - {"selftest.__main__.rates"}:
        with pytest.raises(ValueError, match=r"^rng must be a numpy Generator such as np.*, got int$"):
            calls[name](3)


def test_no_line_of_analysis_asks_numpy_for_global_randomness():
    """Of numpy.random only its generator is named, and of the standard library's random nothing."""
    allowed = {"default_rng", "Generator"}
    for path in sorted(Path(analysis.__path__[0]).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
                assert node.attr in allowed, f"{path.name}: {ast.unparse(node)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                assert not {"random", "numpy.random"} & set(names), f"{path.name}: {ast.unparse(node)}"
