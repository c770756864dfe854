# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk file as a stream for an HTTP body: as it is, or converted on the fly, without a temporary file."""

from __future__ import annotations

import hashlib
import queue
import threading
from contextlib import closing
from typing import Any, Callable, Iterator

from ..disk.digest import CHUNK, DigestMap, chunk_digest
from ..disk.errors import Interrupted
from ..disk.vmdk.base import read_unit, units
from ..disk.vmdk.reader import open_disk
from ..disk.vmdk.stream_writer import write_stream

Progress = Callable[[int, int], None]
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
    """The disk as a streamOptimized VMDK, compressed in threads while it is sent. C(progress) counts bytes of the disk."""

    def __init__(self, path: str, kind: str, adapter_type: str, progress: Progress | None = None) -> None:
        super().__init__(path, progress)
        self._kind = kind
        self._adapter_type = adapter_type
        self._stop = threading.Event()
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(DEPTH)

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
                digests = DigestMap(disk.capacity)
                write_stream(disk, self, adapter_type=self._adapter_type, digest=digests, progress=self._progress)
                self.digest = digests.disk_digest()
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
