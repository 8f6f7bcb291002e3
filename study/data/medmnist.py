"""Reader of the medmnist package's sets by name and size, with the package's addresses, download and checksums."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from analysis.records.origins import source_key
from analysis.tasks import task_named
from study.data.catalogue import check_md5
from study.data.intake import About
from study.data.npz import file_stamp, read_npz
from study.data.protocol import Dataset, unknown_name
from study.data.shelf import Shelf

SIZES = (28, 64, 128, 224)
# The package says this only in prose.
MODALITIES = {
    "bloodmnist": "blood cell microscopy",
    "breastmnist": "breast ultrasound",
    "chestmnist": "chest X-ray",
    "dermamnist": "dermatoscopy",
    "octmnist": "retinal OCT",
    "organamnist": "abdominal CT, axial",
    "organcmnist": "abdominal CT, coronal",
    "organsmnist": "abdominal CT, sagittal",
    "pathmnist": "colon histology",
    "pneumoniamnist": "chest X-ray",
    "retinamnist": "fundus photography",
    "tissuemnist": "kidney cortex microscopy",
}


def flags() -> list[str]:
    """Names of MedMNIST's 2-D sets."""
    return sorted(flag for flag, facts in _facts().items() if _refusal(flag, facts) is None)


class MedMnistSets:
    """Reader of MedMNIST files of one size below `root` (None: the package's own folder); downloads only on request."""

    def __init__(self, root: str | None, size: int, download: bool) -> None:
        if size not in SIZES:
            raise ValueError(f"source.size must be {', '.join(map(str, SIZES))}, got {size!r}")
        if not isinstance(download, bool):
            raise ValueError(f"source.download must be true or false, got {download!r}")
        self._root = Path(root) if root is not None else _package_root()
        self._suffix = "" if size == 28 else f"_{size}"
        self._size = size
        self._download = download

    def names(self) -> list[str]:
        """Names of the available sets, whether their files are here or not."""
        return flags()

    def stamp(self, name: str) -> Hashable:
        """A value that changes whenever the file does."""
        return file_stamp(self._path(name))

    def read(self, name: str) -> Dataset:
        """The data set, its checksum verified, held in memory; ValueErrors begin with the path of the file."""
        return self.read_onto(name, None)

    def read_onto(self, name: str, shelf: Shelf | None) -> Dataset:
        """The data set, its checksum verified; on the shelf, if there is one, where it is too large to be held."""
        facts = _facts().get(name)
        if facts is None:
            raise unknown_name("medmnist", name, flags())
        path = self._path(name)
        refusal = _refusal(name, facts)
        if refusal is not None:
            raise ValueError(f"{path}: {refusal}")
        url, md5 = facts[f"url{self._suffix}"], facts[f"MD5{self._suffix}"]
        if not path.is_file():
            if not self._download:
                raise ValueError(
                    f"{path}: must be there, and is not; set source.download to true, or fetch it from {url} "
                    f"(MD5 {md5})"
                )
            self._fetch(name, facts, path, url)
        check_md5(path, md5)
        classes = [facts["label"][str(label)] for label in range(len(facts["label"]))]
        task = task_named(facts["task"], f"medmnist: the task of {name}")
        return read_npz(path, About(name, MODALITIES.get(name, "unknown"), source_key(name), task), classes, shelf)

    def _path(self, name: str) -> Path:
        return self._root / f"{name}{self._suffix}.npz"

    def _fetch(self, name: str, facts: dict[str, Any], path: Path, url: str) -> None:
        import medmnist

        try:
            self._root.mkdir(parents=True, exist_ok=True)
            getattr(medmnist, facts["python_class"])(
                split="train", download=True, root=str(self._root), size=self._size
            )
        except (OSError, RuntimeError) as error:
            # The package replaces every failure, even an interrupt, by a page of advice; the cause is behind it.
            cause = error.__context__ or error
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
            if isinstance(cause, HTTPError):
                cause.close()
            reason = str(cause).strip().splitlines() or [type(cause).__name__]
            raise ValueError(f"{path}: must be downloaded from {url}, and could not be: {reason[0]}") from None


def _refusal(name: str, facts: dict[str, Any]) -> str | None:
    if name.endswith("3d"):
        return "must hold images, got volumes: 3-D sets are not supported"
    return None


# The package imports torch, so it is imported only when a MedMNIST set is needed.
def _facts() -> dict[str, dict[str, Any]]:
    from medmnist.info import INFO

    return INFO


def _package_root() -> Path:
    from medmnist.info import DEFAULT_ROOT

    if DEFAULT_ROOT is None:
        raise ValueError(
            "source.root must be a folder, got none, and medmnist could not make its own in the home folder"
        )
    return Path(DEFAULT_ROOT)
