"""Arrays of plain npz files, as numpy writes them, in a quarter of the time that numpy takes to read them.

A ledger has thousands of small ones, on which numpy spends its time on parsing: each file through a general reader of
zip archives, each array's header through Python's own compiler. Here both are read where they are as `numpy.savez` and
`numpy.savez_compressed` write them; any other file, and any that is damaged, is left to numpy, which reads or refuses
it. The format is that of PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

# The end of an archive without a comment, an entry in its directory, and the head of the entry itself.
END, ENTRY, HEAD = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
# Bytes read from the end of a file: the whole directory of a few dozen arrays.
TAIL = 4096
STORED, DEFLATED = 0, 8
# Bits of an entry's flags that change nothing here: how hard it was compressed, names in UTF-8.
HARMLESS = 0b0000_1000_0000_0110
# Larger sizes are written in fields of their own.
LARGE = 0xFFFF_FFFF


class NotPlainError(Exception):
    """What is read is no plain npz file, or none that is whole."""


def read_arrays(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file whose names start with `prefix`, in the file's order.

    Raises FileNotFoundError, and for a file that is not whole, or holds pickled objects, what `numpy.load` raises:
    zipfile.BadZipFile, zlib.error, EOFError, OSError or ValueError.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return dict(_arrays(file, prefix))
    except (NotPlainError, struct.error, zlib.error, ValueError):
        pass
    # Opened here: np.load leaves its file open when the zip is bad.
    with path.open("rb") as whole, np.lib.npyio.NpzFile(whole, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith(prefix)}


def _arrays(file: io.FileIO, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays. Raises NotPlainError, struct.error, zlib.error or ValueError where a file is not plain."""
    size = file.seek(0, os.SEEK_END)
    tail = _read(file, max(0, size - TAIL), min(size, TAIL))
    mark, disk, first_disk, here, entries, length, start, comment = END.unpack(tail[-END.size :])
    if mark != b"PK\5\6" or disk or first_disk or here != entries or comment or start + length + END.size != size:
        raise NotPlainError
    if length + END.size > len(tail):
        raise NotPlainError
    place, found = len(tail) - END.size - length, []
    for _ in range(entries):
        fields = ENTRY.unpack_from(tail, place)
        mark, _, _, flags, method, _, _, checksum, packed, whole, named, extra, remark, *_, at = fields
        name = tail[place + ENTRY.size : place + ENTRY.size + named].decode("ascii", "replace")
        place += ENTRY.size + named + extra + remark
        if mark != b"PK\1\2" or flags & ~HARMLESS or LARGE in (packed, whole, at) or not name.endswith(".npy"):
            raise NotPlainError
        if name.startswith(prefix):
            found.append((name.removesuffix(".npy"), method, checksum, packed, whole, at))
    if len({name for name, *_ in found}) < len(found):
        raise NotPlainError
    for name, method, checksum, packed, whole, at in found:
        # The name and the further fields of a head are some dozen bytes; rarely is a second look needed.
        text = _read(file, at, min(HEAD.size + 128 + packed, size - at))
        mark, *_, named, extra = HEAD.unpack_from(text)
        first = HEAD.size + named + extra
        if mark != b"PK\3\4" or first + packed > len(text):
            raise NotPlainError
        content: bytes | memoryview = memoryview(text)[first : first + packed]
        if method == DEFLATED:
            content = zlib.decompress(content, -zlib.MAX_WBITS, whole)
        elif method != STORED:
            raise NotPlainError
        if len(content) != whole or zlib.crc32(content) != checksum:
            raise NotPlainError
        yield name, _array(content)


def _read(file: io.FileIO, start: int, length: int) -> bytes:
    """So many bytes of a file. Raises NotPlainError where there are fewer."""
    file.seek(start)
    text = file.read(length)
    if text is None or len(text) != length:
        raise NotPlainError
    return text


def _array(content: bytes | memoryview) -> np.ndarray:
    """The array in the bytes of an npy file."""
    view = memoryview(content)
    # Version 1 alone has a length of two bytes.
    if bytes(view[:8]) != b"\x93NUMPY\1\0":
        raise NotPlainError
    first = 10 + int.from_bytes(view[8:10], "little")
    shape, by_columns, kind = _header(bytes(view[8:first]))
    if by_columns or kind.hasobject or len(view) - first != kind.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise NotPlainError
    # A copy: those bytes begin anywhere, and are much more than the array.
    return np.frombuffer(view[first:], dtype=kind).reshape(shape).copy()


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type, from the header of an npy file, which many files share."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(text))
