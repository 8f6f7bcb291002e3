"""What a study reads before it runs: its data sets, and the costs of its variants on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import Cost, count_cost
from study.cells import DataRef
from study.data import DatasetInfo, open_source
from study.definition import Study

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Inputs:
    """A study's data sets, by name, as cells refer to them and as they describe themselves."""

    refs: Mapping[str, DataRef]
    infos: Mapping[str, DatasetInfo]


def read_inputs(study: Study) -> Inputs:
    """The study's data sets, each read and hashed. Raises ValueError, one line, for what is wrong with a file."""
    specs = study.sources()
    infos = {name: open_source(specs[name]).describe(name) for name in study.datasets}
    refs = {name: DataRef(name, info.fingerprint, specs[name]) for name, info in infos.items()}
    return Inputs(refs, infos)


class Costs:
    """What variants cost on the study's data sets, for one image."""

    def __init__(self, study: Study, inputs: Inputs) -> None:
        self._study = study
        self._infos = inputs.infos

    def of(self, variant: VariantConfig, dataset: str) -> Cost:
        """The cost of a variant on a data set. Raises ValueError where the variant cannot read its images."""
        info = self._infos[dataset]
        size = self._study.recipe.size_for(info.image_size)
        return count_cost(variant, image_size=size, num_classes=len(info.classes), in_channels=info.channels)

    def macs(self, variant: VariantConfig, dataset: str) -> float:
        """Multiply-adds of one forward pass."""
        return float(self.of(variant, dataset).macs)

    def check(self) -> None:
        """Raises ValueError, naming file, variant and data set, where a variant of the grid cannot read the images."""
        for label, variant in self._study.variants():
            for name in self._study.datasets:
                try:
                    self.of(variant, name)
                except ValueError as error:
                    raise ValueError(f"{self._study.path}: variant {label} on {name}: {error}") from None
