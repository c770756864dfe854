# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deflate and inflate of single grains: ISA-L and libdeflate where they are installed, zlib elsewhere. All release the GIL.

The format note says RFC 1951; every maker writes zlib streams (RFC 1950), and so do we.
"""

from __future__ import annotations

import functools
import zlib
from typing import Any, Callable

from ..errors import BadInput, VmdkError
from ..optional import have

_isal: Any = have("isal.isal_zlib")
_libdeflate: Any = have("deflate")
_inflater: Any = _isal.decompressobj if _isal is not None else zlib.decompressobj
_errors: tuple[type[Exception], ...] = (zlib.error,) if _isal is None else (zlib.error, _isal.error)
DEFAULT_LEVEL = 1
#: ISA-L's own level for our 1. Its level 2 costs 4 % more time than its level 1 on system files, for 1 % less size.
_ISAL_FAST = 2
#: ISA-L knows levels up to 3.
_ISAL_TOP = 3


def deflater(level: int | None = None) -> Callable[[bytes | memoryview], bytes]:
    """A function that compresses one grain at C(level) (1 fastest to 9 smallest, default 1).

    Level 1 is ISA-L's, the fastest that there is. Above it is libdeflate, which makes less of a grain than zlib does at the
    same level, in a third of the time; its level 1 and 2 stand for 2 and 3 here.
    """
    wanted = checked_level(level) or DEFAULT_LEVEL
    if wanted == 1 and _isal is not None:
        return functools.partial(_isal.compress, level=_ISAL_FAST)
    if _libdeflate is not None:
        at = wanted - 1 if 1 < wanted < 4 else wanted
        return functools.partial(_zlib_compress, at)
    if _isal is not None and wanted <= _ISAL_TOP:
        return functools.partial(_isal.compress, level=wanted)
    return functools.partial(zlib.compress, level=wanted)


def checked_level(level: int | None) -> int | None:
    """C(level).

    :raises BadInput: it is not from 1 to 9.
    """
    if level is not None and not 1 <= level <= 9:
        raise BadInput(f"compression_level is {level}, it must be from 1 to 9.", step="read the options")
    return level


def _zlib_compress(level: int, data: bytes | memoryview) -> bytes:
    packed: bytes = _libdeflate.zlib_compress(data, level)
    return packed


def inflate(data: bytes | memoryview, size: int, shortest: int, path: str, offset: int) -> bytes:
    """The grain in C(data): exactly C(size) bytes, or at least C(shortest) where it is a disk's last one.

    Never makes more than C(size) + 1 bytes, whatever C(data) claims. C(path) and C(offset) are for the error.
    """
    if _libdeflate is not None:
        try:
            whole: bytes = _libdeflate.zlib_decompress(data, size)
        except _libdeflate.DeflateError:
            whole = b""  # damaged, or longer than a grain: what follows says which
        if whole and len(whole) >= shortest:
            return whole
    inflater = _inflater()
    try:
        out: bytes = inflater.decompress(data, size + 1)
    except _errors as e:
        raise VmdkError("A compressed grain is damaged.", path=path, offset=offset, said=e) from e
    # Without eof the stream is cut before its checksum, or goes on past a grain.
    if not shortest <= len(out) <= size or not inflater.eof:
        what = "longer" if len(out) > size else "shorter"
        raise VmdkError(f"A compressed grain is {what} than a grain.", path=path, offset=offset, found=len(out), expected=size)
    return out
