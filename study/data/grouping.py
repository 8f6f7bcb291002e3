"""Groups of images by a table beside them: `groups.csv` with the columns image and group (a patient, say)."""

from collections.abc import Mapping
from pathlib import Path

from study.data.names import difference, normal
from study.data.sheet import as_path, read_sheet

GROUPS_FILE = "groups.csv"


def group_names(folder: Path, splits: Mapping[Path, str]) -> dict[Path, str] | None:
    """The name of each image's group, or None where the folder has no table of groups.

    splits: the split of each image. Raises ValueError for an image without a group or with two, and for a group in two
    splits.
    """
    path = folder / GROUPS_FILE
    if not path.is_file():
        return None
    sheet = read_sheet(path)
    sheet.need(("image", "group"))
    named: dict[str, str] = {}
    for row in sheet.rows:
        image, group = as_path(row["image"]), row["group"]
        if named.setdefault(image, group) != group:
            raise ValueError(f"{path}: must name one group an image, got {named[image]} and {group} for {row['image']}")
    found: dict[Path, str] = {}
    for file in splits:
        name = file.relative_to(folder).as_posix()
        # Paths may begin with the data set's own folder.
        own = named.get(normal(name)) or named.get(normal(f"{folder.name}/{name}"))
        if not own:
            but = difference(normal(name), named)
            if not found and not but:
                but = f"; the first row names {next((row for row in named if row), 'nothing')}"
            raise ValueError(f"{path}: must name the group of every image, got none for {name}{but}")
        found[file] = own
    firsts: dict[str, Path] = {}
    for file, split in splits.items():
        first = firsts.setdefault(found[file], file)
        if splits[first] != split:
            one, other = (shown.relative_to(folder) for shown in (first, file))
            raise ValueError(f"{path}: a group must stand in one split only, got {found[file]} for {one} and {other}")
    return found
