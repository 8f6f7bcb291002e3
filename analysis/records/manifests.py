"""Manifests, which keep what studies asked: `studies/<study_hash>.json` in a ledger, one file per study.

A manifest says what was declared before anything ran. Its `contrasts_hash`, which every record carries, proves it: a
declaration that no longer has this hash was changed afterwards and is refused.
"""

from pathlib import Path
from typing import Any

from analysis.hashes import declaration_hash
from analysis.json_file import read_object
from analysis.records.places import ledger_folder

Manifest = dict[str, Any]


def load_manifest(folder: Path | str, study: str) -> Manifest:
    """A study's manifest, including its `study_hash`, by that hash or by a name that only one stored study has.

    Raises ValueError, one line, for an unknown study and for what `read_manifest` refuses.
    """
    studies = ledger_folder(folder) / "studies"
    if study in {path.stem for path in studies.glob("*.json")}:
        return read_manifest(studies / f"{study}.json")
    found = parsed_manifests(studies.parent)
    hashes = [key for key, manifest in found.items() if manifest.get("name") == study]
    if len(hashes) == 1:
        return read_manifest(studies / f"{hashes[0]}.json")
    if hashes:
        # The latest comes last: most people look for it.
        hashes.sort(key=lambda key: (studies / f"{key}.json").stat().st_mtime)
        several = "; ".join(f"{key}: {_told_apart(found[key])}" for key in hashes)
        raise ValueError(f"{studies}: study must be one of the hashes of {study}, got its name ({several})")
    known = ", ".join(f"{manifest.get('name')} ({key})" for key, manifest in found.items()) or "no study"
    raise ValueError(f"{studies}: study must be a stored study's name or hash, got {study!r} (stored: {known})")


def _told_apart(manifest: Manifest) -> str:
    datasets, seeds = (manifest.get(key) or [] for key in ("datasets", "seeds"))
    cells = len(manifest.get("cell_ids") or [])
    return f"{', '.join(map(str, datasets))}, seeds {', '.join(map(str, seeds))}, {cells} cells"


def declaring_manifest(folder: Path, contrasts_hash: str) -> Manifest | None:
    """The first manifest of a ledger with this `contrasts_hash`, or None. Raises as `read_manifest` does."""
    for study_hash, manifest in parsed_manifests(folder).items():
        if manifest.get("contrasts_hash") == contrasts_hash:
            return read_manifest(folder / "studies" / f"{study_hash}.json")
    return None


def parsed_manifests(folder: Path) -> dict[str, Manifest]:
    """All manifests of a ledger by study hash, their declarations unchecked. ValueError for a torn one."""
    return {path.stem: read_object(path, "a study's manifest") for path in sorted((folder / "studies").glob("*.json"))}


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file, including its `study_hash`.

    Raises ValueError, one line starting with the file, for one that is torn, and for one whose contrasts, alpha or
    correction do not match its `contrasts_hash`.
    """
    manifest = read_object(path, "a study's manifest")
    declared = manifest.get("contrasts_hash")
    if declared is not None:
        try:
            found = declaration_hash(
                manifest["contrasts"], manifest["alpha"], manifest["correction"], manifest.get("sources")
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            found = "no declaration at all"
        if found != declared:
            raise ValueError(
                f"{path}: contrasts, alpha, correction and sources must be those that were declared before the study "
                f"ran (contrasts_hash {declared}), got others ({found}): the file was changed afterwards"
            )
    return {**manifest, "study_hash": path.stem}
