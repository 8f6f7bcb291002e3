"""Contrasts as they were declared: read from the manifests that a ledger keeps, never from today's study file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from analysis.across.multiplicity import CORRECTIONS, Correction
from analysis.metrics import METRICS, is_quoted
from analysis.records.manifests import declaring_manifest
from analysis.records.places import records_folder
from analysis.records.sources import manifest_sources
from analysis.verdicts.levels import DECLARED_LEVELS, IN_GENERAL

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("confirmatory", "exploratory")
DEFAULT_ALPHA = 0.05
DEFAULT_CORRECTION: Correction = "holm"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A declared comparison of two variants (ids): is `against` better than `baseline` by a test metric?

    Differences are against − baseline; within the margin the two are equivalent. The contrasts of one family and
    kind share a correction. margin 0: none was declared, so nothing is found equivalent. level: whether data sets are
    drawn anew ("in general") or fixed ("these data sets"). contrasts_hash: that of the declaration it comes from, None
    for a contrast that nobody declared.
    """

    name: str
    baseline: str
    against: str
    metric: str
    margin: float = 0.0
    baseline_label: str = ""
    against_label: str = ""
    family: str = "primary"
    kind: str = "confirmatory"
    level: str = IN_GENERAL
    contrasts_hash: str | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS and not is_quoted(self.metric):
            raise ValueError(f"contrast.metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        if not 0 <= self.margin < 1:
            raise ValueError(f"contrast.margin must be between 0 and 1, got {self.margin!r}")
        if self.kind not in KINDS:
            raise ValueError(f"contrast.kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.level not in DECLARED_LEVELS:
            raise ValueError(f"contrast.level must be one of {', '.join(DECLARED_LEVELS)}, got {self.level!r}")
        if self.baseline == self.against:
            raise ValueError(f"contrast.against must differ from baseline, got {self.against!r} twice")
        for side in ("baseline", "against"):
            if not getattr(self, f"{side}_label"):
                object.__setattr__(self, f"{side}_label", getattr(self, side))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], contrasts_hash: str | None = None) -> Contrast:
        """A contrast as a manifest holds it. Raises ValueError for a missing or bad value."""
        needed = ("name", "baseline", "against", "metric")
        missing = [name for name in needed if name not in value]
        if missing:
            raise ValueError(f"contrast must have name, baseline, against and metric, got no {', '.join(missing)}")
        for name in needed:
            if not isinstance(value[name], str):
                raise ValueError(f"contrast.{name} must be one text, got {value[name]!r}")
        margin = value.get("margin", 0.0)
        if isinstance(margin, bool) or not isinstance(margin, int | float):
            raise ValueError(f"contrast.margin must be a number, got {margin!r}")
        return cls(
            name=value["name"],
            baseline=value["baseline"],
            against=value["against"],
            metric=value["metric"],
            margin=float(margin),
            baseline_label=str(value.get("baseline_label", "")),
            against_label=str(value.get("against_label", "")),
            family=str(value.get("family", "primary")),
            kind=str(value.get("kind", "confirmatory")),
            level=str(value.get("level", IN_GENERAL)),
            contrasts_hash=contrasts_hash,
        )

    def asks_like(self, other: Contrast) -> bool:
        """Whether another contrast has the same variants and metric, whatever its margin, level, name or family."""
        return (self.baseline, self.against, self.metric) == (other.baseline, other.against, other.metric)


@dataclass(frozen=True)
class Declaration:
    """What a study declared before it ran: its contrasts, the error rate of a family of them, and its correction.

    sources: by data set, the collection that it comes from; the data sets of one count once.
    """

    contrasts_hash: str | None
    contrasts: tuple[Contrast, ...]
    alpha: float = DEFAULT_ALPHA
    correction: Correction = DEFAULT_CORRECTION
    sources: Mapping[str, str] = field(default_factory=dict)

    def family_size(self, contrast: Contrast) -> int:
        """How many contrasts share the correction of this one, itself included; 1 for one that is not declared here."""
        return max(1, sum((c.family, c.kind) == (contrast.family, contrast.kind) for c in self.contrasts))


@dataclass(frozen=True)
class Declared:
    """A contrast with the declaration that it is judged by, why it is only exploratory, and notes."""

    contrast: Contrast
    declaration: Declaration
    reasons: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


def read_declaration(manifest: Mapping[str, Any]) -> Declaration:
    """A manifest's declaration. Raises ValueError, one line, for one that breaks the rules."""
    contrasts_hash = manifest.get("contrasts_hash")
    alpha = manifest.get("alpha", DEFAULT_ALPHA)
    correction = str(manifest.get("correction", DEFAULT_CORRECTION))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise ValueError(f"manifest.alpha must be between 0 and 0.5, got {alpha!r}")
    if correction not in CORRECTIONS:
        raise ValueError(f"manifest.correction must be one of {', '.join(CORRECTIONS)}, got {correction!r}")
    found = tuple(Contrast.from_dict(value, contrasts_hash) for value in manifest.get("contrasts") or [])
    return Declaration(contrasts_hash, found, alpha, cast(Correction, correction), manifest_sources(manifest))


