"""Content hashes: names that change exactly when what they name does."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

ID_LENGTH = 16


def content_hash(value: Any) -> str:
    """Sixteen hexadecimal digits that depend on the JSON content of `value` and nothing else."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def declaration_hash(
    contrasts: Sequence[Mapping[str, Any]],
    alpha: float,
    correction: str,
    sources: Mapping[str, str] | None = None,
) -> str:
    """The hash of what a study declares: its contrasts with their margins and families, α, and the correction.

    sources: those of data sets that the study itself names, since they decide what counts as one; without any the hash
    is what it was before there were sources.
    """
    declared: dict[str, Any] = {"contrasts": list(contrasts), "alpha": alpha, "correction": correction}
    return content_hash({**declared, "sources": dict(sources)} if sources else declared)
