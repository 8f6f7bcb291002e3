"""The record's schema: what a cell leaves behind, and the check of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analysis.metrics import METRICS
from analysis.records.predictions import SPLITS

Record = dict[str, Any]

SCHEMA = 1
# How a cell ended.
STATUSES = ("done", "failed", "stopped")
COSTS = ("params", "macs", "flops")
# What every record has, however its cell ended.
IDENTITY: dict[str, type | tuple[type, ...]] = {
    "cell_id": str,
    "variant_id": str,
    "recipe_id": str,
    "variant": dict,
    "recipe": dict,
    "dataset": str,
    "data_fingerprint": str,
    "seed": int,
    "numerics_version": int,
    "status": str,
}
# What a finished cell has in addition.
RESULTS: dict[str, type | tuple[type, ...]] = {
    "classes": list,
    "cost": dict,
    "validation": dict,
    "test": dict,
    "seconds": (int, float),
}


# The metrics of every record. One that was declared later is absent from older records, as if it were undefined there.
FIRST_METRICS = (
    "macro_f1",
    "macro_auc_ovr",
    "balanced_accuracy",
    "accuracy",
    "ece",
    "auprc_macro",
    "mcc",
    "brier",
)


# Added by the driver, hence absent from a record that has not passed through it.
DRIVER = ("study", "study_hash", "contrasts_hash", "variant_label")


def validate_record(record: Mapping[str, Any]) -> None:
    """Raises ValueError, one line, where a record departs from the schema; further keys are free."""
    schema = record.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise ValueError(f"record.schema must be {SCHEMA}, got {schema!r}")
    _require(record, IDENTITY)
    status = record["status"]
    if status not in STATUSES:
        raise ValueError(f"record.status must be one of {', '.join(STATUSES)}, got {status!r}")
    error = record.get("error")
    if status == "failed" and not (isinstance(error, Mapping) and {"type", "message"} <= set(error)):
        raise ValueError(f"record.error must have type and message in a failed record, got {shortened(error)}")
    if status != "done":
        return
    _require(record, RESULTS)
    for name in COSTS:
        _require_number(f"record.cost.{name}", record["cost"].get(name))
    for split in SPLITS:
        for name in FIRST_METRICS:
            if name not in record[split]:
                raise ValueError(f"record.{split}.{name} must be there, got {', '.join(record[split]) or 'nothing'}")
        for name in METRICS:
            if record[split].get(name) is not None:
                _require_number(f"record.{split}.{name}", record[split][name])
        rows = record[split].get("per_class")
        if not isinstance(rows, list) or len(rows) != len(record["classes"]):
            count = len(record["classes"])
            raise ValueError(f"record.{split}.per_class must have {count} rows, one per class, got {shortened(rows)}")


def _require(record: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, kinds in fields.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        value = record.get(name)
        # In Python True is an int; in a record it is not a number.
        if not isinstance(value, kinds) or isinstance(value, bool):
            came = shortened(value) if name in record else "no such key"
            raise ValueError(f"record.{name} must be {' or '.join(kind.__name__ for kind in kinds)}, got {came}")


def _require_number(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise ValueError(f"{where} must be a finite number, got {shortened(value)}")


def shortened(value: Any) -> str:
    """A value as an error shows it: its repr, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
