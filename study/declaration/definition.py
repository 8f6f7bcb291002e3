"""Definition of a study: values that never change once the file is read (see `study.file.reading`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.hashes import content_hash, declaration_hash
from analysis.verdicts.levels import IN_GENERAL
from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import AXES
from medmamba_variants.design.kinds import to_json
from medmamba_variants.networks import Network
from study.declaration.cells import NUMERICS_VERSION, Cell, DataRef
from study.declaration.racing import RACING
from study.declaration.recipe import Recipe

GRID = "grid"


@dataclass(frozen=True)
class Range:
    """Values that a search may propose: from low to high, both included, optionally in steps or on a log scale."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The range as plain JSON values."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


@dataclass(frozen=True)
class StrategyChoice:
    """The choice of a strategy in the file: `settings` are the sampler's or the race's, the rest a search's."""

    name: str = GRID
    trials: int = 0
    seed: int = 0
    max_macs: float | None = None
    objectives: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_grid(self) -> bool:
        """Whether all variants are known before the study runs, though a race may not run all their cells."""
        return self.name in (GRID, RACING)

    def to_dict(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        if self.name == GRID:
            return {"name": GRID}
        if self.name == RACING:
            return {"name": RACING, "seed": self.seed, **self.settings}
        chosen = {"name": self.name, "trials": self.trials, "seed": self.seed, "max_macs": self.max_macs}
        return {**chosen, **self.settings, "objectives": list(self.objectives)}


@dataclass(frozen=True)
class Tuning:
    """Recipes from which every variant gets the one that is best on validation, by the same number of trials.

    axes: the settings tried, every combination of which is a recipe. seeds: those of the trials, none of them a seed of
    the study. datasets: those of the trials; empty: all of the study. metric: the validation metric that chooses,
    averaged over data sets and seeds.
    """

    axes: Mapping[str, tuple[Any, ...]]
    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    metric: str
    datasets: tuple[str, ...] = ()

    def settings(self) -> list[dict[str, Any]]:
        """What each recipe sets, in the order of `recipes`."""
        return [{name: getattr(recipe, name) for name in self.axes} for recipe in self.recipes]

    def to_dict(self) -> dict[str, Any]:
        """What was declared, as plain JSON values."""
        axes = {name: list(values) for name, values in self.axes.items()}
        some = {"datasets": list(self.datasets)} if self.datasets else {}
        return {"axes": axes, "seeds": list(self.seeds), **some, "metric": self.metric}


@dataclass(frozen=True)
class Study:
    """One question and all that is needed to answer it; made by `load_study`, never changed.

    `matched`: how variants were scaled to equal cost (`study.file.matching`). `own_sources`: by data set, the
    collection that the file's `sources` names in place of what is known of it. `hypothesis`, `controls` and `caveat`
    are for readers: like the question they are in no hash.
    """

    name: str
    question: str
    path: Path
    text: str
    base_name: str
    base: VariantConfig
    axes: Mapping[str, tuple[Any, ...] | Range]
    grid: tuple[tuple[str, Network], ...]
    strategy: StrategyChoice
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    source: Mapping[str, Any]
    recipe: Recipe
    contrasts: tuple[Contrast, ...]
    alpha: float
    correction: str
    own_sources: Mapping[str, str] = field(default_factory=dict)
    hypothesis: str = ""
    controls: str = ""
    caveat: str = ""
    matched: Mapping[str, Any] | None = None
    tuning: Tuning | None = None

    @property
    def is_grid(self) -> bool:
        """Whether all variants are known before the study runs."""
        return self.strategy.is_grid

    def variants(self) -> list[tuple[str, Network]]:
        """The variants of a grid as (label, variant), in the file's order; empty for a search."""
        return list(self.grid)

    def label(self, variant: Network) -> str:
        """A variant's label in tables and figures of this study."""
        for label, known in self.grid:
            if known == variant:
                return label
        return variant.label(self.base)

    def cells_of(self, variant: Network, refs: Mapping[str, DataRef], recipe: Recipe | None = None) -> list[Cell]:
        """The cells of one variant under a recipe, by default the study's: all data sets, seed by seed."""
        recipe = recipe or self.recipe
        return [Cell(variant, recipe, refs[name], seed) for seed in self.seeds for name in self.datasets]

    def cells(self, refs: Mapping[str, DataRef]) -> Iterator[Cell]:
        """All cells of a grid: seeds outermost, then data sets, then variants.

        Whenever a study is stopped early, what has run thus compares (nearly) all variants on equal data sets and
        seeds.
        """
        for seed in self.seeds:
            for name in self.datasets:
                for _, variant in self.grid:
                    yield Cell(variant, self.recipe, refs[name], seed)

    def sources(self) -> dict[str, dict[str, Any]]:
        """The specs of data sets' sources, by name, for `study.data.sources.open_source`. Raises ValueError."""
        from study.data.sources import source_for

        settings = dict(self.source)
        return source_for(self.datasets, settings.pop("root", None), settings.pop("kind", None), **settings)

    def source_keys(self, refs: Mapping[str, DataRef] | None = None) -> dict[str, str]:
        """The collection that each data set comes from, by name; without `refs` as far as the file says."""
        known = {name: ref.source_key for name, ref in (refs or {}).items()}
        return {name: self.own_sources.get(name, known.get(name, name)) for name in self.datasets}

    def check_source(self) -> None:
        """Raises ValueError for a setting of the source that would have no effect on any data set."""
        kinds = self.sources()
        files = [spec for spec in kinds.values() if spec["kind"] != "phantom"]
        for key, value in self.source.items():
            if not any(key in spec for spec in files):
                found = ", ".join(f"{name}: {spec['kind']}" for name, spec in kinds.items())
                raise ValueError(
                    f"{self.path}: source.{key} must be left out where no data set uses it, got {value!r} ({found})"
                )

    @property
    def study_hash(self) -> str:
        """Content hash of everything that decides what runs and how it is judged; wording and paths do not count."""
        return content_hash(
            {
                "name": self.name,
                "base": self.base.diff(),
                "axes": self._axes_json(),
                "variants": [[label, variant.variant_id] for label, variant in self.grid],
                "strategy": self.strategy.to_dict(),
                "seeds": list(self.seeds),
                "datasets": list(self.datasets),
                "source": {key: value for key, value in self.source.items() if key not in ("root", "cache")},
                "recipe": self.recipe.recipe_id,
                "contrasts": self.contrasts_hash,
                **({} if self.matched is None else {"match": {**self.matched, "variants": None}}),
                **({} if self.tuning is None else {"tuning": self.tuning.to_dict()}),
            }
        )

    @property
    def contrasts_hash(self) -> str:
        """Content hash of what was declared: contrasts with their margins, alpha, correction, and sources if named."""
        contrasts = [contrast.to_dict() for contrast in self.contrasts]
        return declaration_hash(contrasts, self.alpha, self.correction, self.own_sources)

    def search_hash(self, refs: Mapping[str, DataRef]) -> str:
        """Content hash of everything that must not change for a search to build on its earlier proposals.

        The number of trials is not part of it, so that a search can be extended; the content of the data sets is.
        """
        strategy = {key: value for key, value in self.strategy.to_dict().items() if key != "trials"}
        return content_hash(
            {
                "base": self.base.diff(),
                "axes": self._axes_json(),
                "strategy": strategy,
                "seeds": list(self.seeds),
                "data": [refs[name].fingerprint for name in self.datasets],
                "recipe": self.recipe.recipe_id,
                "numerics": NUMERICS_VERSION,
            }
        )

    def manifest(
        self,
        cell_ids: Iterable[str] | None = None,
        refs: Mapping[str, DataRef] | None = None,
        audits: Mapping[str, Any] | None = None,
        tuned: Mapping[str, Any] | None = None,
        raced: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The study's manifest for the ledger: its file word for word and what was declared, in plain JSON values.

        refs: its data sets by name, for the source of each. audits: what was found in its data sets.
        tuned: what was tried and chosen, where recipes are tuned. raced: who was dropped when, where variants race; a
        dropped variant is none of the study's any more.
        """
        dropped = {drop["variant_id"] for drop in (raced or {}).get("dropped", ())}
        return {
            "schema": 1,
            "name": self.name,
            "study_hash": self.study_hash,
            "contrasts_hash": self.contrasts_hash,
            "question": self.question,
            "hypothesis": self.hypothesis,
            "controls": self.controls,
            "caveat": self.caveat,
            "file": str(self.path),
            "file_text": self.text,
            "base_name": self.base_name,
            "base": self.base.diff(),
            "axes": self._axes_json(),
            "meanings": self._meanings(),
            "variants": {v.variant_id: label for label, v in self.grid if v.variant_id not in dropped},
            "strategy": self.strategy.to_dict(),
            "seeds": list(self.seeds),
            "datasets": list(self.datasets),
            "source": dict(self.source),
            "recipe": self.recipe.to_dict(),
            "contrasts": [contrast.to_dict() for contrast in self.contrasts],
            "alpha": self.alpha,
            "correction": self.correction,
            "cell_ids": None if cell_ids is None else list(cell_ids),
            "source_keys": self.source_keys(refs),
            **({} if self.matched is None else {"matched": dict(self.matched)}),
            **({} if tuned is None else {"tuning": dict(tuned)}),
            **({} if raced is None else {"racing": dict(raced)}),
            **({"sources": dict(self.own_sources)} if self.own_sources else {}),
            "audits": dict(audits or {}),
        }

    def _meanings(self) -> dict[str, str]:
        """What each axis means that the study varies, or that its base or a side of a contrast sets."""
        sides = [side for contrast in self.contrasts for side in (contrast.baseline, contrast.against)]
        names = {*self.axes, *(name for variant in (self.base, *sides) for name in variant.diff())}
        return {name: axis.meaning for name, axis in AXES.items() if name in names}

    def _axes_json(self) -> dict[str, Any]:
        return {
            name: values.to_dict() if isinstance(values, Range) else to_json(values)
            for name, values in self.axes.items()
        }


@dataclass(frozen=True)
class Contrast:
    """A declared comparison of two variants: is `against` better than `baseline` by the test metric?

    Differences within the margin count as none. The contrasts of a family share one correction for multiplicity.
    `level`: whether it asks about data sets in general or about the study's own.
    """

    name: str
    baseline: Network
    against: Network
    baseline_label: str
    against_label: str
    metric: str
    margin: float
    family: str
    kind: str
    level: str = IN_GENERAL

    def to_dict(self) -> dict[str, Any]:
        """The contrast as plain JSON values; variants by their ids and their differences from MedMamba-T."""
        return {
            "name": self.name,
            "baseline": self.baseline.variant_id,
            "against": self.against.variant_id,
            "baseline_label": self.baseline_label,
            "against_label": self.against_label,
            "baseline_variant": self.baseline.diff(),
            "against_variant": self.against.diff(),
            "metric": self.metric,
            "margin": self.margin,
            "family": self.family,
            "kind": self.kind,
            # Where it is the default, what was declared before there were levels keeps its hash.
            **({} if self.level == IN_GENERAL else {"level": self.level}),
        }
