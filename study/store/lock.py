"""File lock that keeps processes out of each other's way in a store."""

from pathlib import Path

from filelock import FileLock


def file_lock(path: Path) -> FileLock:
    """A kernel lock on `path`, which ends with the process that holds it, however that ends.

    Its file stays behind, so that all waiting processes lock the same one. Where a file system has no such locks,
    acquiring raises OSError: a lock that is a mere file would outlive a kill.
    """
    return FileLock(path, preserve_lock_file=True, poll_interval=0.01)
