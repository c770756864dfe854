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
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator

from ..controllers import by_name, find
from ..digest import DigestMap
from ..errors import BadInput, FerryError, SinkError, SourceError, VmdkError
from ..model import SECTOR, Source
from .base import DEFAULT_ADAPTER, DEFAULT_HW_VERSION, UNIT, Identity, Phases, Progress, Writer, cores
from .compress import deflater
from .descriptor import is_descriptor, parse
from .files import RawFile
from .flat_writer import FlatWriter, RawWriter, sync
from .qcow2 import check_qcow2, qcow2_to_raw, raw_to_qcow2
from .reader import Disk, open_disk, open_raw, sniff
from .size import predict, store
from .sparse_writer import SparseWriter
from .staging import Staging, flat_name, removing
from .stream_writer import chunks, write_stream
from .structs import MAX_DESCRIPTOR, unpack_header

#: What can be written, as the option C(format) names it.
FORMATS = ("streamOptimized", "monolithicSparse", "monolithicFlat", "raw", "qcow2")
_PLAIN = ("raw", "qcow2")


@dataclass(frozen=True)
class Wanted:
    """What dest shall be."""

    format: str
    adapter_type: str | None
    hw_version: int | None
    thin: bool
    level: int | None


def kind_of(path: str) -> str:
    """vmdk, raw or qcow2, from the content; from the name where a guest decides on the content.

    The first bytes of a flat or raw disk are written by its guest. So a name that says flat or raw is believed, and a
    text descriptor is believed only in a file called C(*.vmdk).
    """
    name = os.path.basename(path).lower()
    if name.endswith(("-flat.vmdk", ".raw")):
        return "raw"
    file = RawFile(path, device_ok=True, what="source")
    try:
        found = sniff(file.read(0, min(4096, file.size))) if file.regular else "raw"
    finally:
        file.close()
    if found == "qcow2":
        return "qcow2"
    if name.endswith(".vmdk") or found in ("sparse", "cowd", "sesparse"):
        return "vmdk"
    return "raw"


@contextlib.contextmanager
def opened(
    path: str,
    staging: Staging | None,
    *,
    allow_extents: Iterable[str] = (),
    kind: str | None = None,
    tick: Callable[[], None] | None = None,
) -> Iterator[Disk]:
    """C(path) as a disk. A qcow2 image is made raw first, in a temporary file of C(staging), while C(tick) is called."""
    kind = kind or kind_of(path)
    if kind == "qcow2":
        check_qcow2(path)
        if staging is None:
            raise BadInput("A qcow2 image needs a place to be unpacked.", disk=path)
        with removing(staging.temporary("dest" if path == staging.dest else "src")) as raw:
            qcow2_to_raw(path, raw, tick)
            with open_raw(raw) as disk:
                disk.info.format = "qcow2"
                yield disk
        return
    with open_disk(path, allow_extents=allow_extents, format=kind) as disk:
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
    progress: Phases | None = None,
    check: bool = False,
) -> dict[str, Any]:
    """Convert the disk C(src) to C(dest).

    :param format: one of FORMATS.
    :param adapter_type: what the new VMDK calls its controller; that of the source, or lsilogic, where None.
    :param hw_version: virtual hardware version of the new VMDK; that of the source, or 4, where None.
    :param compression_level: 1 (fast, default) to 9 (small), for streamOptimized.
    :param thin: False allocates all blocks of raw and monolithicFlat.
    :param checksum: sha256, to get the SHA-256 of the whole disk too.
    :param allow_extents: files or folders outside the descriptor's folder that C(src) may name.
    :param force: convert in any case, and over a dest that is another disk or no disk at all.
    :param progress: called with (phase, bytes done, capacity); the phase is unpack, compare, convert or pack. What it
        raises stops the work.
    :param check: only say what would happen; C(bytes_out) is then predicted within about 5 %.
    :returns: changed, create_type, capacity, bytes_in (data read), bytes_out (stored), digest, seconds, problems (remarks on the
        source), and with C(checksum) its value. With C(check), digest is None where dest would be written.
    """
    began = time.monotonic()
    wanted = _wanted(format, adapter_type, hw_version, thin, compression_level)
    if checksum not in (None, "sha256"):
        raise BadInput(f"checksum is {checksum}, it can be sha256.")
    if threads is not None and not 1 <= threads <= 256:
        raise BadInput(f"threads is {threads}, it must be from 1 to 256.")
    tick = None if progress is None else functools.partial(progress, "unpack", 0, 0)
    with (
        Staging(dest, read_only=check and kind_of(src) != "qcow2" and format != "qcow2") as staging,
        opened(src, staging, allow_extents=list(allow_extents), tick=tick) as source,
    ):
        job = _Job(source, src, staging, wanted, threads or cores(), checksum, progress)
        result = job.run(check=check, force=force)
    result["seconds"] = round(time.monotonic() - began, 3)
    return result


