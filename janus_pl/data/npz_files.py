"""X, Y and W0 of an .npz archive."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from janus_pl.errors import UsageError, check_memory

Arrays = dict[str, NDArray[Any]]
END = b"PK\x05\x06"  # of the record at the end of an archive
MOST_END = 22 + 65535  # bytes of this record, with a comment
NAMES = ("X", "Y", "y", "W0", "layout")


def read_npz(path: Path) -> tuple[Arrays, list[str]]:
    """Return the arrays of an archive that a problem may have, and the names of the others.

    Numbers are read without pickles. The size that an array claims is compared with what the
    archive holds before it is asked for.

    Raises:
        ValueError: X or Y is missing or there twice, or an array claims more than there is.
        Exception: The archive cannot be read.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        _check_entries(file, archive)
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        found = {name for name in NAMES if name in held}
        for name, spellings in (("X", {"X"}), ("Y", {"Y", "y"})):
            if not spellings & found:
                raise ValueError(f"it holds no {name}, but {', '.join(held) or 'nothing'}")
        if {"Y", "y"} <= found:
            raise ValueError("it holds both Y and y")
        for name in archive.namelist():
            archive.open(name).close()  # each under the same name in both places of the archive
        arrays = {name: _array(archive, name) for name in NAMES if name in found}
    if "y" in arrays:
        arrays["Y"] = arrays.pop("y")
    return arrays, [name for name in held if name not in found]


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        shape, dtype = _header(file)
        size = int(np.prod([1, *shape], dtype=object)) * dtype.itemsize
        there = info.file_size - file.tell()
        if not dtype.hasobject and size != there:
            raise ValueError(f"{name} claims {size} bytes and holds {there}")
        try:
            check_memory(name, shape, size)
        except UsageError as error:
            raise ValueError(f"{name} has {error.allowed}") from error
    whole = io.BytesIO(archive.read(info))  # to its end, where the checksum is compared
    return np.asarray(np.lib.format.read_array(whole, allow_pickle=False))


def _check_entries(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose directory holds fewer entries than its end counts.

    A damaged length of one entry hides those behind it, and zipfile does not look.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MOST_END))
    end = file.read().rpartition(END)[2]
    count, found = int.from_bytes(end[6:8], "little"), len(archive.infolist())
    if count not in (found, 0xFFFF):  # of ZIP64, which counts elsewhere
        raise ValueError(f"its directory holds {found} of {count} entries")


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
