"""Optuna's study of a search: its journal in the store, its directions, and an axis as a distribution of Optuna's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.metrics import LOWER_IS_BETTER
from medmamba_variants.design.axes import find_axis
from medmamba_variants.design.kinds import to_json
from study.declaration.cells import DataRef
from study.declaration.definition import Range, Study
from study.store.lock import file_lock
from study.strategies.journal import check_lines, cut_torn_line
from study.strategies.samplers import SAMPLERS, Draw

if TYPE_CHECKING:
    import optuna


def distribution(name: str, values: tuple[Any, ...] | Range) -> optuna.distributions.BaseDistribution:
    """Optuna's distribution of an axis's values."""
    from optuna import distributions

    if not isinstance(values, Range):
        # As JSON text: Optuna stores no lists.
        return distributions.CategoricalDistribution([json.dumps(to_json(value)) for value in values])
    number = find_axis(name).number
    assert number is not None, "only numbers have a range"
    kind, arguments = number.distribution(values.low, values.high, values.log, values.step)
    made: optuna.distributions.BaseDistribution = getattr(distributions, kind)(**arguments)
    return made


def suggest(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> None:
    """Has a trial choose a value of an axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        assert isinstance(distribution, FloatDistribution)
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def sampler(study: Study, number: int, barren: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler for one trial, seeded by its number, since Optuna's own state is lost with the process.

    barren: how many proposals in a row have brought no new variant.
    """
    from optuna.exceptions import ExperimentalWarning

    seed = int(np.random.SeedSequence([study.strategy.seed, number]).generate_state(1)[0])
    chosen = SAMPLERS[study.strategy.name]
    if chosen.stuck_after is not None and barren >= chosen.stuck_after:
        chosen = SAMPLERS["random"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return chosen.make(Draw(seed, number, study.strategy.seed, tuple(study.axes)), study.strategy.settings)


def directions(study: Study) -> list[optuna.study.StudyDirection]:
    """Which way each objective of a search goes."""
    from optuna.study import StudyDirection

    smaller = LOWER_IS_BETTER | {"macs"}
    return [
        StudyDirection.MINIMIZE if name in smaller else StudyDirection.MAXIMIZE for name in study.strategy.objectives
    ]


def open_study(study: Study, refs: Mapping[str, DataRef], storage: optuna.storages.JournalStorage) -> optuna.Study:
    """Optuna's study of a search, made or taken up, each objective in its direction."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name_in_journal(study, refs),
            directions=directions(study),
            load_if_exists=True,
            sampler=sampler(study, 0),
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def journal_of(study: Study, store: Path | str) -> Path:
    """The file that keeps a search's proposals."""
    return Path(store).absolute() / "optuna" / f"{study.name}.journal"


def name_in_journal(study: Study, refs: Mapping[str, DataRef]) -> str:
    """The name of a search's trials in its journal, which changes with whatever they depend on."""
    return f"{study.name}-{study.search_hash(refs)}"


def open_storage(journal: Path) -> optuna.storages.JournalStorage:
    """Optuna's storage in a journal, mended after a kill. Raises ValueError where a line is no entry."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal.parent.mkdir(parents=True, exist_ok=True)
    # Optuna's own lock outlives a kill and would block for 30 s.
    lock = file_lock(journal.with_name(f"{journal.name}.lock"))
    with lock:
        cut_torn_line(journal)
    check_lines(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]
