"""Sources of data sets, the collections that their files come from: what statistics across data sets count.

Two files of one collection share patients, scanners and labels. They are no two answers to the question whether a
variant is better on data like these, so files of one source are averaged, and count once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from analysis.words import counted, listed

# What follows the name of a data set that is one of its folds, before the fold's number.
FOLD = "@fold"
# The key of a manifest that holds every data set's source, by name.
SOURCE_KEYS = "source_keys"


def files_by_source(datasets: Iterable[str], sources: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The data sets of each source, in order of appearance. sources: by data set; one that is absent is its own."""
    found: dict[str, list[str]] = {}
    for name in datasets:
        found.setdefault(sources.get(name, name), []).append(name)
    return [tuple(dict.fromkeys(names)) for names in found.values()]


def fold_of(name: str) -> tuple[str, int | None]:
    """A data set's name without its fold, and the number of the fold; None where it is none."""
    base, _, number = name.rpartition(FOLD)
    return (base, int(number)) if base and number.isdecimal() else (name, None)


def folds_alone(datasets: Collection[str]) -> str | None:
    """The name of the data set of which all of these are folds; None where one is no fold, or one of another."""
    parts = [fold_of(name) for name in datasets]
    bases = {base for base, fold in parts if fold is not None}
    return bases.pop() if len(bases) == 1 and all(fold is not None for _, fold in parts) else None


def unit_name(files: Sequence[str]) -> str:
    """The name of a source by its files: that of its only one, else all of them joined by a plus."""
    return " + ".join(files)


def averaged(values: Mapping[str, float], sources: Mapping[str, str]) -> dict[str, float]:
    """Values by data set as values by source: those of files of one source are averaged."""
    return {
        unit_name(files): values[files[0]] if len(files) == 1 else float(np.mean([values[name] for name in files]))
        for files in files_by_source(values, sources)
    }


def unit_noun(datasets: Collection[str], sources: Mapping[str, str]) -> str:
    """The unit that statistics across these data sets count: "source" where two of them share one, else "data set"."""
    return "data set" if len(files_by_source(datasets, sources)) == len(set(datasets)) else "source"


def counted_units(n_datasets: int, n_sources: int) -> str:
    """A number of data sets in words, and of how many sources they are where these are fewer."""
    return counted(n_datasets, "data set") + (f" of {counted(n_sources, 'source')}" if n_sources < n_datasets else "")


def told(datasets: Iterable[str], sources: Mapping[str, str]) -> str:
    """A sentence part on data sets that share a source, such as "sources: a and b are one (c)"; empty without any."""
    parts = []
    for files in files_by_source(datasets, sources):
        if len(files) > 1:
            parts.append(f"{listed(list(files))} are one ({sources[files[0]]})")
    return f"sources: {'; '.join(parts)}: averaged, they count once" if parts else ""


def manifest_sources(manifest: Mapping[str, object]) -> dict[str, str]:
    """Every data set's source as a manifest has it; those that it does not name are their own.

    Raises ValueError, one line, for what is no mapping of names to keys.
    """
    found: dict[str, str] = {}
    for key in (SOURCE_KEYS, "sources"):
        value = manifest.get(key) or {}
        if not isinstance(value, Mapping) or not all(isinstance(v, str) and v for v in value.values()):
            raise ValueError(f"manifest.{key} must name a source by data set, got {value!r}")
        found |= value
    return found
