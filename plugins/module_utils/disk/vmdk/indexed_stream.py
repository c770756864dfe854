# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stream-optimized disk with its grain directory before the grains, as qemu-img lays it out, still written forwards only.

Cinder's judge of images (cinder/image/format_inspector.py: "Unsupported VMDK footer") takes no stream whose directory is at its
end, the layout of StreamWriter and of vSphere's exports. What stands before the grains says where each lies, so the disk is
compressed twice: once for the sizes, once for the bytes. In return, the size of the whole is known before its first byte.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

from ..digest import DigestMap
from ..errors import SinkError
from ..model import SECTOR, Source
from .base import Identity, Progress
from .sparse_writer import packed
from .stream_writer import Out, Packed, StreamWriter, chunks
from .structs import GRAIN_SECTORS, GT_SECTORS, GTES_PER_GT, MARKER_EOS, marker, sectors


class _Kept:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes, /) -> None:
        self.data += data


class IndexedWriter:
    """C(measure) the disk, then C(write) it: both in the order of the disk, both with the same bytes.

    :param identity: with its uuid and cid, what is written depends on nothing but the disk.
    """

    def __init__(self, capacity: int, identity: Identity, *, level: int | None = None) -> None:
        # It compresses; of what it writes, header and descriptor are wanted alone, which it writes at once.
        self._head = _Kept()
        self._stream = StreamWriter(self._head, capacity, identity, level=level)
        self._tables: dict[int, array[int]] = {}
        self._directory = 1 + self._stream.header.descriptor_sectors
        self._after = self._directory + sectors(4 * self._stream.header.tables)
        self._first = 0
        #: Bytes of the whole, once it is measured.
        self.size = 0

    def measure(self, source: Source, *, threads: int | None = None, progress: Progress | None = None) -> str:
        """Compress all of C(source) and keep where each grain will lie; the digest of the disk."""
        digests = DigestMap(source.capacity)
        at = 0
        for _unit, pack in chunks(source, self._stream.pack, threads=threads, digest=digests, progress=progress):
            for number, start in pack.grains:
                table = self._tables.setdefault(number // GTES_PER_GT, array("I", bytes(4 * GTES_PER_GT)))
                # For now from the first grain on, in sectors, and one more: 0 is "no grain".
                table[number % GTES_PER_GT] = at + start // SECTOR + 1
            at += len(pack.data) // SECTOR
            if at >= 1 << 32:
                raise SinkError("A streamOptimized disk cannot hold more than 2 TiB of compressed data.", step="measure")
        # Grains begin at a multiple of a grain, as qemu's do.
        self._first = -(-(self._after + GT_SECTORS * len(self._tables)) // GRAIN_SECTORS) * GRAIN_SECTORS
        self.size = (self._first + at) * SECTOR + len(marker(MARKER_EOS, 0))
        return digests.disk_digest()

    def write(self, source: Source, out: Out, *, threads: int | None = None, progress: Progress | None = None) -> str:
        """Write the disk that was measured; its digest.

        :raises SinkError: it is another one by now.
        """
        self._write_front(out)
        digests = DigestMap(source.capacity)
        at = 0
        for _unit, pack in chunks(source, self._stream.pack, threads=threads, digest=digests, progress=progress):
            self._compare(pack, at)
            out.write(pack.data)
            at += len(pack.data) // SECTOR
        if (self._first + at) * SECTOR + len(marker(MARKER_EOS, 0)) != self.size:
            raise _changed()
        out.write(marker(MARKER_EOS, 0))
        return digests.disk_digest()

    def _compare(self, pack: Packed, at: int) -> None:
        for number, start in pack.grains:
            table = self._tables.get(number // GTES_PER_GT)
            if table is None or table[number % GTES_PER_GT] != at + start // SECTOR + 1:
                raise _changed()

    def _write_front(self, out: Out) -> None:
        """Header, descriptor, directory and those tables that are not empty."""
        header = replace(self._stream.header, gd_offset=self._directory, overhead=self._first)
        directory = array("I", bytes(4 * header.tables))
        for index, number in enumerate(sorted(self._tables)):
            directory[number] = self._after + index * GT_SECTORS
        out.write(header.pack() + self._head.data[SECTOR : self._directory * SECTOR])
        out.write(packed(directory).ljust((self._after - self._directory) * SECTOR, b"\0"))
        for number in sorted(self._tables):
            out.write(packed(array("I", (place and place - 1 + self._first for place in self._tables[number]))))
        out.write(bytes((self._first - self._after - GT_SECTORS * len(self._tables)) * SECTOR))


def _changed() -> SinkError:
    return SinkError(
        "The disk was changed between being measured and being written.",
        code="changed",
        step="write",
        next_command="Let nobody write to it meanwhile, and run again.",
    )
