# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pipes at either end of a conversion: named ones, and the standard streams, which are called C(-)."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time
from typing import Any, Callable, Iterator

from ..digest import DigestMap, chunk_digest
from ..errors import SinkError, VmdkError
from ..model import SECTOR, Extent, Source
from .base import UNIT, Progress, Unit, is_zero, ordered
from .descriptor import is_descriptor
from .files import RawFile
from .flat_writer import write_all
from .pipe import Piece, PipedStream
from .reader import sniff
from .stream_writer import chunks, feed_zeroes
from .structs import unpack_header
from .tar import is_tar

STANDARD = "-"
#: Seconds between two looks at whether the work is to stop.
_TICK = 0.25
_HEAD = 4096

#: Called while a pipe is waited for; what it raises stops the work.
Tick = Callable[[], None]


def is_pipe(path: str) -> bool:
    """True where C(path) is C(-) or a FIFO: it can be read or written once, in order."""
    if path == STANDARD:
        return True
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def shown(path: str, *, write: bool = False) -> str:
    """C(path) for a message."""
    return ("standard output" if write else "standard input") if path == STANDARD else path


class PipeIn:
    """The reading end of the pipe C(path). It waits for data no longer than until C(tick) raises."""

    def __init__(self, path: str, tick: Tick | None = None) -> None:
        self.path = shown(path)
        self.bytes_in = 0
        self._tick = tick
        self._ahead = b""
        try:
            # Without a writer, opening would block; poll below waits for the first one.
            self._fd = os.dup(0) if path == STANDARD else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise VmdkError("The pipe cannot be opened.", path=self.path, said=e.strerror) from e
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def _some(self, length: int) -> bytes:
        while True:
            while not self._poll.poll(_TICK * 1000):
                if self._tick is not None:
                    self._tick()
            try:
                data = os.read(self._fd, min(length, UNIT))
            except BlockingIOError:
                continue
            except OSError as e:
                raise VmdkError("The pipe cannot be read.", path=self.path, offset=self.bytes_in, said=e.strerror) from e
            self.bytes_in += len(data)
            return data

    def read(self, length: int = UNIT) -> bytes:
        """C(length) bytes, fewer only at the end of the pipe."""
        parts = [self._ahead[:length]]
        self._ahead = self._ahead[length:]
        left = length - len(parts[0])
        while left:
            data = self._some(left)
            if not data:
                break
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def peek(self, length: int = _HEAD) -> bytes:
        """The next C(length) bytes, which C(read) gives again."""
        while len(self._ahead) < length:
            data = self._some(length - len(self._ahead))
            if not data:
                break
            self._ahead += data
        return self._ahead[:length]

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> PipeIn:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def spool(pipe: PipeIn, path: str) -> None:
    """Write all that comes from C(pipe) to the new file C(path), leaving out zeroes; errors of both sides are raised."""
    head = pipe.peek()
    if not head:
        raise VmdkError("The pipe gave nothing.", path=pipe.path, found=0)
    if is_descriptor(head):
        raise VmdkError("A descriptor came through the pipe; the files that it names did not.", path=pipe.path)
    if is_tar(head[:SECTOR]) or sniff(head) == "gzip":
        raise VmdkError(
            "An archive came through the pipe, no disk: unpack it first, or name the file.", path=pipe.path, found=head[:16].hex()
        )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            at = 0
            while data := pipe.read(UNIT):
                if not is_zero(data):
                    write_all(fd, data, at, path)
                at += len(data)
            os.ftruncate(fd, at)
        finally:
            os.close(fd)
    except OSError as e:
        raise SinkError("What came through the pipe cannot be kept.", disk=path, step="spool the pipe", said=e.strerror) from e


