# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of areas of a disk: JSON lines, or the extent list that nbdkit lays over a plugin.

C(jsonl): a line {"start": bytes, "length": bytes} for each area. C(extentlist): a line "offset length" for each, in bytes
(nbdkit-extentlist-filter(1)); what is not listed counts as a hole that reads as zeroes there.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import stat
import tempfile
from typing import IO, Iterable, Iterator

from .errors import BadInput, SinkError

FORMATS = ("jsonl", "extentlist")

#: Bytes that are put together before they are written.
_BLOCK = 1 << 20


def line(start: int, length: int, form: str) -> str:
    """One area in the format C(form)."""
    return f"{start} {length}\n" if form == "extentlist" else f'{{"start":{start},"length":{length}}}\n'


def check_place(path: str) -> None:
    """Refuse a place where no file can be put.

    :raises BadInput: its folder is not there, or something else than a file is in its place.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise BadInput(f"There is no folder {folder} for the file of areas.", step="write the areas")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise BadInput(f"{path} is no file: areas are written to one.", step="write the areas")


class AreasFile:
    """A file that is being written beside its place; replace() puts it there, whole and durable, with mode 0600."""

    def __init__(self, path: str, form: str) -> None:
        check_place(path)
        self.path = os.path.realpath(path)
        self.form = form
        try:
            number, self._beside = tempfile.mkstemp(prefix=".ferry-areas-", dir=os.path.dirname(self.path))
        except OSError as e:
            raise SinkError("The file of areas cannot be written.", step="write the areas", said=e) from e
        self._file: IO[str] = os.fdopen(number, "w", encoding="ascii", buffering=_BLOCK)

    def passing(self, areas: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Hand C(areas) on, each written when it has come by."""
        for start, length in areas:
            try:
                self._file.write(line(start, length, self.form))
            except OSError as e:
                raise SinkError("The file of areas cannot be written.", step="write the areas", said=e) from e
            yield start, length

    def replace(self) -> bool:
        """Put the file into its place; False where the same areas stood there with the same mode, and nothing was done."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self._is_there():
                return False
            os.replace(self._beside, self.path)
            folder = os.open(os.path.dirname(self.path), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            raise SinkError("The file of areas cannot be written.", step="write the areas", said=e) from e
        return True

    def _is_there(self) -> bool:
        if not os.path.exists(self.path) or stat.S_IMODE(os.stat(self.path).st_mode) != 0o600:
            return False
        return filecmp.cmp(self._beside, self.path, shallow=False)

    def __enter__(self) -> AreasFile:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._beside)
