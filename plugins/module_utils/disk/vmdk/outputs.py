# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be written, the names of its files, and the writer of each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..controllers import by_name, find
from ..errors import BadInput, VmdkError
from .base import Identity, Writer
from .compress import deflater
from .files import refuse_name
from .flat_writer import FlatWriter, RawWriter
from .sparse_writer import SparseWriter
from .split_writer import SplitWriter, part_sizes
from .staging import Staging, flat_name

#: What can be written, as the option C(format) names it.
FORMATS = (
    "streamOptimized",
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "vmfs",
    "raw",
    "qcow2",
)
#: Those that are no VMDK.
PLAIN = ("raw", "qcow2")
#: Those that a pipe can take.
PIPED = ("streamOptimized", "raw")
_FLAT = ("monolithicFlat", "vmfs")
_SPLIT = ("twoGbMaxExtentSparse", "twoGbMaxExtentFlat")


@dataclass(frozen=True)
class Wanted:
    """What dest shall be."""

    format: str
    adapter_type: str | None
    hw_version: int | None
    thin: bool
    level: int | None


def wanted_of(format: str, adapter_type: str | None, hw_version: int | None, thin: bool, level: int | None) -> Wanted:
    """The wish, checked; BadInput says what cannot be."""
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


def writable(adapter: str | None) -> str | None:
    """The controller C(adapter) where a VMDK can name it, else None."""
    controller = find(adapter) if adapter else None
    return controller.name if controller and controller.ddb else None


def data_files(format: str, name: str, capacity: int) -> dict[str, int]:
    """Names of the data files of a disk beside its descriptor C(name), and the bytes of disk in each; none where it is one file."""
    if format in _FLAT:
        return {flat_name(name): capacity}
    if format not in _SPLIT:
        return {}
    sparse = format == "twoGbMaxExtentSparse"
    stem = flat_name(name)[: -len("-flat.vmdk")]
    sizes = part_sizes(capacity, sparse=sparse)
    return {f"{stem}-{'s' if sparse else 'f'}{number:03d}.vmdk": size for number, size in enumerate(sizes, 1)}


def check_name(format: str, name: str) -> None:
    """Refuse a C(name) that a descriptor cannot hold, or that a reader would take for a path or an URL."""
    if format not in _FLAT and format not in _SPLIT:
        return
    try:
        name.encode("utf-8")
        refuse_name(name, name)
    except (UnicodeEncodeError, VmdkError):
        good = False
    else:
        good = '"' not in name and not re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", name) and name == name.strip()
    if not good:
        raise BadInput("The name of dest cannot stand in a descriptor; choose a plainer one.", disk=name)


def writer_for(
    wanted: Wanted, staging: Staging, temporary: str, capacity: int, identity: Identity
) -> tuple[Writer, list[tuple[str, str]], str]:
    """The writer of everything but a stream, to C(temporary) and temporaries beside it.

    :returns: the writer; (temporary, name) of its data files; the raw file that a qcow2 image is to be made of.
    """
    names = data_files(wanted.format, staging.name, capacity)
    pairs = [(staging.temporary(f"part{number}"), name) for number, name in enumerate(names)]
    raw = temporary
    writer: Writer
    if wanted.format in _FLAT:
        ((flat, name),) = pairs
        writer = FlatWriter(temporary, flat, name, capacity, identity, thin=wanted.thin, vmfs=wanted.format == "vmfs")
    elif wanted.format in _SPLIT:
        sparse = wanted.format == "twoGbMaxExtentSparse"
        writer = SplitWriter(temporary, pairs.__getitem__, capacity, identity, sparse=sparse, thin=wanted.thin)
    elif wanted.format == "monolithicSparse":
        writer = SparseWriter(temporary, capacity, identity)
    else:
        raw = temporary if wanted.format == "raw" else staging.temporary("raw")
        writer = RawWriter(raw, capacity, thin=wanted.thin or wanted.format == "qcow2")
    return writer, pairs, raw
