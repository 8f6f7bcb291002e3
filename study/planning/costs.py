"""Costs of a study's variants on its data sets, for one image."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from analysis.words import listed, share
from medmamba_variants.cost import Cost
from medmamba_variants.networks import Network, network_cost
from study.data import DatasetInfo
from study.declaration.definition import Study


class Costs:
    """Costs of variants on a study's data sets, which `infos` describes by name."""

    def __init__(self, study: Study, infos: Mapping[str, DatasetInfo]) -> None:
        self._study = study
        self._infos = infos

    def of(self, variant: Network, dataset: str) -> Cost:
        """The cost of a variant on a data set. Raises ValueError where the variant cannot take its images."""
        info = self._infos[dataset]
        size = self._study.recipe.size_for(info.image_size)
        return network_cost(variant, image_size=size, num_classes=len(info.classes), in_channels=info.channels)

    def macs(self, variant: Network, dataset: str) -> float:
        """Multiply-accumulates of one forward pass of a variant on an image of a data set."""
        return float(self.of(variant, dataset).macs)

    def beyond_tolerance(self) -> str | None:
        """A sentence on matched variants whose costs differ on the study's own images; None where none does."""
        found = self._study.matched
        if found is None:
            return None
        means = {
            label: fmean(getattr(self.of(network, name), found["measure"]) for name in self._study.datasets)
            for label, network in self._study.variants()
        }
        target = means[found["baseline"]]
        off = {label: mean / target for label, mean in means.items() if abs(mean / target - 1) > found["tolerance"]}
        if not off:
            return None
        named = listed([f"{label} {share(ratio, 2)} ×" for label, ratio in off.items()])
        return (
            f"on the study's images the {found['measure']} are not equal: {named} those of {found['baseline']} "
            f"(matched at {found['image_size']} pixels; match.image_size sets them)"
        )

    def check(self) -> None:
        """Raises ValueError, naming file, variant and data set, where a variant of the grid cannot take the images."""
        for label, variant in self._study.variants():
            for name in self._study.datasets:
                try:
                    self.of(variant, name)
                except ValueError as error:
                    raise ValueError(f"{self._study.path}: variant {label} on {name}: {error}") from None
