"""A look at the raw bytes of an HDF5 file before the library reads them.

Variable-length data lies in global heap collections (HDF5 File Format Specification, III.E): ``GCOL``, version 1, the
collection's size, then objects of (index, references, reserved, size) and data. Where zeros have overwritten the head
of an object - a download that was given its size first and then broke off - the HDF5 library (seen with 2.0.0) steps
forward by nothing, for ever. Such a file has to be refused before it is read.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_SIGNATURE = b"GCOL\x01\x00\x00\x00"
_HEAD = struct.Struct("<HHIQ")


def blank_object(path: Path) -> int | None:
    """The place of the first heap object without index and size, on which the library would never end; None if none."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            start = raw.find(_SIGNATURE)
            while start >= 0:
                end = start + 16
                if end <= len(raw):
                    end = min(start + int.from_bytes(raw[start + 8 : start + 16], "little"), len(raw))
                place = start + 16
                while place + _HEAD.size <= end:
                    index, _, _, size = _HEAD.unpack_from(raw, place)
                    if index == 0 and size == 0:
                        return place
                    # free space counts its own head, an object does not, and is padded to 8 bytes
                    place += size if index == 0 else _HEAD.size + (size + 7) // 8 * 8
                start = raw.find(_SIGNATURE, max(end, start + 8))
    return None
