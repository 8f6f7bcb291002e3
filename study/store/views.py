"""Views of a study's runs on MLflow's pages, by the name in a page's address.

Flat, best first, and with informative columns: the default is one folded row per study. Each view is a tag of the
experiment, in the form in which MLflow keeps a view shared between users.
"""

from __future__ import annotations

import json
from typing import Any

VIEW_TAG = "mlflow.sharedViewState."
VIEWS: dict[str, dict[str, Any]] = {
    "cells": {
        "searchFilter": "tags.kind = 'cell'",
        "orderByKey": "metrics.`test.macro_auc_ovr`",
        "orderByAsc": False,
        "selectedColumns": [
            "attributes.`Duration`",
            *(f"params.`{name}`" for name in ("variant", "dataset", "seed")),
            *(f"metrics.`{name}`" for name in ("test.macro_f1", "test.macro_auc_ovr", "cost.params", "cost.macs")),
        ],
    },
    "variants": {
        "searchFilter": "tags.kind = 'summary'",
        "orderByKey": "metrics.`avg.macro_auc_ovr`",
        "orderByAsc": False,
        "selectedColumns": [
            "params.`variant`",
            "tags.`interval_over`",
            *(f"metrics.`{part}.{name}`" for name in ("macro_f1", "macro_auc_ovr") for part in ("avg", "low", "high")),
            *(f"metrics.`{name}`" for name in ("n_cells", "params", "macs")),
        ],
    },
}


def view_tags(study_hash: str) -> dict[str, str]:
    """The experiment's tags with the views of one study's runs: another study may have the same name."""
    return {
        VIEW_TAG + name: json.dumps(
            view | {"searchFilter": f"{view['searchFilter']} and tags.study_hash = '{study_hash}'"}
        )
        for name, view in VIEWS.items()
    }