def stored_declaration(folder: Path | str, contrasts_hash: str) -> Declaration | None:
    """The declaration with this hash among the manifests of a ledger; None when no stored study made it."""
    place, artifacts = records_folder(folder)
    if artifacts:
        return None
    manifest = declaring_manifest(place, contrasts_hash)
    return None if manifest is None else read_declaration(manifest)


def as_declared(contrast: Contrast, declaration: Declaration, table: pd.DataFrame, folder: Path | str) -> Declared:
    """The contrast as it stood when its cells ran, by the hash that their records carry.

    Where all cells of the variant under test (`against`) ran under another stored declaration of this contrast, that
    one's margin, family, α, correction and sources hold, whatever the study file says today. Where they ran under
    several, or under one without this contrast, it is exploratory, and the cells are named. The baseline may be shared:
    whoever declares a contrast before its other side has run cannot know the outcome, so baseline cells that ran under
    other declarations are only mentioned.
    """
    if contrast.contrasts_hash is None:
        return Declared(contrast, declaration, ("it was not declared",))
    cells = _finished(table, contrast.against)
    hashes = {value if isinstance(value, str) else None for value in cells["contrasts_hash"]}
    if len(hashes) == 1 and hashes != {contrast.contrasts_hash}:
        (other,) = hashes
        earlier = None if other is None else stored_declaration(folder, other)
        for asked in earlier.contrasts if earlier is not None else ():
            if earlier is not None and asked.asks_like(contrast):
                held = replace(earlier, sources={**declaration.sources, **earlier.sources})
                return Declared(asked, held, notes=_changes(contrast, declaration, asked, held))
    return _under(contrast, declaration, table)


def under_its_hash(contrast: Contrast, table: pd.DataFrame, folder: Path | str | None) -> Declared:
    """A contrast on its own as it stood when its cells ran; a stored declaration with its hash takes precedence.

    A contrast that this declaration does not make is exploratory; for one that it makes, the declared margin holds.
    """
    alone = Declaration(contrast.contrasts_hash, (contrast,))
    if contrast.contrasts_hash is None:
        return Declared(contrast, alone, ("it was not declared",))
    stored = None if folder is None else stored_declaration(folder, contrast.contrasts_hash)
    if stored is None:
        return _under(contrast, alone, table)
    asked = next((asked for asked in stored.contrasts if asked.asks_like(contrast)), None)
    if asked is None:
        return Declared(contrast, alone, (f"its declaration ({contrast.contrasts_hash}) does not ask it",))
    found = _under(asked, stored, table)
    same = asked.margin == contrast.margin
    told = () if same else (f"judged by the declared margin {asked.margin:g}, not {contrast.margin:g}",)
    return replace(found, notes=(*found.notes, *told))


def _under(contrast: Contrast, declaration: Declaration, table: pd.DataFrame) -> Declared:
    reasons, notes = [], []
    if contrast.kind == "exploratory":
        reasons.append("it was declared so")
    strangers = _strangers(table, contrast.against, contrast.contrasts_hash)
    if strangers:
        reasons.append(f"cells of {contrast.against_label} ran under another declaration ({strangers})")
    strangers = _strangers(table, contrast.baseline, contrast.contrasts_hash)
    if strangers:
        notes.append(f"cells of the baseline {contrast.baseline_label} ran under another declaration ({strangers})")
    return Declared(contrast, declaration, tuple(reasons), tuple(notes))


def _strangers(table: pd.DataFrame, variant_id: str, contrasts_hash: str | None) -> str:
    """The finished cells of a variant that ran under another declaration, named; empty where there are none."""
    cells = _finished(table, variant_id)
    cells = cells[cells["contrasts_hash"] != contrasts_hash]
    parts = []
    for found, here in cells.groupby(cells["contrasts_hash"].fillna("none"), sort=False):
        places = []
        for dataset, rows in here.groupby("dataset", sort=False):
            seeds = ", ".join(str(seed) for seed in sorted(rows["seed"]))
            places.append(f"{dataset} seed{'s' if len(rows) > 1 else ''} {seeds}")
        shown = places if len(places) <= 4 else [*places[:3], f"{len(places) - 3} more data sets"]
        parts.append(f"{found}: {'; '.join(shown)}")
    return " and ".join(parts)


def _finished(table: pd.DataFrame, variant_id: str) -> pd.DataFrame:
    cells = table[(table["variant_id"] == variant_id) & (table["status"] == "done")]
    return cells if "contrasts_hash" in cells else cells.assign(contrasts_hash=None)


def _changes(today: Contrast, now: Declaration, asked: Contrast, then: Declaration) -> tuple[str, ...]:
    """What the study file says today that the cells' declaration did not."""
    pairs = [(name, getattr(asked, name), getattr(today, name)) for name in ("margin", "family", "kind", "level")]
    pairs += [("α", then.alpha, now.alpha), ("correction", then.correction, now.correction)]
    pairs.append(("contrasts in its family", then.family_size(asked), now.family_size(today)))
    moved = [name for name, key in now.sources.items() if then.sources.get(name, name) != key]
    pairs += [(f"source of {name}", then.sources.get(name, name), now.sources[name]) for name in moved]
    changed = [f"{name} {before} (now {after})" for name, before, after in pairs if before != after]
    shown = ", ".join(changed) or "as it stands now"
    return (f"judged as declared when its cells ran ({then.contrasts_hash}): {shown}",)
