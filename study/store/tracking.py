"""View of a study in MLflow: one parent run per study, a child run per cell, a summary run per variant.

The only file that imports mlflow. All writing happens in one thread of the driver, so that neither creating the
database nor a slow server holds up the workers. The ledger is the truth: whatever goes wrong here costs one line of
warning, and the next launch of the study logs what is missing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from analysis.records.predictions import SPLITS
from analysis.records.schema import Record
from analysis.words import LONGEST_REASON, shortened
from medmamba_variants.networks import read_network
from study.store.database import ARTIFACTS, absolute_uri, alone, artifacts_uri, default_uri, follow_store
from study.store.lock import file_lock
from study.store.views import view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

# After more faults in a row than this, the server is taken to be down.
FAULTS_BEFORE_GIVING_UP = 3
LEDGER = "ledger"
# As many runs as MLflow returns at a time.
PAGE = 1000
COST_AND_SPEED = ("best_epoch", "seconds", "images_per_second", "peak_bytes")

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # The default is seven tries of two minutes each, for which a dead server would hold up the end of the study.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def serve(store: Path, host: str, port: int) -> None:
    """Serves MLflow's pages of a store's database until interrupted.

    In this process: `mlflow server` imports everything twice, and by default starts a worker per core and a second
    server for jobs (14 s and 2.5 GB instead of 3 s and 0.3 GB).
    """
    os.environ.update({**SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    # MLflow's imports warn its users about things that only its authors can change.
    warnings.simplefilter("ignore")
    uri, artifacts = default_uri(store), artifacts_uri(store)
    # A read-only store is shown as it is.
    with suppress(sqlite3.OperationalError):
        follow_store(store)
    try:
        import uvicorn
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(uri, uri, artifacts)
        from mlflow.server.fastapi_app import app
    except (ImportError, AttributeError, TypeError):
        # Not part of MLflow's public interface, so another version may differ; its command line is slower but stable.
        options = ["--backend-store-uri", uri, "--default-artifact-root", artifacts, "--host", host]
        command = [sys.executable, "-m", "mlflow", "server", *options, "--port", str(port), "--workers", "1"]
        os.execv(sys.executable, command)
    uvicorn.run(app, host=host, port=port, log_level="error")


@dataclass(frozen=True)
class StudyTags:
    """The tags that identify a study's parent run: the same hash is the same run, resumed."""

    name: str
    study_hash: str
    question: str


@dataclass(frozen=True)
class VariantSummary:
    """The summary of one variant over its cells: `numbers` by metric name (None: undefined), the interval's meaning."""

    variant_id: str
    label: str
    variant: Mapping[str, Any]
    numbers: Mapping[str, float | None]
    interval_over: str


class Tracker:
    """Logs a study's records to MLflow in the background, each record once.

    `log` and `summarise` return at once; `close` waits for what is still to be written. `warn` gets at most one line,
    from the writing thread.
    """

    def __init__(self, uri: str, store: Path, study: StudyTags, warn: Callable[[str], None]) -> None:
        self.uri = absolute_uri(uri)
        self._store = store.absolute()
        self._study = study
        self._warn = warn
        self._jobs: queue.SimpleQueue[Callable[[_View], None] | None] = queue.SimpleQueue()
        self._faults = 0
        self._warned = False
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)

    def start(self) -> None:
        """Starts to create or open the database, and to write what arrives."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        self._thread.start()

    def log(self, record: Record, label: str, files: Iterable[Path] = ()) -> None:
        """Writes a cell's run, unless this very record has one."""
        kept = tuple(files)
        self._jobs.put(lambda view: view.log(record, label, kept))

    def summarise(self, summaries: Iterable[VariantSummary]) -> None:
        """Writes a run for each variant in place of its earlier summary."""
        for summary in summaries:
            self._jobs.put(partial(_View.summarise, summary=summary))

    def close(self, status: str, counts: Mapping[str, int], timeout: float = 120.0) -> bool:
        """Ends the parent run as FINISHED, FAILED or KILLED with `counts` as metrics; False when time ran out."""
        self._jobs.put(lambda view: view.close(status, counts))
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _write(self) -> None:
        try:
            view = _open(self.uri, self._store, self._study)
        except Exception as error:
            self._fault(error)
            return
        while (job := self._jobs.get()) is not None:
            try:
                job(view)
                self._faults = 0
            except Exception as error:
                self._fault(error)
                if self._faults >= FAULTS_BEFORE_GIVING_UP:
                    return

    def _fault(self, error: Exception) -> None:
        self._faults += 1
        if self._warned:
            return
        self._warned = True
        reason = shortened(" ".join(str(error).split()), LONGEST_REASON) or type(error).__name__
        self._warn(
            f"warning: MLflow at {self.uri} does not take the records ({reason}); the ledger keeps them all, and "
            f"`python -m study.sync --store {self._store}` or the next launch of this study logs what is missing"
        )


