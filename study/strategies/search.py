"""Search strategies, whose variants Optuna proposes. Optuna is imported late, here and in `samplers`.

A strategy hands out cells (`ask`) and takes their records (`tell`); it neither runs nor writes them. Seeds and data
sets are expanded, never sampled: one Optuna trial is one variant on all of them. Finished cells of the ledger are
never handed out again; failed ones are, once each time the command is run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.metrics import LOWER_IS_BETTER
from analysis.records.schema import Record
from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import find_axis
from medmamba_variants.design.kinds import to_json
from study.declaration.cells import Cell, DataRef
from study.declaration.definition import Range, Study
from study.declaration.racing import RACING
from study.planning.plan import Plan
from study.store.lock import file_lock
from study.strategies.grid import Grid
from study.strategies.journal import check_lines, cut_torn_line
from study.strategies.proposals import Proposal, next_axis, variant_of
from study.strategies.racing import Racing
from study.strategies.samplers import SAMPLERS
from study.strategies.strategy import Strategy
from study.strategies.tuned import Tuned
from study.strategies.waiting import Waiting

if TYPE_CHECKING:
    import optuna

# Multiply-accumulates of one forward pass of a variant on an image of a data set (by name).
CountMacs = Callable[[VariantConfig, str], float]

# A search ends early after this many proposals in a row without a new variant: none is left, or all are too large.
BARREN_LIMIT = 200


def make_strategy(plan: Plan, store: Path | str, count_macs: CountMacs | None = None) -> Strategy:
    """The strategy of a planned study; a search keeps its proposals in `<store>/optuna/<study>.journal`.

    Searches need `count_macs`.
    """
    if plan.study.strategy.name == RACING:
        return Racing(plan)
    if plan.study.is_grid:
        return Grid(plan) if plan.study.tuning is None else Tuned(plan)
    assert count_macs is not None, "a search needs count_macs"
    return Search(plan, store, count_macs)


class Search:
    """The strategy of a search: variants proposed by Optuna, each on all seeds and data sets.

    `strategy.trials` counts distinct variants. A proposal above `max_macs`, or one that does not make a network, is
    reported to Optuna as pruned and costs nothing; one that was made before takes over that variant's result. The
    sampler is seeded from the study's seed and the trial's number, so a resumed search proposes what an uninterrupted
    one would have (with one worker; with several, the order in which cells end matters). A trial chooses only axes that
    live under the choices made before.
    """

    def __init__(self, plan: Plan, store: Path | str, count_macs: CountMacs) -> None:
        study, refs = plan.study, plan.refs
        self.study = study
        self.resumed: list[Record] = []
        self._refs = refs
        self._count_macs = count_macs
        self._finished = plan.finished
        self._proposals: dict[str, Proposal] = {}
        self._owners: dict[str, Proposal] = {}
        self._waiting = Waiting()
        self._rejections: Counter[str] = Counter()
        self._duplicates = 0
        self._barren = 0
        self._asked = 0
        self._storage = _open_storage(_journal(study, store))
        self._trials = _open_study(study, refs, self._storage)
        self._trials_id = self._storage.get_study_id_from_name(self._trials.study_name)
        self._distributions = {name: _distribution(name, values) for name, values in study.axes.items()}
        self._adopt()

    def ask(self) -> Cell | None:
        """The next cell of an accepted variant; proposes further variants while there is room for them."""
        while not self._waiting and self._has_room():
            self._propose()
        return self._waiting.next()

    def tell(self, record: Record) -> None:
        """Takes a record; after the last one of a variant, Optuna gets the objectives."""
        cell_id = record["cell_id"]
        self._waiting.back(cell_id)
        proposal = self._owners[cell_id]
        proposal.records[cell_id] = record
        self._settle(proposal)

    def done(self) -> bool:
        """Whether no variant may follow and every record has come back."""
        return self._waiting.is_over() and not self._has_room()

    def total(self) -> int | None:
        """The number of cells of all variants that may be accepted."""
        variants = self.study.strategy.trials if self._has_room() else len(self._proposals)
        return variants * len(self.study.seeds) * len(self.study.datasets)

    def label(self, cell: Cell) -> str:
        """The label of a cell's variant: its difference from the study's base."""
        return self.study.label(cell.variant)

    def cell_ids(self) -> list[str]:
        """The ids of the cells of all variants accepted so far."""
        return list(self._owners)

    def notes(self) -> list[str]:
        """Sentences on proposals that were not trained."""
        notes = [f"{count} proposals were rejected before training: {why}" for why, count in self._rejections.items()]
        if self._duplicates:
            notes.append(f"{self._duplicates} proposals repeated an earlier variant and took over its result")
        missing = self.study.strategy.trials - len(self._proposals)
        if missing > 0 and not self._has_room():
            notes.append(
                f"the search ended {missing} variants early: {self._barren} proposals in a row brought no new variant"
            )
        return notes

    def front(self) -> list[tuple[str, dict[str, float]]]:
        """The best variants as (label, objectives): those that no other beats, or the best by a single objective."""
        best = {}
        for trial in self._trials.best_trials:
            variant = variant_of(self.study, trial.params)
            best[variant.variant_id] = (
                self.study.label(variant),
                dict(zip(self.study.strategy.objectives, trial.values)),
            )
        return list(best.values())

    def _has_room(self) -> bool:
        return len(self._proposals) < self.study.strategy.trials and self._barren < BARREN_LIMIT

    def _adopt(self) -> None:
        """Adopts what earlier runs left in the journal; trials that a kill left running are finished by this run."""
        from optuna.trial import TrialState

        made_good = set()
        for trial in self._trials.get_trials(deepcopy=False):
            if "retry_of" in trial.user_attrs:
                made_good.add(trial.user_attrs["retry_of"])
                continue
            if next_axis(self.study, trial.params) is not None:
                # Killed during the proposal. It does not count, not even for the seed of the next one.
                if trial.state == TrialState.RUNNING:
                    self._close(trial.number, TrialState.FAIL, "the driver was killed while asking")
                continue
            self._asked += 1
            if "rejected" in trial.user_attrs:
                self._barren += 1
                self._rejections[trial.user_attrs["rejected"]] += 1
                if trial.state == TrialState.RUNNING:
                    self._trials.tell(trial.number, state=TrialState.PRUNED)
                continue
            proposal = self._consider(trial.number, trial.params, settle=False)
            if proposal is not None and trial.state != TrialState.RUNNING:
                proposal.waiting.remove(trial.number)
                if trial.state == TrialState.COMPLETE:
                    proposal.complete = True
                else:
                    proposal.closed = trial.number
        for proposal in self._proposals.values():
            proposal.complete |= proposal.closed in made_good
            self._settle(proposal)

    def _propose(self) -> None:
        self._trials.sampler = _sampler(self.study, self._asked)
        trial = self._trials.ask()
        while (name := next_axis(self.study, trial.params)) is not None:
            _suggest(trial, name, self._distributions[name])
        self._asked += 1
        self._consider(trial.number, trial.params, settle=True)

    def _consider(self, number: int, params: Mapping[str, Any], settle: bool) -> Proposal | None:
        """The proposal that a trial waits for, made if its variant is new; None when the trial was rejected."""
        try:
            variant = variant_of(self.study, params)
            known = self._proposals.get(variant.variant_id)
            macs = {name: self._count_macs(variant, name) for name in self.study.datasets} if known is None else {}
        except ValueError as error:
            self._reject(number, str(error))
            return None
        limit = self.study.strategy.max_macs
        if known is not None:
            self._barren += 1
            self._duplicates += 1
            known.waiting.append(number)
            if settle:
                self._settle(known)
            return known
        if limit is not None and max(macs.values()) > limit:
            self._reject(number, f"more than max_macs ({limit:g})")
            return None
        self._barren = 0
        cells = {cell.cell_id: cell for cell in self.study.cells_of(variant, self._refs)}
        proposal = Proposal(variant, fmean(macs.values()), cells, waiting=[number])
        self._proposals[variant.variant_id] = proposal
        for cell_id, cell in cells.items():
            self._owners[cell_id] = proposal
            if cell_id in self._finished:
                proposal.records[cell_id] = self._finished[cell_id]
                self.resumed.append(self._finished[cell_id])
            else:
                self._waiting.add(cell)
        if settle:
            self._settle(proposal)
        return proposal

    def _reject(self, number: int, why: str) -> None:
        from optuna.trial import TrialState

        self._barren += 1
        self._rejections[why] += 1
        self._attribute(number, "rejected", why)
        # Pruned, not failed: samplers that learn from pruned trials then avoid variants that are too large.
        self._trials.tell(number, state=TrialState.PRUNED, skip_if_finished=True)

    def _settle(self, proposal: Proposal) -> None:
        """Reports a variant's outcome to Optuna, once all its cells are in."""
        from optuna.trial import TrialState, create_trial

        if not proposal.all_in():
            return
        values, status, why = proposal.outcome(self.study)
        for number in proposal.waiting:
            self._attribute(number, "variant", {"id": proposal.variant.variant_id, **proposal.variant.diff()})
            if values is None:
                self._close(number, TrialState.PRUNED if status == "stopped" else TrialState.FAIL, why)
                proposal.closed = number
            else:
                self._trials.tell(number, values, skip_if_finished=True)
                proposal.complete = True
        proposal.waiting.clear()
        if values is not None and not proposal.complete and proposal.closed is not None:
            # A closed trial takes no values, so the retry enters as a new trial of the same generation.
            failed = self._trials.get_trials(deepcopy=False)[proposal.closed]
            self._trials.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    values=values,
                    params=failed.params,
                    distributions=failed.distributions,
                    user_attrs={"retry_of": proposal.closed},
                    system_attrs=failed.system_attrs,
                )
            )
            proposal.complete = True

    def _close(self, number: int, state: optuna.trial.TrialState, why: str) -> None:
        self._attribute(number, "reason", why)
        self._trials.tell(number, state=state, skip_if_finished=True)

    def _attribute(self, number: int, key: str, value: Any) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._trials_id, number)
        if not self._storage.get_trial(trial_id).state.is_finished():
            self._storage.set_trial_user_attr(trial_id, key, value)