class PipeOut:
    """The writing end of the pipe C(path). It waits for its reader no longer than until C(tick) raises."""

    def __init__(self, path: str, tick: Tick | None = None) -> None:
        self.path = shown(path, write=True)
        self.bytes_out = 0
        self._tick = tick
        self._fd = -1
        try:
            if path == STANDARD:
                # Its flags are shared with whoever else has it: it stays blocking.
                self._fd = os.dup(1)
                self._poll = None
                return
            while self._fd < 0:
                self._fd = self._opened(path)
        except OSError as e:
            raise self._error(e) from e
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def _opened(self, path: str) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            # Nobody has opened it for reading yet.
            if e.errno != errno.ENXIO:
                raise
        if self._tick is not None:
            self._tick()
        time.sleep(_TICK / 5)  # nothing tells when a reader comes
        return -1

    def _error(self, e: OSError) -> SinkError:
        what = "Whoever read the pipe has gone." if e.errno == errno.EPIPE else "The pipe cannot be written."
        return SinkError(what, disk=self.path, step="write", said=e.strerror)

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            if self._poll is not None:
                while not self._poll.poll(_TICK * 1000):
                    if self._tick is not None:
                        self._tick()
            try:
                done = os.write(self._fd, view[:UNIT])
            except BlockingIOError:
                # Fewer than PIPE_BUF bytes are free.
                time.sleep(0.001)
                continue
            except OSError as e:
                raise self._error(e) from e
            self.bytes_out += done
            view = view[done:]

    def zeroes(self, length: int) -> None:
        """Write C(length) zero bytes."""
        block = bytes(min(length, UNIT))
        while length > 0:
            self.write(memoryview(block)[:length])
            length -= len(block)

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> PipeOut:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def raw_to_pipe(
    source: Source, out: PipeOut, *, threads: int, digest: DigestMap, checksum: Any = None, progress: Progress | None = None
) -> int:
    """Write all bytes of C(source) in order, zeroes too; return the bytes that were read as data."""
    at = count = 0
    for unit, data in chunks(source, lambda offset, data: data, threads=threads, digest=digest, checksum=checksum, progress=progress):
        out.zeroes(unit.offset - at)
        out.write(data)
        at = unit.offset + unit.length
        count += unit.data
    out.zeroes(source.capacity - at)
    return count


class PipedDisk:
    """The streamOptimized disk that comes through C(pipe) as a source that is read once, forwards, by its C(chunks)."""

    parent = None
    identity = ""

    def __init__(self, pipe: PipeIn) -> None:
        self._stream = PipedStream(pipe, pipe.path)
        self.info = self._stream.info
        self.capacity = self._stream.capacity

    @property
    def problems(self) -> list[str]:
        """Remarks so far."""
        return self._stream.problems

    def files(self) -> list[RawFile]:
        """None: there is no file behind it."""
        return []

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        raise VmdkError("What comes through a pipe is not known before.", path=self._stream.path)

    def read(self, offset: int, length: int) -> bytes:
        raise VmdkError("A pipe is read forwards only.", path=self._stream.path, offset=offset)

    def close(self) -> None:
        """Nothing: the pipe belongs to the caller."""

    def _units(self) -> Iterator[tuple[int, list[Piece]]]:
        """The number of each unit that holds grains, and these."""
        number, last = -1, -1
        pieces: list[Piece] = []
        for piece in self._stream.pieces():
            if piece.offset <= last:
                raise VmdkError(
                    "The grains of the stream are not in the order of the disk; keep it in a file and convert that.",
                    path=self._stream.path,
                    offset=piece.at,
                )
            last = piece.offset
            if last // UNIT != number and pieces:
                yield number, pieces
                pieces = []
            number = last // UNIT
            pieces.append(piece)
        if pieces:
            yield number, pieces

    def chunks(
        self, pack: Any, *, threads: int, digest: DigestMap | None, checksum: Any, progress: Progress | None
    ) -> Iterator[tuple[Unit, Any]]:
        """As stream_writer.chunks. It ends without VmdkError only where the whole stream was sound."""

        def work(given: tuple[int, list[Piece]]) -> tuple[Unit, bytes | None, bytes, Any]:
            start = given[0] * UNIT
            data = bytearray(min(UNIT, self.capacity - start))
            ranges = []
            for piece in given[1]:
                offset, body = self._stream.decode(piece)
                data[offset - start : offset - start + len(body)] = body
                ranges.append((offset, len(body)))
            unit, whole = Unit(start, len(data), tuple(ranges)), bytes(data)
            if is_zero(whole):
                return unit, None, whole, None
            return unit, None if digest is None else chunk_digest(whole), whole, pack(start, whole)

        done = 0
        for unit, hashed, data, result in ordered(work, self._units(), threads):
            if digest is not None and hashed is not None:
                digest.set(unit.offset // UNIT, hashed)
            if checksum is not None:
                feed_zeroes(checksum, unit.offset - done)
                checksum.update(data)
            done = unit.offset + unit.length
            if result is not None:
                yield unit, result
            if progress is not None:
                progress(done, self.capacity)
        if checksum is not None:
            feed_zeroes(checksum, self.capacity - done)
        if progress is not None:
            progress(self.capacity, self.capacity)


def is_stream(head: bytes) -> bool:
    """True where C(head), the first sector of a pipe, is that of a streamOptimized disk."""
    try:
        return unpack_header(head, "").compressed
    except VmdkError:
        return False
