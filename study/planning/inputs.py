"""Data sets of a study, read before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from analysis.metrics import METRICS
from analysis.tasks import TASKS, Task
from study.data import DatasetInfo, open_source
from study.data.sources import image_bytes
from study.declaration.cells import DataRef
from study.declaration.definition import Study


@dataclass(frozen=True)
class Inputs:
    """A study's data sets by name: references for cells, and descriptions, with the sources that the study names.

    image_bytes: bytes of images that a process holds, and that are mapped from a file.
    """

    refs: Mapping[str, DataRef]
    infos: Mapping[str, DatasetInfo]
    image_bytes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_inputs(study: Study) -> Inputs:
    """The data sets of a study, each read and hashed. Raises ValueError, one line, for what is wrong with a file."""
    specs = study.sources()
    found: dict[str, DatasetInfo] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for name in study.datasets:
        source = open_source(specs[name])
        found[name] = source.describe(name)
        sizes[name] = image_bytes(source.load(name))
    _refuse_undefined(study, {name: TASKS[info.task] for name, info in found.items()})
    infos = {
        name: replace(info, source_key=study.own_sources.get(name, info.source_key)) for name, info in found.items()
    }
    refs = {name: DataRef(name, info.fingerprint, specs[name], info.source_key) for name, info in infos.items()}
    return Inputs(refs, infos, sizes)


def _refuse_undefined(study: Study, tasks: Mapping[str, Task]) -> None:
    """Raises ValueError, one line, for a metric of the study that is not defined for every data set's task."""
    asked = {f"contrasts.{contrast.name}.metric": contrast.metric for contrast in study.contrasts}
    asked |= {f"strategy.objectives.{name}": name for name in study.strategy.objectives if name in METRICS}
    if study.tuning is not None:
        asked["tuning metric"] = study.tuning.metric
    for place, metric in asked.items():
        for name, task in tasks.items():
            if not task.defines(metric):
                shared = [other for other in METRICS if all(each.defines(other) for each in tasks.values())]
                raise ValueError(
                    f"{study.path}: {place} must be defined for the task of every data set ({', '.join(shared)}), got "
                    f"{metric}, which is not for {name} ({task.words})"
                )
