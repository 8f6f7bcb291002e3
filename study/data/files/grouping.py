"""Groups of images by a table beside them: `groups.csv` with the columns image and group (a patient, say)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from study.data.files.samples import Sample
from study.data.files.sheet import as_path, read_sheet
from study.data.names import difference, normal

GROUPS_FILE = "groups.csv"


def with_groups(folder: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Samples with their groups, or as they are where the folder has no table of groups.

    Raises ValueError for a file without a group or with two.
    """
    path = folder / GROUPS_FILE
    if not path.is_file():
        return list(samples)
    sheet = read_sheet(path)
    sheet.need(("image", "group"))
    named: dict[str, str] = {}
    for row in sheet.rows:
        image, group = as_path(row["image"]), row["group"]
        if named.setdefault(image, group) != group:
            raise ValueError(f"{path}: must name one group an image, got {named[image]} and {group} for {row['image']}")
    found: list[Sample] = []
    for sample in samples:
        # Paths may begin with the data set's own folder.
        own = named.get(sample.name) or named.get(f"{normal(folder.name)}/{sample.name}")
        if not own:
            but = difference(sample.name, named)
            if not found and not but:
                but = f"; the first row names {next((row for row in named if row), 'nothing')}"
            raise ValueError(f"{path}: must name the group of every image, got none for {sample.name}{but}")
        found.append(replace(sample, group=own))
    return found


def refuse_divided_groups(samples: Sequence[Sample], where: Path) -> None:
    """Raises ValueError where a group stands in two splits."""
    firsts: dict[str, Sample] = {}
    for sample in samples:
        if sample.group is None:
            continue
        first = firsts.setdefault(sample.group, sample)
        if first.split != sample.split:
            raise ValueError(
                f"{where}: a group must stand in one split only, got {sample.group} for {first.name} and {sample.name}"
            )