def count_finished(plan: Plan, store: Path | str) -> int:
    """The number of finished cells of variants that a search has proposed so far. Read-only: repairs nothing."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study, refs = plan.study, plan.refs
    journal = _journal(study, store)
    if not journal.exists():
        return 0
    check_lines(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    try:
        trials = storage.get_all_trials(storage.get_study_id_from_name(_study_name(study, refs)), deepcopy=False)
    except KeyError:
        return 0
    variants = {
        variant_of(study, trial.params)
        for trial in trials
        if "rejected" not in trial.user_attrs and next_axis(study, trial.params) is None
    }
    return sum(cell.cell_id in plan.finished for variant in variants for cell in study.cells_of(variant, refs))


def _distribution(name: str, values: tuple[Any, ...] | Range) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if not isinstance(values, Range):
        # As JSON text: Optuna stores no lists.
        return distributions.CategoricalDistribution([json.dumps(to_json(value)) for value in values])
    number = find_axis(name).number
    assert number is not None, "only numbers have a range"
    kind, arguments = number.distribution(values.low, values.high, values.log, values.step)
    made: optuna.distributions.BaseDistribution = getattr(distributions, kind)(**arguments)
    return made


def _suggest(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        assert isinstance(distribution, FloatDistribution)
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _sampler(study: Study, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for one trial, seeded by its number, since Optuna's own state is lost with the process."""
    seed = int(np.random.SeedSequence([study.strategy.seed, number]).generate_state(1)[0])
    return SAMPLERS[study.strategy.name].make(seed, study.strategy.settings)


def _open_study(study: Study, refs: Mapping[str, DataRef], storage: optuna.storages.JournalStorage) -> optuna.Study:
    import optuna
    from optuna.study import StudyDirection

    smaller = LOWER_IS_BETTER | {"macs"}
    directions = [
        StudyDirection.MINIMIZE if name in smaller else StudyDirection.MAXIMIZE for name in study.strategy.objectives
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage,
            study_name=_study_name(study, refs),
            directions=directions,
            load_if_exists=True,
            sampler=_sampler(study, 0),
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def _journal(study: Study, store: Path | str) -> Path:
    return Path(store).absolute() / "optuna" / f"{study.name}.journal"


def _study_name(study: Study, refs: Mapping[str, DataRef]) -> str:
    return f"{study.name}-{study.search_hash(refs)}"


def _open_storage(journal: Path) -> optuna.storages.JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal.parent.mkdir(parents=True, exist_ok=True)
    # Optuna's own lock outlives a kill and would block for 30 s.
    lock = file_lock(journal.with_name(f"{journal.name}.lock"))
    with lock:
        cut_torn_line(journal)
    check_lines(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]
