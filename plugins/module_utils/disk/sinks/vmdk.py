# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VMDK as a sink: written at random, taken up again after a kill, read back.

monolithicFlat and vmfs are a flat file with a descriptor beside it, which is written first, as vmkfstools does: whether the bytes
are all there is the ledger's to say, as with a raw file. monolithicSparse keeps its tables such that a crash loses no more than
was not flushed. streamOptimized is not offered: its grains are compressed one behind the other and its tables come at the end, so
it can neither be written in the order of a warm migration nor taken up again; vmdk_convert makes it of any of these.
"""

from __future__ import annotations

import os

from ..errors import BadInput, FerryError, SinkError
from ..model import SECTOR
from ..vmdk import descriptor as text
from ..vmdk.base import DEFAULT_ADAPTER, Identity, checked_capacity
from ..vmdk.flat_writer import write_descriptor
from ..vmdk.structs import MAX_DESCRIPTOR
from .file import FileSink
from .vmdk_sparse import SparseSink

FLAT, SPARSE = ("monolithicFlat", "vmfs"), ("monolithicSparse",)
SUBFORMATS = FLAT + SPARSE


class VmdkSink:
    """The VMDK at C(path) (its descriptor; NAME.vmdk), a disk of C(capacity) bytes, of the createType C(subformat).

    It is made (mode 0600), or taken up where it is one of this kind. One writer: the file with the data is locked (flock).

    :raises BadInput: another subformat, a capacity that no VMDK has, or something else stands at C(path).
    :raises SinkError: it cannot be written.
    :raises Busy: another process writes it.
    """

    def __init__(self, path: str, capacity: int, subformat: str, *, adapter_type: str = DEFAULT_ADAPTER) -> None:
        self.path = path
        self.subformat = subformat
        self.capacity = checked_capacity(capacity)
        if subformat not in SUBFORMATS:
            raise BadInput(
                f"A VMDK of the kind {subformat} cannot be written in any order and taken up again.",
                disk=path,
                step="open the target",
                expected=", ".join(SUBFORMATS),
                next_command=f"copy to one of these, then convert it with the module vmdk_convert (format: {subformat})",
            )
        stem, extension = os.path.splitext(os.path.basename(path))
        if extension.lower() != ".vmdk" or not stem:
            raise BadInput("The name of a VMDK ends in .vmdk.", disk=path, step="open the target")
        identity = Identity(name=os.path.basename(path), adapter_type=adapter_type)
        self._file: FileSink | SparseSink
        if subformat in SPARSE:
            self._file = SparseSink(path, capacity, identity)
            self._described = True
        else:
            self.flat_name = f"{stem}-flat.vmdk"
            self._described = self._look()
            self._file = FileSink(os.path.join(os.path.dirname(path), self.flat_name), capacity)
            if not self._described:
                try:
                    self._describe(identity)
                except BaseException:
                    self._file.close()
                    raise
        #: True where everything not yet written reads as zeroes.
        self.reads_zero = self._file.reads_zero
        self.identity = f"vmdk:{subformat}:{self._file.identity}"

    def _look(self) -> bool:
        """Whether the right descriptor is there already.

        :raises BadInput: something else is there.
        """
        try:
            with open(self.path, "rb") as f:
                data = f.read(MAX_DESCRIPTOR + 1)
        except FileNotFoundError:
            return False
        except OSError as e:
            raise SinkError("The descriptor cannot be read.", disk=self.path, step="open the target", said=e.strerror) from e
        try:
            found = text.parse(data[:MAX_DESCRIPTOR], self.path)
        except FerryError as e:
            raise self._other(e.message) from e
        lines = found.extents
        if found.create_type != self.subformat or len(lines) != 1 or lines[0].name != self.flat_name or lines[0].offset or found.is_delta:
            raise self._other(f"{found.create_type}, {len(lines)} extents")
        return lines[0].sectors * SECTOR == self.capacity

    def _other(self, said: str) -> BadInput:
        return BadInput(
            f"Another file than a {self.subformat} disk of ours stands at the target.",
            code="target_exists",
            disk=self.path,
            step="open the target",
            said=said,
            next_command="name another target, or remove that file",
        )

    def _describe(self, identity: Identity) -> None:
        """Write the descriptor in one step; it takes the place of one of another size."""
        vmfs = self.subformat == "vmfs"
        sectors = self.capacity // SECTOR
        new = f"{self.path}.new"
        try:
            if os.path.lexists(new):
                os.unlink(new)  # of a run that was killed; the flat file's lock says that it runs no more
            line = ("RW", sectors, "VMFS", self.flat_name, None) if vmfs else ("RW", sectors, "FLAT", self.flat_name, 0)
            write_descriptor(new, self.subformat, [line], identity, thin=True if vmfs else None)
            os.replace(new, self.path)
            sync_folder(self.path)
        except OSError as e:
            raise SinkError("The descriptor cannot be written.", disk=self.path, step="open the target", said=e.strerror) from e

    # -- the data ---------------------------------------------------------------------------------------------------

    def stamp(self) -> str:
        """Changes when somebody else writes the file afterwards."""
        return self._file.stamp()

    def label(self) -> str:
        """What C(set_label) wrote; empty where the file has no label."""
        return self._file.label()

    def set_label(self, text: str) -> bool:
        """Say at the file with the data whose ledger speaks of it; False where that cannot be said."""
        return self._file.set_label(text)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self._file.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._file.zero(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)

    def is_hole(self, offset: int, length: int) -> bool:
        """True where nothing is stored in the range, so that it reads as zeroes."""
        return self._file.is_hole(offset, length)

    def flush(self) -> None:
        self._file.flush()

    def forget_cache(self) -> None:
        """Ask the kernel to drop its cached pages. Call C(flush) first."""
        self._file.forget_cache()

    def close(self) -> None:
        self._file.close()


def sync_folder(path: str) -> None:
    """Make the name C(path) durable."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
