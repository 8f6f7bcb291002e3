"""Evidence of one study, read from a store once: what it asked, its cells as a table, and their records."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.metrics import LOWER_IS_BETTER, METRICS
from analysis.records.ledger import absent_cells as absent_cells_of
from analysis.records.ledger import load_ledger, load_manifest, read_records
from analysis.records.lines import Reading
from analysis.records.places import ledger_folder
from analysis.records.schema import Record
from analysis.records.sources import files_by_source, manifest_sources, told
from analysis.records.table import sources_of
from analysis.verdicts.revisions import TOLD

# Parts of a record that no section reads, half of its size: the table has what is shown of them.
LEFT_OUT = {"validation", "recipe"}
DEFAULT_METRICS = ("macro_auc_ovr", "macro_f1")


@dataclass(frozen=True)
class Evidence:
    """A study's manifest, table (one row per cell) and records (by cell_id), with its variants, data sets and seeds.

    Records lack the keys in `LEFT_OUT`. told: the keys in `TOLD` of every record of the ledger, of whatever study.
    variants: variant_id → label, in the study's order. baseline: the variant most contrasts start from, None where
    nothing says so. metrics: those the contrasts (or a search) name, the first of them the primary one.
    """

    folder: Path
    told: tuple[Record, ...]
    manifest: dict[str, Any]
    table: pd.DataFrame
    records: dict[str, Record]
    variants: dict[str, str]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str | None
    metrics: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def is_search(self) -> bool:
        """Whether variants were chosen by looking at results, which makes the best look better than they are."""
        return (self.manifest.get("strategy") or {}).get("name", "grid") != "grid"

    @property
    def contrasts(self) -> list[dict[str, Any]]:
        return list(self.manifest.get("contrasts") or [])

    @property
    def sources(self) -> dict[str, str]:
        """The source of each data set, its own name where nothing says another."""
        known = {**sources_of(self.table), **manifest_sources(self.manifest)}
        return {name: known.get(name, name) for name in self.datasets}

    @property
    def n_sources(self) -> int:
        return len(files_by_source(self.datasets, self.sources))

    @property
    def shared_sources(self) -> str:
        """A sentence part on data sets that share a source and count once; empty where there are none."""
        return told(self.datasets, self.sources)

    def done(self) -> pd.DataFrame:
        """The rows of finished cells."""
        return self.table[self.table["status"] == "done"]

    def chosen(self, limit: int) -> list[str]:
        """At most `limit` variants to draw, in the study's order.

        The baseline and what it is compared with come first, then the best by the primary metric's mean on validation,
        never on test.
        """
        names = [c[side] for c in self.contrasts for side in ("baseline", "against")]
        if self.baseline is not None:
            names.insert(0, self.baseline)
        done, column = self.done(), f"validation.{self.metrics[0]}"
        finished = set(done["variant_id"])
        if column in done:
            means = done.groupby("variant_id")[column].mean()
            lower = self.metrics[0] in LOWER_IS_BETTER
            names += list(means.sort_values(ascending=lower, kind="stable").index)
        else:
            # Results of others, who publish none: in their order.
            names += list(self.variants)
        first = list(dict.fromkeys(name for name in names if name in finished))[:limit]
        return [variant_id for variant_id in self.variants if variant_id in first]

    def modality(self, dataset: str) -> str:
        """A data set's kind of image, from its records; empty where none says."""
        return str(self._known(dataset, "modality") or "")

    def classes(self, dataset: str) -> list[str]:
        """The names of a data set's classes, from its records; none where none says."""
        return [str(name) for name in self._known(dataset, "classes") or []]

    def _known(self, dataset: str, key: str) -> Any:
        values = (r.get(key) for r in self.records.values() if r["dataset"] == dataset)
        return next((value for value in values if value), None)


def load_evidence(store: Path | str, study: str, *, reading: Reading | None = None) -> Evidence:
    """The evidence of a study, by name or hash. Raises ValueError, one line naming the known studies, for another.

    reading: the result of `read_records` for this store, if it has already been read.
    """
    with _uncollected():
        return _evidence(ledger_folder(store), study, reading)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Context in which nothing is looked through for garbage: thousands of records are made, none of which is any."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _evidence(folder: Path, study: str, reading: Reading | None) -> Evidence:
    manifest = load_manifest(folder, study)
    reading = read_records(folder) if reading is None else reading
    table = load_ledger(folder, study=manifest["study_hash"], records=reading)
    wanted = set(table["cell_id"])
    records = {
        r["cell_id"]: {key: value for key, value in r.items() if key not in LEFT_OUT}
        for r in reading.records
        if r["cell_id"] in wanted
    }
    seen = dict(zip(table["variant_id"], table["variant_label"]))
    return Evidence(
        folder=folder,
        told=tuple({key: r.get(key) for key in TOLD} for r in reading.records),
        manifest=manifest,
        table=table,
        records=records,
        variants=dict(manifest.get("variants") or {}) | seen,
        datasets=tuple(dict.fromkeys([*(manifest.get("datasets") or ()), *table["dataset"]])),
        seeds=tuple(dict.fromkeys([*(manifest.get("seeds") or ()), *table["seed"]])),
        baseline=_baseline(manifest, seen),
        metrics=_metrics(manifest),
    )


def absent_cells(evidence: Evidence) -> pd.DataFrame:
    """The cells of a study without a result, one row each, as `analysis.records.absent_cells` lists them."""
    return absent_cells_of(evidence.table, evidence.manifest)


def _baseline(manifest: dict[str, Any], seen: dict[str, str]) -> str | None:
    named = [c["baseline"] for c in manifest.get("contrasts") or []]
    if named:
        return str(max(named, key=named.count))
    labels = dict(manifest.get("variants") or {}) | seen
    return next((variant_id for variant_id, label in labels.items() if label == "baseline"), None)


def _metrics(manifest: dict[str, Any]) -> tuple[str, ...]:
    named = [c["metric"] for c in manifest.get("contrasts") or []]
    named += (manifest.get("strategy") or {}).get("objectives") or []
    known = [name for name in dict.fromkeys([*named, *DEFAULT_METRICS]) if name in METRICS]
    return tuple(known)
