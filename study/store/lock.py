"""The lock on a file by which processes keep out of each other's way in a store."""

from pathlib import Path

from filelock import FileLock


def file_lock(path: Path) -> FileLock:
    """A lock of the kernel's on `path`, which ends with the process that holds it, however that ends.

    Its file stays behind, so that all who wait hold the same one; where a file system knows no such lock, acquiring
    raises OSError: a lock that is a mere file would outlive a kill.
    """
    return FileLock(path, preserve_lock_file=True, poll_interval=0.01)
