"""Confirmation of a search or a race: what it chose on validation, trained afresh on new seeds and judged on test."""

from __future__ import annotations

import dataclasses

from analysis.metrics import METRICS
from medmamba_variants.networks import Network
from study.declaration.definition import Contrast, StrategyChoice, Study
from study.declaration.racing import RACING
from study.executors.choice import Options
from study.planning.inputs import read_inputs
from study.planning.plan import make_plan
from study.planning.racing import Race, follow
from study.store.ledger import open_ledger
from study.strategies.search import front_of

# Differences below it count as none; a study of one's own may declare another.
MARGIN = 0.01
FAMILY = "confirmation"


def confirmation(study: Study, options: Options, n_seeds: int) -> Study:
    """The study that confirms a search or a race: its choice beside the base, on `n_seeds` seeds that it has not used.

    The choice is made on validation, from the records in the store: the front of a search, the leader of a race. Every
    chosen variant is declared against the base, on the first metric that the search or race went by. Raises ValueError
    for a grid, which chooses nothing, and where nothing has been chosen yet.
    """
    strategy = study.strategy
    if strategy.is_grid and strategy.name != RACING:
        raise ValueError(f"{study.path}: --confirm must go with a search or a race, got strategy.name: {strategy.name}")
    refs = read_inputs(study).refs
    plan = make_plan(study, refs, open_ledger(options.store))
    if strategy.name == RACING:
        race = Race(study, refs)
        follow(race, plan.finished)
        if not race.is_over():
            raise ValueError(f"{study.path}: --confirm must follow a race that is over, got {race.seen} blocks of it")
        leader = race.leader()
        chosen = [variant for _, variant in study.variants() if variant.variant_id == leader]
        metric = race.metric
    else:
        chosen = list(front_of(plan, options.store))
        metric = next((name for name in strategy.objectives if name in METRICS), "macro_auc_ovr")
    if not chosen:
        raise ValueError(
            f"{study.path}: --confirm must follow a {strategy.name} run in {options.store}, got none of it"
        )
    return _study(study, chosen, metric, n_seeds)


def _study(study: Study, chosen: list[Network], metric: str, n_seeds: int) -> Study:
    base = study.base
    variants = list(dict.fromkeys([base, *chosen]))
    grid = tuple((study.label(variant), variant) for variant in variants)
    first = max(study.seeds) + 1
    return dataclasses.replace(
        study,
        name=f"{study.name}_confirmed",
        question=f"Does what {study.name} chose on validation beat its base on test, with fresh seeds?",
        grid=grid,
        strategy=StrategyChoice(),
        seeds=tuple(range(first, first + n_seeds)),
        contrasts=tuple(
            Contrast(
                name=label,
                baseline=base,
                against=variant,
                baseline_label=study.label(base),
                against_label=label,
                metric=metric,
                margin=MARGIN,
                family=FAMILY,
                kind="confirmatory",
            )
            for label, variant in grid
            if variant != base
        ),
    )
