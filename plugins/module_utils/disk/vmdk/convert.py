# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any readable disk to any format that can be written: the work behind vmdk_convert.

What is written appears whole or not at all. A dest that already is what was asked for, by content, is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from typing import Any, Callable, Iterable, Iterator

from ..digest import DigestMap
from ..errors import BadInput, SinkError, SourceError, VmdkError
from ..model import SECTOR, Source
from .base import DEFAULT_ADAPTER, DEFAULT_HW_VERSION, Identity, Phases, Progress, cores
from .fifo import PipedDisk, PipeIn, PipeOut, is_pipe, is_stream, raw_to_pipe, spool
from .flat_writer import Behind, sync
from .kinds import kind_of
from .lost import LostRange
from .outputs import PIPED, PLAIN, Wanted, check_name, data_files, wanted_of, writable, writer_for
from .qcow2 import check_qcow2, qcow2_to_raw, raw_to_qcow2
from .reader import Disk, open_disk, open_raw
from .rewrite import Edit, apply, plan, recover
from .salvage import open_salvaged
from .size import pieces, predict
from .staging import Staging, removing
from .standing import apart, claimed_capacity, foreign, headless, replaced, soon, stored_bytes, strangers, without_descriptor
from .stream_writer import Out, chunks, write_stream


@contextlib.contextmanager
def opened(
    path: str,
    staging: Staging | None,
    *,
    allow_extents: Iterable[str] = (),
    kind: str | None = None,
    tick: Callable[[], None] | None = None,
    lost: list[LostRange] | None = None,
) -> Iterator[Disk]:
    """C(path) as a disk. A qcow2 image is made raw first, in a temporary file of C(staging), while C(tick) is called.

    With C(lost) a damaged VMDK is read as far as it can be; what is gone is appended to it.
    """
    kind = kind or kind_of(path)
    if kind == "qcow2":
        check_qcow2(path, allow=allow_extents)
        if staging is None:
            raise BadInput("A qcow2 image needs a place to be unpacked.", disk=path)
        with removing(staging.temporary("dest" if path == staging.dest else "src")) as raw:
            qcow2_to_raw(path, raw, tick, allow=allow_extents)
            with open_raw(raw) as disk:
                disk.info.format = "qcow2"
                yield disk
        return
    if lost is not None and (kind == "vmdk" or headless(path)):
        disk, gone = open_salvaged(path, allow_extents=allow_extents)
        lost.extend(gone)
    else:
        disk = open_disk(path, allow_extents=allow_extents, format=kind)
    with disk:
        yield disk


def digest_of(source: Source, *, threads: int | None = None, checksum: Any = None, progress: Progress | None = None) -> str:
    """The disk digest of C(source) (disk/digest.py), read once."""
    digest = DigestMap(source.capacity)
    for _unit in chunks(source, lambda offset, data: None, threads=threads, digest=digest, checksum=checksum, progress=progress):
        pass
    return digest.disk_digest()