def _wanted(format: str, adapter_type: str | None, hw_version: int | None, thin: bool, level: int | None) -> Wanted:
    if format not in FORMATS:
        raise BadInput(f"The format {format} cannot be written.", known=list(FORMATS))
    name = None
    if adapter_type is not None:
        controller = by_name(adapter_type)
        if controller.ddb is None:
            raise BadInput(f"A VMDK has no word for the controller {adapter_type}.")
        name = controller.name
    if hw_version is not None and not 1 <= hw_version <= 99:
        raise BadInput(f"hw_version is {hw_version}, it must be from 1 to 99.")
    deflater(level)
    return Wanted(format, name, hw_version, thin, level)


def _writable(adapter: str | None) -> str | None:
    """The controller C(adapter) where a VMDK can name it, else None."""
    controller = find(adapter) if adapter else None
    return controller.name if controller and controller.ddb else None


class _Job:
    """One conversion."""

    def __init__(
        self, source: Disk, src: str, staging: Staging, wanted: Wanted, threads: int, checksum: str | None, progress: Phases | None
    ) -> None:
        if wanted.format not in _PLAIN and source.capacity % SECTOR:
            raise BadInput(f"A VMDK has whole sectors; the source has {source.capacity} bytes.", disk=src)
        self.source = source
        self.src = src
        self.staging = staging
        self.wanted = wanted
        self.threads = threads
        self.checksum = checksum
        self.progress = progress
        self.hasher: Any = None
        self.identity = Identity(
            name=staging.name,
            adapter_type=wanted.adapter_type or _writable(source.info.adapter_type) or DEFAULT_ADAPTER,
            hw_version=wanted.hw_version or source.info.hw_version or DEFAULT_HW_VERSION,
        )

    def run(self, *, check: bool, force: bool) -> dict[str, Any]:
        self._apart()
        result: dict[str, Any] = {"create_type": self.wanted.format, "capacity": self.source.capacity}
        found = None if force else self._existing()
        if found is not None:
            result.update(found, changed=False)
        elif check:
            bytes_in, bytes_out = predict(self.source, self.wanted.format, thin=self.wanted.thin, level=self.wanted.level)
            result.update(changed=True, bytes_in=bytes_in, bytes_out=bytes_out, digest=None)
        else:
            result.update(self._write(), changed=True)
        result["problems"] = self.source.problems
        if self.hasher is not None and result["digest"] is not None:
            result["checksum"] = f"{self.checksum}:{self.hasher.hexdigest()}"
        return result

    def _phase(self, name: str) -> Progress | None:
        return None if self.progress is None else functools.partial(self.progress, name)

    def _new_hasher(self) -> Any:
        self.hasher = hashlib.sha256() if self.checksum else None
        return self.hasher

    def _apart(self) -> None:
        """Refuse to write over the source."""
        mine = {file.key for file in self.source.files()}
        info = os.stat(self.src)
        mine.add((info.st_dev, info.st_ino))
        for name in (self.staging.name, flat_name(self.staging.name)):
            path = os.path.join(self.staging.folder, name)
            if os.path.exists(path):
                info = os.stat(path)
                if (info.st_dev, info.st_ino) in mine:
                    raise BadInput("dest would write over the source; name another file.", disk=self.staging.dest)

    def _existing(self) -> dict[str, Any] | None:
        """The result where dest already is what was asked for, None where it is to be written; BadInput where it is something else."""
        dest = self.staging.dest
        if not os.path.exists(dest):
            return None
        foreign = BadInput(
            "dest exists and holds something else than this disk; it is not overwritten.",
            disk=dest,
            next_command="set force: true to overwrite it",
        )
        kind = self.wanted.format if self.wanted.format in _PLAIN else "vmdk"
        try:
            with opened(dest, self.staging, kind=kind) as there:
                if there.capacity != self.source.capacity:
                    raise foreign
                says = (there.info.create_type, there.info.adapter_type, there.info.hw_version)
                if kind == "vmdk" and says != (self.wanted.format, self.identity.adapter_type, self.identity.hw_version):
                    return None
                theirs = digest_of(there, threads=self.threads, progress=self._phase("compare"))
                stored = sum(f.size if there.info.embedded else min(f.allocated, f.size) for f in there.files())
        except (VmdkError, SinkError) as e:
            # Damaged: it is mended where what is left of it tells that it was this disk.
            if claimed_capacity(dest) == self.source.capacity:
                return None
            raise foreign from e
        ours = digest_of(self.source, threads=self.threads, checksum=self._new_hasher(), progress=self._phase("compare"))
        return {"bytes_in": 0, "bytes_out": stored, "digest": ours} if ours == theirs else None

    def _write(self) -> dict[str, Any]:
        temporary = self.staging.temporary("new")
        pairs = [(temporary, self.staging.name)]
        digest = DigestMap(self.source.capacity)
        write = self._stream if self.wanted.format == "streamOptimized" else self._ranges
        bytes_in, bytes_out = write(temporary, pairs, digest)
        if any(file.changed() for file in self.source.files()):
            raise SourceError(
                "The source was changed while it was read.", disk=self.src, step="convert", next_command="the same command again"
            )
        self.staging.publish(pairs)
        return {"bytes_in": bytes_in, "bytes_out": bytes_out, "digest": digest.disk_digest()}

    def _stream(self, temporary: str, pairs: list[tuple[str, str]], digest: DigestMap) -> tuple[int, int]:
        try:
            with open(temporary, "xb", buffering=UNIT) as out:
                done = write_stream(
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
                sync(out.fileno(), temporary)
        except OSError as e:
            raise SinkError("The stream cannot be written.", disk=self.staging.dest, step="write", said=e.strerror) from e
        return done["bytes_in"], done["bytes_out"]

    def _ranges(self, temporary: str, pairs: list[tuple[str, str]], digest: DigestMap) -> tuple[int, int]:
        capacity = self.source.capacity
        writer: Writer
        raw = temporary
        if self.wanted.format == "monolithicFlat":
            flat, name = self.staging.temporary("flat"), flat_name(self.staging.name)
            writer = FlatWriter(temporary, flat, name, capacity, self.identity, thin=self.wanted.thin)
            pairs.insert(0, (flat, name))
        elif self.wanted.format == "monolithicSparse":
            writer = SparseWriter(temporary, capacity, self.identity)
        else:
            raw = temporary if self.wanted.format == "raw" else self.staging.temporary("raw")
            writer = RawWriter(raw, capacity, thin=self.wanted.thin or self.wanted.format == "qcow2")
        bytes_in = 0
        try:
            for unit, _stored in chunks(
                self.source,
                lambda offset, data: store(writer, offset, data),
                threads=self.threads,
                digest=digest,
                checksum=self._new_hasher(),
                progress=self._phase("convert"),
            ):
                bytes_in += unit.data
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


def claimed_capacity(path: str) -> int | None:
    """The capacity in bytes that the VMDK C(path), which cannot be opened, claims; None where it claims none."""
    file = RawFile(path, what="dest")
    try:
        head = file.read(0, min(MAX_DESCRIPTOR, file.size))
        return parse(head, path).capacity if is_descriptor(head) else unpack_header(head, path).capacity
    except FerryError:
        return None
    finally:
        file.close()
