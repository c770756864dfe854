# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any readable disk to any format that can be written: the work behind vmdk_convert.

What is written appears whole or not at all. A dest that already is what was asked for, by content, is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass
from typing import Any, Iterable, Iterator

from ..controllers import by_name
from ..digest import DigestMap
from ..errors import BadInput, FerryError, SinkError, SourceError, VmdkError
from ..model import SECTOR, Source
from .base import DEFAULT_ADAPTER, DEFAULT_HW_VERSION, Identity, Progress, Writer, cores
from .compress import deflater
from .descriptor import is_descriptor, parse
from .files import RawFile
from .flat_writer import FlatWriter, RawWriter, sync
from .qcow2 import check_qcow2, qcow2_to_raw, raw_to_qcow2
from .reader import Disk, open_disk, open_raw, sniff
from .size import predict, store
from .sparse_writer import SparseWriter
from .staging import Staging, flat_name, removing
from .stream_writer import StreamWriter, chunks
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
def opened(path: str, staging: Staging | None, *, allow_extents: Iterable[str] = (), kind: str | None = None) -> Iterator[Disk]:
    """C(path) as a disk. A qcow2 image is made raw first, in a temporary file of C(staging)."""
    kind = kind or kind_of(path)
    if kind == "qcow2":
        check_qcow2(path)
        if staging is None:
            raise BadInput("A qcow2 image needs a place to be unpacked.", disk=path)
        with removing(staging.temporary(f"raw{abs(hash(path)) % 1000}")) as raw:
            qcow2_to_raw(path, raw)
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
    progress: Progress | None = None,
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
    :param progress: called with (bytes done, capacity).
    :param check: only say what would happen; C(bytes_out) is then predicted within about 5 %.
    :returns: changed, create_type, capacity, bytes_in (data read), bytes_out (stored), digest, seconds, and with
        C(checksum) its value. With C(check), digest is None where dest would be written.
    """
    began = time.monotonic()
    wanted = _wanted(format, adapter_type, hw_version, thin, compression_level)
    if checksum not in (None, "sha256"):
        raise BadInput(f"checksum is {checksum}, it can be sha256.")
    if threads is not None and not 1 <= threads <= 256:
        raise BadInput(f"threads is {threads}, it must be from 1 to 256.")
    allow = list(allow_extents)
    with Staging(dest) as staging, opened(src, staging, allow_extents=allow) as source:
        _apart(source, src, staging)
        if wanted.format not in _PLAIN and source.capacity % SECTOR:
            raise BadInput(f"A VMDK has whole sectors; the source has {source.capacity} bytes.", disk=src)
        identity = Identity(
            name=staging.name,
            adapter_type=wanted.adapter_type or _known_adapter(source) or DEFAULT_ADAPTER,
            hw_version=wanted.hw_version or source.info.hw_version or DEFAULT_HW_VERSION,
        )
        hasher = hashlib.sha256() if checksum else None
        result: dict[str, Any] = {"create_type": wanted.format, "capacity": source.capacity}
        found = None if force else _existing(staging, source, wanted, identity, threads, hasher, progress)
        if found is not None:
            result.update(found, changed=False)
        elif check:
            bytes_in, bytes_out = predict(source, wanted.format, thin=wanted.thin, level=wanted.level)
            result.update(changed=True, bytes_in=bytes_in, bytes_out=bytes_out, digest=None)
            hasher = None
        else:
            hasher = hashlib.sha256() if checksum else None
            result.update(_write(source, staging, wanted, identity, threads or cores(), hasher, progress), changed=True)
            if any(file.changed() for file in source.files()):
                raise SourceError("The source was changed while it was read; dest is not to be trusted.", disk=src, left=dest)
        if hasher is not None:
            result["checksum"] = f"{checksum}:{hasher.hexdigest()}"
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


def _known_adapter(source: Disk) -> str | None:
    """The source's controller where a new VMDK can name it."""
    try:
        return by_name(source.info.adapter_type).name if source.info.adapter_type else None
    except BadInput:
        return None


def _apart(source: Disk, src: str, staging: Staging) -> None:
    """Refuse to write over the source."""
    mine = {file.key for file in source.files()}
    for path in (src, *(os.path.join(staging.folder, n) for n in (staging.name, flat_name(staging.name)))):
        if path != src and os.path.exists(path):
            info = os.stat(path)
            if (info.st_dev, info.st_ino) in mine or os.path.samefile(path, src):
                raise BadInput("dest would write over the source; name another file.", disk=staging.dest)