def convert(
    src: str,
    dest: str,
    *,
    format: str,
    adapter_type: str | None = None,
    hw_version: int | None = None,
    compression_level: int | None = None,
    threads: int | None = None,
    thin: bool = True,
    checksum: str | None = None,
    allow_extents: Iterable[str] = (),
    force: bool = False,
    salvage: bool = False,
    progress: Phases | None = None,
    check: bool = False,
) -> dict[str, Any]:
    """Convert the disk C(src) to C(dest). Either may be a pipe: a FIFO, or C(-) for a standard stream.

    :param format: one of outputs.FORMATS; into a pipe, one of outputs.PIPED.
    :param adapter_type: what the new VMDK calls its controller; that of the source, or lsilogic, where None.
    :param hw_version: virtual hardware version of the new VMDK; that of the source, or 4, where None.
    :param compression_level: 1 (fast, default) to 9 (small), for streamOptimized.
    :param thin: False allocates all blocks of raw and flat files.
    :param checksum: sha256, to get the SHA-256 of the whole disk too.
    :param allow_extents: files or folders outside the folder of C(src) that it may name.
    :param force: convert in any case, and over a dest that is another disk or no disk at all.
    :param salvage: read a damaged VMDK as far as it can be; the result's C(lost) lists what is gone.
    :param progress: called with (phase, bytes done, capacity); the phase is wait, unpack, compare, convert or pack. What it
        raises stops the work.
    :param check: only say what would happen; C(bytes_out) is then predicted within about 5 %. A pipe is not read.
    :returns: changed, create_type, capacity, bytes_in (data read), bytes_out (stored), digest, seconds, problems (remarks on the
        source), and with C(checksum) its value. With C(check), digest is None where dest would be written.

    Where src and dest are one disk that has the format already, or dest has the content already, only the descriptor is
    written: C(bytes_in) is then 0, C(bytes_out) the descriptor's size.
    """
    began = time.monotonic()
    wanted = wanted_of(format, adapter_type, hw_version, thin, compression_level)
    if checksum not in (None, "sha256"):
        raise BadInput(f"checksum is {checksum}, it can be sha256.")
    if threads is not None and not 1 <= threads <= 256:
        raise BadInput(f"threads is {threads}, it must be from 1 to 256.")
    if is_pipe(dest) and format not in PIPED:
        raise BadInput(f"The format {format} cannot be written into a pipe.", known=list(PIPED))
    lost: list[LostRange] | None = [] if salvage else None
    if check and is_pipe(src):
        unknown = dict.fromkeys(("capacity", "bytes_in", "bytes_out", "digest"))
        result: dict[str, Any] = {"changed": True, "create_type": format, "problems": [], **unknown}
    else:
        with contextlib.ExitStack() as stack:
            staging = None
            if not is_pipe(dest):
                staging = Staging(dest, read_only=check and "qcow2" not in (format, _kind_or_none(src)))
                stack.enter_context(staging)
                if not check:
                    recover(staging)
            source = stack.enter_context(_source(src, staging, list(allow_extents), progress, lost))
            job = _Job(source, src, staging, wanted, threads or cores(), checksum, progress)
            job.salvaged = salvage
            result = job.run(check=check, force=force) if staging is not None else job.into_pipe(dest, check=check)
    if lost is not None:
        result["lost"] = lost
    result["seconds"] = round(time.monotonic() - began, 3)
    return result


def _kind_or_none(path: str) -> str | None:
    return None if is_pipe(path) else kind_of(path)


@contextlib.contextmanager
def _source(
    src: str, staging: Staging | None, allow: list[str], progress: Phases | None, lost: list[LostRange] | None
) -> Iterator[Disk | PipedDisk]:
    """C(src) as a disk; what comes through a pipe and cannot be read in one pass is kept beside dest meanwhile."""
    with contextlib.ExitStack() as stack:
        yield _entered(stack, src, staging, allow, progress, lost)


def _entered(
    stack: contextlib.ExitStack, src: str, staging: Staging | None, allow: list[str], progress: Phases | None, lost: list[LostRange] | None
) -> Disk | PipedDisk:
    unpacking = None if progress is None else functools.partial(progress, "unpack", 0, 0)
    if not is_pipe(src):
        return stack.enter_context(opened(src, staging, allow_extents=allow, tick=unpacking, lost=lost))
    waiting = None if progress is None else functools.partial(progress, "wait", 0, 0)
    pipe = stack.enter_context(PipeIn(src, waiting))
    if lost is None and is_stream(pipe.peek(SECTOR)):
        return PipedDisk(pipe)
    if staging is None:
        raise BadInput("From one pipe into another only a streamOptimized disk can be read; name a file for one of them.", disk=pipe.path)
    path = stack.enter_context(removing(staging.temporary("spool")))
    spool(pipe, path)
    # A pipe that is called a VMDK is one, as a file is: what is none is refused, not taken for a raw disk.
    kind = "vmdk" if src.lower().endswith(".vmdk") and kind_of(path) == "raw" else None
    return stack.enter_context(opened(path, staging, kind=kind, tick=unpacking, lost=lost))


