# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk file as a stream for an HTTP body: as it is, or converted on the fly, without a temporary file."""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from contextlib import closing
from typing import Any, Callable, Iterator

from ..disk.digest import CHUNK, DigestMap, chunk_digest
from ..disk.errors import Interrupted, SinkError
from ..disk.vmdk.base import Identity, read_unit, units
from ..disk.vmdk.descriptor import new_uuid
from ..disk.vmdk.indexed_stream import IndexedWriter
from ..disk.vmdk.reader import open_disk
from ..disk.vmdk.sparse_stream import CREATE_TYPE, size_of, write_sparse_stream
from ..disk.vmdk.stream_writer import write_stream

Progress = Callable[[int, int], None]
#: A streamOptimized disk whose directory stands in front.
INDEXED = "indexed"
#: Blocks of about 1 MiB between the compressing threads and the socket.
DEPTH = 8


class Sender:
    """Bytes to send, counted and hashed (SHA-512) as they go by. It can be iterated once."""

    def __init__(self, path: str, progress: Progress | None) -> None:
        self.path = path
        self.sent = 0
        self.digest: str | None = None
        self._sha512 = hashlib.sha512()
        self._progress = progress or (lambda done, total: None)

    @property
    def sha512(self) -> str:
        """Of what was sent so far, in hexadecimal."""
        return self._sha512.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks():
            self._sha512.update(block)
            self.sent += len(block)
            yield block


class AsIs(Sender):
    """The file's own bytes."""

    def __init__(self, path: str, size: int, progress: Progress | None = None) -> None:
        super().__init__(path, progress)
        self._size = size

    def _blocks(self) -> Iterator[bytes]:
        with open(self.path, "rb", buffering=0) as f:
            while block := f.read(CHUNK):
                yield block
                self._progress(self.sent, self._size)


class Converted(Sender):
    """The disk as a VMDK that is made while it is sent. C(progress) counts bytes of the disk.

    :param to: C(streamOptimized) (compressed, in threads), C(indexed) (the same with its directory in front, as Cinder wants it;
        C(measure) is called before it is sent), or C(monolithicSparse) (as it is, without its holes).
    :param level: of the compression, 1 (fastest, also the default) to 9 (smallest).
    """

    def __init__(
        self,
        path: str,
        kind: str,
        adapter_type: str,
        progress: Progress | None = None,
        *,
        image_id: str = "",
        to: str | None = None,
        level: int | None = None,
    ) -> None:
        super().__init__(path, progress)
        self._to = to
        self._level = level
        self._writer: IndexedWriter | None = None
        self._measured: str | None = None
        # Made of the image's id: sent once more for the same image, the same disk is the same bytes.
        self._cid = 1 + zlib.crc32(image_id.encode()) % 0xFFFFFFFD
        self._uuid = new_uuid(image_id.encode())
        self._kind = kind
        self._adapter_type = adapter_type
        self._stop = threading.Event()
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(DEPTH)

    def measure(self, progress: Progress | None = None) -> int | None:
        """Bytes that will be sent, where the form is known before; else None."""
        with closing(open_disk(self.path, format=self._kind)) as disk:
            if self._to == CREATE_TYPE:
                return size_of(disk)
            if self._to != INDEXED:
                return None
            identity = Identity(adapter_type=self._adapter_type, uuid=self._uuid, cid=self._cid)
            self._writer = IndexedWriter(disk.capacity, identity, level=self._level)
            self._measured = self._writer.measure(disk, progress=progress)
            return self._writer.size

    def _sent(self, disk: Any) -> str:
        """Write the disk; its digest."""
        if self._writer is not None:
            digest = self._writer.write(disk, self, progress=self._progress)
            if digest != self._measured:
                raise SinkError("The disk was changed while it was sent.", code="changed", disk=self.path, next_command="Run again.")
            return digest
        digests = DigestMap(disk.capacity)
        more: dict[str, Any] = {} if self._to == CREATE_TYPE else {"level": self._level}
        write = write_sparse_stream if self._to == CREATE_TYPE else write_stream
        write(disk, self, adapter_type=self._adapter_type, uuid=self._uuid, cid=self._cid, digest=digests, progress=self._progress, **more)
        return digests.disk_digest()

    def write(self, data: bytes, /) -> int:
        """Called by the writer: hand a block over, unless nobody takes it any more."""
        self._put(bytes(data))
        return len(data)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return
        raise Interrupted("Nobody takes the image any more.")

    def _work(self) -> None:
        end: BaseException | None = None
        try:
            with closing(open_disk(self.path, format=self._kind)) as disk:
                self.digest = self._sent(disk)
        except BaseException as e:  # noqa: BLE001 - it is raised again in the thread that sends
            end = e
        try:
            self._put(end)
        except Interrupted:
            return  # the sender has its own error to tell

    def _blocks(self) -> Iterator[bytes]:
        thread = threading.Thread(target=self._work, name="convert", daemon=True)
        thread.start()
        try:
            while True:
                item = self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    return
                yield item
        finally:
            self._stop.set()
            thread.join()


def disk_digest(path: str, kind: str, check: Callable[[int, int], None] | None = None) -> str:
    """The digest of the disk in a file (see disk.digest), reading its data once."""
    with closing(open_disk(path, format=kind)) as disk:
        digests = DigestMap(disk.capacity)
        for unit in units(disk):
            digests.set(unit.offset // CHUNK, chunk_digest(read_unit(disk, unit)))
            if check is not None:
                check(unit.offset + unit.length, disk.capacity)
        return digests.disk_digest()


def file_sha512(path: str, check: Callable[[int, int], None] | None = None, size: int = 0) -> str:
    """SHA-512 of a file, in hexadecimal."""
    found: Any = hashlib.sha512()
    done = 0
    with open(path, "rb", buffering=0) as f:
        while block := f.read(CHUNK):
            found.update(block)
            done += len(block)
            if check is not None:
                check(done, size)
    return str(found.hexdigest())