def _existing(
    staging: Staging, source: Disk, wanted: Wanted, identity: Identity, threads: int | None, hasher: Any, progress: Progress | None
) -> dict[str, Any] | None:
    """The result where dest already is what was asked for, None where it shall be written; BadInput where it is something else."""
    if not os.path.exists(staging.dest):
        return None
    foreign = BadInput(
        "dest exists and holds something else than this disk; it is not overwritten.", disk=staging.dest, next_command="set force: true to overwrite it"
    )
    try:
        kind = wanted.format if wanted.format in _PLAIN else "vmdk"
        with opened(staging.dest, staging, kind=kind) as there:
            if there.capacity != source.capacity:
                raise foreign
            if kind == "vmdk":
                says = there.info
                if (says.create_type, says.adapter_type, says.hw_version) != (wanted.format, identity.adapter_type, identity.hw_version):
                    return None
            digest = digest_of(source, threads=threads, checksum=hasher, progress=progress)
            if digest_of(there, threads=threads) != digest:
                return None
            stored = sum(min(f.allocated, f.size) for f in there.files())
            return {"bytes_in": 0, "bytes_out": stored, "digest": digest}
    except (VmdkError, SinkError) as e:
        # Damaged: it is mended where what is left of it tells that it was this disk.
        if _claims(staging.dest) == source.capacity:
            return None
        raise foreign from e


def _claims(path: str) -> int | None:
    """The capacity in bytes that the damaged file at C(path) claims."""
    file = RawFile(path, what="dest")
    try:
        head = file.read(0, min(MAX_DESCRIPTOR, file.size))
        if is_descriptor(head):
            return parse(head, path).capacity
        return unpack_header(head, path).capacity
    except FerryError:
        return None
    finally:
        file.close()


def _write(source: Disk, staging: Staging, wanted: Wanted, identity: Identity, threads: int, hasher: Any, progress: Progress | None) -> dict[str, Any]:
    digest = DigestMap(source.capacity)
    temporary = staging.temporary("new")
    pairs = [(temporary, staging.name)]
    bytes_in = 0
    if wanted.format == "streamOptimized":
        bytes_in, bytes_out = _write_stream(source, temporary, wanted, identity, threads, digest, hasher, progress)
    else:
        writer: Writer
        raw = temporary
        if wanted.format == "monolithicFlat":
            flat = staging.temporary("flat")
            writer = FlatWriter(temporary, flat, flat_name(staging.name), source.capacity, identity, thin=wanted.thin)
            pairs.insert(0, (flat, flat_name(staging.name)))
        elif wanted.format == "monolithicSparse":
            writer = SparseWriter(temporary, source.capacity, identity)
        else:
            raw = temporary if wanted.format == "raw" else staging.temporary("raw")
            writer = RawWriter(raw, source.capacity, thin=wanted.thin or wanted.format == "qcow2")
        try:
            for unit, _stored in chunks(
                source, lambda offset, data: store(writer, offset, data), threads=threads, digest=digest, checksum=hasher, progress=progress
            ):
                bytes_in += unit.length
            writer.finish()
            bytes_out = writer.bytes_out
        finally:
            writer.close()
        if wanted.format == "qcow2":
            raw_to_qcow2(raw, temporary, threads=threads)
            bytes_out = os.path.getsize(temporary)
            with open(temporary, "rb") as done:
                sync(done.fileno(), temporary)
    staging.publish(pairs)
    return {"bytes_in": bytes_in, "bytes_out": bytes_out, "digest": digest.disk_digest()}


def _write_stream(
    source: Disk, path: str, wanted: Wanted, identity: Identity, threads: int, digest: DigestMap, hasher: Any, progress: Progress | None
) -> tuple[int, int]:
    bytes_in = 0
    try:
        with open(path, "xb", buffering=1 << 20) as out:
            writer = StreamWriter(out, source.capacity, identity, level=wanted.level)
            for unit, pack in chunks(source, writer.pack, threads=threads, digest=digest, checksum=hasher, progress=progress):
                writer.emit(pack)
                bytes_in += unit.length
            writer.finish()
            sync(out.fileno(), path)
    except OSError as e:
        raise SinkError("The stream cannot be written.", disk=path, step="write", said=e.strerror) from e
    return bytes_in, writer.bytes_out