class _Job:
    """One conversion."""

    def __init__(
        self,
        source: Disk | PipedDisk,
        src: str,
        staging: Staging | None,
        wanted: Wanted,
        threads: int,
        checksum: str | None,
        progress: Phases | None,
    ) -> None:
        if wanted.format not in PLAIN and source.capacity % SECTOR:
            raise BadInput(f"A VMDK has whole sectors; the source has {source.capacity} bytes.", disk=src)
        self.source = source
        self.src = src
        self._staging = staging
        self.wanted = wanted
        self.threads = threads
        self.checksum = checksum
        self.progress = progress
        self.salvaged = False
        self.hasher: Any = None
        #: Controller and version that are asked for, or that the source has; a dest that has others where there are none is left so.
        self.said = (wanted.adapter_type or writable(source.info.adapter_type), wanted.hw_version or source.info.hw_version)
        self.identity = Identity(
            name=staging.name if staging is not None else "disk.vmdk",
            adapter_type=self.said[0] or DEFAULT_ADAPTER,
            hw_version=self.said[1] or DEFAULT_HW_VERSION,
        )

    @property
    def staging(self) -> Staging:
        """Where dest is written; a pipe has none."""
        if self._staging is None:
            raise BadInput("A pipe cannot be looked at.")
        return self._staging

    def into_pipe(self, dest: str, *, check: bool) -> dict[str, Any]:
        """Write the disk into the pipe C(dest); what it wrote before cannot be known, so it is always written."""
        result: dict[str, Any] = {"create_type": self.wanted.format, "capacity": self.source.capacity, "changed": True}
        if check:
            bytes_in, bytes_out = predict(self.source, self.wanted.format, thin=False, level=self.wanted.level)
            result.update(bytes_in=bytes_in, bytes_out=bytes_out, digest=None)
        else:
            waiting = None if self.progress is None else functools.partial(self.progress, "wait", 0, 0)
            digest = DigestMap(self.source.capacity)
            with PipeOut(dest, waiting) as out:
                if self.wanted.format == "raw":
                    bytes_in = raw_to_pipe(
                        self.source,
                        out,
                        threads=self.threads,
                        digest=digest,
                        checksum=self._new_hasher(),
                        progress=self._phase("convert"),
                    )
                else:
                    bytes_in = self._stream_to(out, digest)["bytes_in"]
                result.update(bytes_in=bytes_in, bytes_out=out.bytes_out)
            self._unchanged()
            result["digest"] = digest.disk_digest()
        return self._finished(result)

    def _finished(self, result: dict[str, Any]) -> dict[str, Any]:
        result["problems"] = self.source.problems
        if self.hasher is not None and result["digest"] is not None:
            result["checksum"] = f"{self.checksum}:{self.hasher.hexdigest()}"
        return result

    def run(self, *, check: bool, force: bool) -> dict[str, Any]:
        """Write dest, or only say what would be done; the result."""
        result: dict[str, Any] = {"create_type": self.wanted.format, "capacity": self.source.capacity}
        self.staging.forget(self._keys())
        itself = self._itself()
        if itself is not None:
            result.update(self._in_place(itself, check))
        else:
            names = self._names()
            apart(self.staging, names, self._keys())
            once = isinstance(self.source, PipedDisk)
            if once and not force:
                soon(self.staging.dest, self.wanted.format, self.source.capacity)
            found = None if force or once else self._existing(check)
            if found is not None:
                result.update(found)
            else:
                if not force:
                    self._no_strangers(names)
                if check:
                    bytes_in, bytes_out = predict(self.source, self.wanted.format, thin=self.wanted.thin, level=self.wanted.level)
                    result.update(changed=True, bytes_in=bytes_in, bytes_out=bytes_out, digest=None)
                else:
                    result.update(self._write(compare=once and not force))
        return self._finished(result)

    def _phase(self, name: str) -> Progress | None:
        return None if self.progress is None else functools.partial(self.progress, name)

    def _new_hasher(self) -> Any:
        self.hasher = hashlib.sha256() if self.checksum else None
        return self.hasher

    def _names(self) -> dict[str, int]:
        """Names and sizes of the data files beside dest; BadInput where dest's name cannot be that of a descriptor."""
        check_name(self.wanted.format, self.staging.name)
        return data_files(self.wanted.format, self.staging.name, self.source.capacity)

    def _no_strangers(self, names: dict[str, int]) -> None:
        """BadInput where a data file of the new disk would replace one that belongs to no disk of ours.

        All data files of this very disk, whose descriptor alone was lost, are ours.
        """
        found = strangers(self.staging, names, self._keys())
        if not found:
            return
        there = without_descriptor(self.staging, self.wanted.format, names) if isinstance(self.source, Disk) else None
        if there is not None:
            try:
                with there:
                    theirs = digest_of(there, threads=self.threads, progress=self._phase("compare"))
                if theirs == digest_of(self.source, threads=self.threads, progress=self._phase("compare")):
                    return
            except VmdkError as e:
                raise foreign(os.path.join(self.staging.folder, found[0])) from e
        raise foreign(os.path.join(self.staging.folder, found[0]))

    def _keys(self) -> set[tuple[int, int]]:
        """(device, inode) of all files of the source."""
        keys = {file.key for file in self.source.files()}
        # A member of an OVA has no entry of its own in the file system.
        with contextlib.suppress(OSError):
            info = os.stat(self.src)
            keys.add((info.st_dev, info.st_ino))
        return keys

    def _itself(self) -> Disk | None:
        """The source, where it is dest too and has the format that is wanted; else None."""
        source = self.source
        try:
            info = os.stat(self.staging.dest)
            head = os.stat(self.src)
        except OSError:
            return None
        if (info.st_dev, info.st_ino) != (head.st_dev, head.st_ino) or self.salvaged or not isinstance(source, Disk):
            return None
        same = source.info.format == "vmdk" and source.info.create_type == self.wanted.format and source.parent is None
        return source if same else None

    def _in_place(self, disk: Disk, check: bool) -> dict[str, Any]:
        """Give the source itself another controller or version; BadInput where its descriptor has no room for that."""
        edit = plan(disk, self.wanted.adapter_type, self.wanted.hw_version)
        if check and edit is not None:
            return {"changed": True, "bytes_in": 0, "bytes_out": edit.size, "digest": None}
        digest = digest_of(disk, threads=self.threads, checksum=self._new_hasher(), progress=self._phase("compare"))
        stored = stored_bytes(disk)
        self.staging.tidy(os.path.basename(f.path) for f in disk.files())
        if edit is None:
            return {"changed": False, "bytes_in": 0, "bytes_out": stored, "digest": digest}
        apply(edit, self.staging)
        return {"changed": True, "bytes_in": 0, "bytes_out": edit.size, "digest": digest}

    def _existing(self, check: bool, ours: str | None = None) -> dict[str, Any] | None:
        """The result where dest already is what was asked for, or becomes so by its descriptor alone; None where it is to be written.

        BadInput where it is something else. C(ours) is the source's digest, where it is known already.
        """
        dest = self.staging.dest
        if not os.path.exists(dest):
            return None
        kind = self.wanted.format if self.wanted.format in PLAIN else "vmdk"
        edit: Edit | None = None
        try:
            with opened(dest, self.staging, kind=kind) as there:
                if there.capacity != self.source.capacity:
                    raise foreign(dest)
                if kind == "vmdk" and (there.info.create_type != self.wanted.format or there.parent is not None):
                    return None
                theirs = digest_of(there, threads=self.threads, progress=self._phase("compare"))
                stored = stored_bytes(there)
                files = [os.path.basename(f.path) for f in there.files()]
                if kind == "vmdk":
                    try:
                        edit = plan(there, *self.said)
                    except BadInput:
                        return None
        except (VmdkError, SinkError) as e:
            # Damaged: it is mended where what is left of it tells that it was this disk.
            if claimed_capacity(dest) == self.source.capacity:
                return None
            raise foreign(dest) from e
        ours = ours or digest_of(self.source, threads=self.threads, checksum=self._new_hasher(), progress=self._phase("compare"))
        if ours != theirs:
            return None
        self.staging.tidy(files)
        if edit is None:
            return {"changed": False, "bytes_in": 0, "bytes_out": stored, "digest": ours}
        if not check:
            apply(edit, self.staging)
        return {"changed": True, "bytes_in": 0, "bytes_out": edit.size, "digest": ours}

    def _write(self, *, compare: bool) -> dict[str, Any]:
        """Write the disk anew. With C(compare) a dest that turns out to have the same content is left as it is."""
        temporary = self.staging.temporary("new")
        pairs = [(temporary, self.staging.name)]
        digest = DigestMap(self.source.capacity)
        write = self._stream if self.wanted.format == "streamOptimized" else self._ranges
        bytes_in, bytes_out = write(temporary, pairs, digest)
        self._unchanged()
        found = self._existing(False, digest.disk_digest()) if compare else None
        if found is not None:
            return found
        self.staging.publish(pairs, replaced(self.staging, self._keys()))
        return {"changed": True, "bytes_in": bytes_in, "bytes_out": bytes_out, "digest": digest.disk_digest()}

    def _unchanged(self) -> None:
        if any(file.changed() for file in self.source.files()):
            raise SourceError(
                "The source was changed while it was read.", disk=self.src, step="convert", next_command="the same command again"
            )

    def _stream_to(self, out: Out, digest: DigestMap) -> dict[str, int]:
        return write_stream(
            self.source,
            out,
            adapter_type=self.identity.adapter_type,
            hw_version=self.identity.hw_version,
            level=self.wanted.level,
            threads=self.threads,
            name=self.identity.name,
            digest=digest,
            checksum=self._new_hasher(),
            progress=self._phase("convert"),
        )

    def _stream(self, temporary: str, pairs: list[tuple[str, str]], digest: DigestMap) -> tuple[int, int]:
        try:
            with open(temporary, "xb", buffering=0) as file:
                done = self._stream_to(Behind(file.fileno(), temporary), digest)
                sync(file.fileno(), temporary)
        except OSError as e:
            raise SinkError("The stream cannot be written.", disk=self.staging.dest, step="write", said=e.strerror) from e
        return done["bytes_in"], done["bytes_out"]

    def _ranges(self, temporary: str, pairs: list[tuple[str, str]], digest: DigestMap) -> tuple[int, int]:
        capacity = self.source.capacity
        writer, files, raw = writer_for(self.wanted, self.staging, temporary, capacity, self.identity)
        pairs[:0] = files
        bytes_in = 0
        try:
            # One thread writes, in the order of the disk: two would only wait for each other at the file's lock.
            for unit, (data, found) in chunks(
                self.source,
                lambda offset, data: (data, pieces(data)),
                threads=self.threads,
                digest=digest,
                checksum=self._new_hasher(),
                progress=self._phase("convert"),
            ):
                bytes_in += unit.data
                for at, length in found:
                    writer.write(unit.offset + at, data if length == len(data) else data[at : at + length])
            writer.finish()
            bytes_out = writer.bytes_out
        finally:
            writer.close()
        if self.wanted.format == "qcow2":
            tick = None if self.progress is None else functools.partial(self.progress, "pack", capacity, capacity)
            raw_to_qcow2(raw, temporary, threads=self.threads, tick=tick)
            bytes_out = os.path.getsize(temporary)
            with open(temporary, "rb") as done:
                sync(done.fileno(), temporary)
        return bytes_in, bytes_out