class _View:
    """The parent run and what already hangs below it."""

    def __init__(self, client: MlflowClient, study: StudyTags, experiment_id: str) -> None:
        self.client = client
        self.study = study
        self.experiment_id = experiment_id
        self.parent = self._parent()
        self._close_zombies()
        # A cell that ran again, such as after a failure, has another end time and gets another run.
        self.logged = {_key(run.data.tags) for run in self._runs(kind="cell")}

    def log(self, record: Record, label: str, files: tuple[Path, ...]) -> None:
        """Writes a cell's run with its files, once."""
        tags = {"kind": "cell", "status": record["status"], "cell_id": record["cell_id"], "study": self.study.name}
        tags |= {name: record[name] for name in ("variant_id", "recipe_id", "finished") if record.get(name)}
        if record.get("error"):
            tags["error"] = f"{record['error']['type']}: {record['error']['message']}"[:4000]
        if _key(tags) in self.logged:
            return
        begun, ended = _milliseconds(record.get("started")), _milliseconds(record.get("finished"))
        name = f"{label} · {record['dataset']} · seed {record['seed']}"
        run_id = self._create(name, tags, begun)
        self._batch(run_id, list(_metrics(record, begun, ended)), _cell_params(record, label))
        self.client.log_text(run_id, json.dumps(record, indent=1, ensure_ascii=False), "record.json")
        for file in files:
            self.client.log_artifact(run_id, str(file))
        self.client.set_terminated(run_id, "FAILED" if record["status"] == "failed" else "FINISHED", ended)
        self.logged.add(_key(tags))

    def summarise(self, summary: VariantSummary) -> None:
        """Writes a variant's summary run; an earlier one with other numbers is deleted."""
        numbers = {name: float(value) for name, value in summary.numbers.items() if value is not None}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for run in self._runs(kind="summary", variant_id=summary.variant_id):
            if run.data.metrics == numbers:
                return
            self.client.delete_run(run.info.run_id)
        tags = {"kind": "summary", "variant_id": summary.variant_id, "study": self.study.name}
        tags |= {"interval_over": summary.interval_over}
        now = _now()
        run_id = self._create(f"summary · {summary.label}", tags, now)
        params = {"variant": summary.label, **_variant_params(summary.variant)}
        self._batch(run_id, [_metric(name, value, now, 0) for name, value in numbers.items()], params)
        self.client.set_terminated(run_id, "FINISHED")

    def close(self, status: str, counts: Mapping[str, int]) -> None:
        """Ends the parent run."""
        now = _now()
        self._batch(self.parent, [_metric(name, value, now, 0) for name, value in counts.items()], {})
        self.client.set_terminated(self.parent, status)

    def _parent(self) -> str:
        earlier = self._runs(kind="study")
        if earlier:
            self.client.update_run(earlier[0].info.run_id, status="RUNNING")
            return str(earlier[0].info.run_id)
        tags = {
            "kind": "study",
            "study": self.study.name,
            "study_hash": self.study.study_hash,
            "mlflow.source.name": "study.launch",
            "mlflow.note.content": self.study.question,
        }
        run = self.client.create_run(self.experiment_id, run_name=self.study.name, tags=tags)
        return str(run.info.run_id)

    def _close_zombies(self) -> None:
        """Ends runs that a killed driver left half-written; their cells are logged again."""
        for run in self._runs():
            if run.info.status == "RUNNING" and run.info.run_id != self.parent:
                self.client.set_terminated(run.info.run_id, "KILLED")
                self.client.delete_run(run.info.run_id)

    def _runs(self, kind: str | None = None, variant_id: str | None = None) -> list[Run]:
        """The study's runs, or only those of one kind or variant."""
        tags = {"study_hash": self.study.study_hash, "kind": kind, "variant_id": variant_id}
        chosen = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items() if value is not None)
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], chosen, max_results=PAGE, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _create(self, name: str, tags: Mapping[str, str], begun: int) -> str:
        common = {
            "study_hash": self.study.study_hash,
            "mlflow.parentRunId": self.parent,
            "mlflow.source.name": "study.launch",
        }
        run = self.client.create_run(self.experiment_id, start_time=begun, run_name=name, tags={**common, **tags})
        return str(run.info.run_id)

    def _batch(self, run_id: str, metrics: list[Metric], params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        texts = [Param(name, str(value)[:6000]) for name, value in params.items()]
        self.client.log_batch(run_id, metrics=metrics, params=texts)


def _open(uri: str, store: Path, study: StudyTags) -> _View:
    import mlflow
    from mlflow.tracking import MlflowClient

    del mlflow
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with alone(uri) as database:
        if database is not None and not database.exists():
            _make_database(database, store)
        if uri == default_uri(store):
            follow_store(store)
        client = MlflowClient(tracking_uri=uri)
        experiment_id = _experiment(client, uri, store, study.name)
        for name, view in view_tags(study.study_hash).items():
            client.set_experiment_tag(experiment_id, name, view)
        _close_left_over(client, store, study.study_hash)
    return _View(client, study, experiment_id)


def _close_left_over(client: MlflowClient, store: Path, own: str) -> None:
    """Ends the runs of other studies of this store whose driver was killed: nobody holds their lock any more."""
    experiments = [str(one.experiment_id) for one in client.search_experiments()]
    running = "tags.kind = 'study' and attributes.status = 'RUNNING'"
    for run in client.search_runs(experiments, running, max_results=PAGE) if experiments else []:
        other = run.data.tags.get("study_hash", "")
        lock = store / LEDGER / f".{other}.lock"
        if other != own and other.isalnum() and lock.is_file():
            with suppress(Timeout), file_lock(lock).acquire(blocking=False):
                client.set_terminated(run.info.run_id, "KILLED")


def _experiment(client: MlflowClient, uri: str, store: Path, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    # A server chooses where to keep artifacts; without one they would land in the current folder.
    local = uri.partition("://")[0] not in ("http", "https", "databricks")
    location = (store / ARTIFACTS / name).as_uri() if local else None
    # Without the tag the page asks what kind of experiment this is.
    return str(client.create_experiment(name, location, tags={"mlflow.experimentKind": "custom_model_development"}))


def _make_database(path: Path, store: Path) -> None:
    """Makes an empty database completely or not at all: MLflow can neither use nor repair a half-made one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    prefix = f".{path.name}.making-"
    for left in path.parent.glob(f"{prefix}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
        made = Path(folder) / path.name
        SqlAlchemyStore(f"sqlite:///{made}", artifacts_uri(store)).engine.dispose()
        made.replace(path)


def _key(tags: Mapping[str, str]) -> tuple[str | None, ...]:
    return tags.get("cell_id"), tags.get("status"), tags.get("finished")


def _metrics(record: Record, begun: int, ended: int) -> Iterator[Metric]:
    """A record's metrics for MLflow: curves by epoch, then test, validation, cost and speed as single values."""
    curves = record.get("curves") or []
    for index, point in enumerate(curves):
        # Epochs have no time stamps: spread between the cell's start and end they give the right shape over time.
        moment = begun + (ended - begun) * (index + 1) // len(curves)
        for name, value in point.items():
            if name != "epoch" and _loggable(value):
                yield _metric(name, value, moment, point["epoch"])
    groups = {f"{split}.": record.get(split) or {} for split in SPLITS}
    groups["cost."] = record.get("cost") or {}
    groups[""] = {name: record.get(name) for name in COST_AND_SPEED}
    for prefix, values in groups.items():
        for name, value in values.items():
            if _loggable(value):
                yield _metric(prefix + name, value, ended, 0)


def _loggable(value: Any) -> bool:
    """Whether MLflow can log a value: numbers only, and no infinity, which it would store as 1.8e308."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isinf(value)


def _metric(name: str, value: float, timestamp: int, step: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(name, float(value), timestamp, step)


def _cell_params(record: Record, label: str) -> dict[str, Any]:
    params = {"variant": label, "dataset": record["dataset"], "seed": record["seed"]}
    params |= _variant_params(record["variant"])
    return params | {f"recipe.{name}": value for name, value in record["recipe"].items()}


def _variant_params(variant: Mapping[str, Any]) -> dict[str, Any]:
    """A variant as parameters: every axis, not only its differences, so that all runs have the same columns."""
    full = read_network(variant).to_dict()
    return {f"axis.{name}": json.dumps(value) if isinstance(value, list) else value for name, value in full.items()}


def _milliseconds(stamp: str | None) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1000) if stamp else _now()


def _now() -> int:
    return round(time.time() * 1000)
