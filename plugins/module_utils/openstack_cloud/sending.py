# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk as a stream for an HTTP body: a file as it is, or any disk converted on the fly, without a temporary file."""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from contextlib import closing
from typing import Any, Callable, Iterator

from ..disk.digest import CHUNK, DigestMap
from ..disk.errors import Interrupted, SinkError
from ..disk.memory import spare
from ..disk.model import Source
from ..disk.vmdk.base import UNIT, Identity
from ..disk.vmdk.descriptor import new_uuid
from ..disk.vmdk.indexed_stream import IndexedWriter
from ..disk.vmdk.sparse_stream import CREATE_TYPE, size_of, write_sparse_stream
from ..disk.vmdk.stream_writer import chunks, write_stream

Progress = Callable[[int, int], None]
#: Opens the disk that is sent. Who has it opened closes it.
Opener = Callable[[], Source]
#: A streamOptimized disk whose directory stands in front.
INDEXED = "indexed"
#: The disk's bytes, zeroes too.
RAW = "raw"
#: Bytes of compressed data that stay in memory at most, so that the disk is not compressed twice.
KEPT = 1 << 30
#: Blocks of about 1 MiB between the compressing threads and the socket.
DEPTH = 8


class Sender:
    """Bytes to send, counted and hashed (SHA-512) as they go by. It can be iterated once."""

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.name = name
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
    """The own bytes of the file C(name)."""

    def __init__(self, path: str, size: int, progress: Progress | None = None) -> None:
        super().__init__(path, progress)
        self._size = size

    def _blocks(self) -> Iterator[bytes]:
        with open(self.name, "rb", buffering=0) as f:
            while block := f.read(CHUNK):
                yield block
                self._progress(self.sent, self._size)


class Converted(Sender):
    """The disk in a form that is made while it is sent. C(progress) counts bytes of the disk.

    :param to: C(streamOptimized) (compressed, in threads), C(indexed) (the same with its directory in front, as Cinder wants it;
        C(measure) is called before it is sent), C(monolithicSparse) (as it is, without its holes), or C(raw).
    :param level: of the compression, 1 (fastest, also the default) to 9 (smallest).
    :param threads: that read and compress; by default as many as there are processors.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        adapter_type: str,
        progress: Progress | None = None,
        *,
        image_id: str = "",
        to: str | None = None,
        level: int | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(name, progress)
        self._to = to
        self._level = level
        self._writer: IndexedWriter | None = None
        self._measured: str | None = None
        # Made of the image's id: sent once more for the same image, the same disk is the same bytes.
        self._cid = 1 + zlib.crc32(image_id.encode()) % 0xFFFFFFFD
        self._uuid = new_uuid(image_id.encode())
        self._opener = opener
        self._threads = threads
        self._adapter_type = adapter_type
        self._stop = threading.Event()
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(DEPTH)

    def measure(self, progress: Progress | None = None) -> int | None:
        """Bytes that will be sent, where the form is known before; else None."""
        with closing(self._opener()) as disk:
            if self._to == CREATE_TYPE:
                return size_of(disk)
            if self._to == RAW:
                return disk.capacity
            if self._to != INDEXED:
                return None
            identity = Identity(adapter_type=self._adapter_type, uuid=self._uuid, cid=self._cid)
            self._writer = IndexedWriter(disk.capacity, identity, level=self._level)
            self._measured = self._writer.measure(disk, threads=self._threads, progress=progress, keep=spare(KEPT))
            return self._writer.size

    def _sent(self, disk: Source) -> str:
        """Write the disk; its digest."""
        if self._writer is not None:
            digest = self._writer.write(disk, self, threads=self._threads, progress=self._progress)
            if digest != self._measured:
                raise SinkError("The disk was changed while it was sent.", code="changed", disk=self.name, next_command="Run again.")
            return digest
        digests = DigestMap(disk.capacity)
        named: dict[str, Any] = {"adapter_type": self._adapter_type, "uuid": self._uuid, "cid": self._cid}
        how: dict[str, Any] = {"threads": self._threads, "digest": digests, "progress": self._progress}
        if self._to == RAW:
            self._write_raw(disk, **how)
        elif self._to == CREATE_TYPE:
            write_sparse_stream(disk, self, **named, **how)
        else:
            write_stream(disk, self, **named, **how, level=self._level)
        return digests.disk_digest()

    def _write_raw(self, disk: Source, **how: Any) -> None:
        at = 0
        for unit, data in chunks(disk, lambda offset, data: data, **how):
            self._zeroes(unit.offset - at)
            self.write(data)
            at = unit.offset + unit.length
        self._zeroes(disk.capacity - at)

    def _zeroes(self, length: int) -> None:
        block = bytes(min(length, UNIT))
        while length > 0:
            self._put(block[:length])
            length -= len(block)

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
            with closing(self._opener()) as disk:
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


def disk_digest(opener: Opener, check: Progress | None = None, threads: int | None = None) -> str:
    """The digest of a disk (see disk.digest), reading its data once."""
    with closing(opener()) as disk:
        digests = DigestMap(disk.capacity)
        for _unit in chunks(disk, lambda offset, data: None, threads=threads, digest=digests, progress=check):
            pass  # nothing is packed, so nothing comes
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
