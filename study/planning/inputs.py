"""Data sets of a study, read before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.cells import DataRef
from study.data import DatasetInfo, open_source
from study.definition import Study


@dataclass(frozen=True)
class Inputs:
    """A study's data sets by name: references for cells, and descriptions."""

    refs: Mapping[str, DataRef]
    infos: Mapping[str, DatasetInfo]


def read_inputs(study: Study) -> Inputs:
    """The data sets of a study, each read and hashed. Raises ValueError, one line, for what is wrong with a file."""
    specs = study.sources()
    infos = {name: open_source(specs[name]).describe(name) for name in study.datasets}
    refs = {name: DataRef(name, info.fingerprint, specs[name]) for name, info in infos.items()}
    return Inputs(refs, infos)
