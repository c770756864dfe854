# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text descriptor of a VMDK: parsed from bytes without touching a file, and written.

Source: VMware "Virtual Disk Format 5.0", section "The Descriptor File". What real makers write otherwise (CRLF, blanks
around C(=), unquoted values, a byte order mark, C(#Disk)) is accepted; a line that is neither comment, extent nor
C(key=value) is refused, because a skipped extent line shifts the disk.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from dataclasses import dataclass, field

from ..errors import VmdkError
from ..model import SECTOR
from .structs import MAX_DESCRIPTOR, MAX_SECTORS

NO_PARENT = 0xFFFFFFFF
#: 62 TiB in pieces of 2 GiB are 31,744 extents.
MAX_EXTENTS = 40000
_HEAD = re.compile(r"^#\s*disk\s*descriptorfile\b", re.I)
_EXTENT = re.compile(r'^(\S+)[ \t]+(\S+)[ \t]+([A-Za-z]+)(?:[ \t]+"(.*?)"(?:[ \t]+(\S+))?(.*))?$', re.S)
_KEY = re.compile(r"^([A-Za-z0-9_.\-]+)[ \t]*=[ \t]*(.*)$", re.S)
_LOOKS_LIKE_EXTENT = re.compile(r"^(rw|rdonly|noaccess)\b", re.I)
_CID = re.compile(r"^[0-9a-fA-F]{1,8}$")
_NUMBER = re.compile(r"^[0-9]{1,19}$")

FLAT_TYPES = frozenset({"monolithicFlat", "twoGbMaxExtentFlat", "fullDevice", "partitionedDevice"})
SPARSE_TYPES = frozenset({"monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized"})
VMFS_TYPES = frozenset({"vmfs", "vmfsThin", "vmfsPreallocated", "vmfsEagerZeroedThick", "vmfsZeroedThick"})
DELTA_TYPES = frozenset({"vmfsSparse", "seSparse", "vmfsSESparse"})
DEVICE_TYPES = frozenset({"vmfsRDM", "vmfsRDMP", "vmfsRaw", "vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap"})
_TYPES = {t.lower(): t for t in FLAT_TYPES | SPARSE_TYPES | VMFS_TYPES | DELTA_TYPES | DEVICE_TYPES | {"custom", "vsanSparse"}}
_TYPES.update({"2gbmaxextentsparse": "twoGbMaxExtentSparse", "2gbmaxextentflat": "twoGbMaxExtentFlat"})


@dataclass(frozen=True)
class ExtentLine:
    """One extent line. C(sectors) and C(offset) count sectors of 512 bytes; C(raw) is the name's bytes as they stand there."""

    access: str
    sectors: int
    type: str
    name: str = ""
    offset: int = 0
    raw: bytes = b""
    extra: str = ""
    line: int = 0

    @property
    def names(self) -> list[str]:
        """Spellings of the name to look for on disk: the bytes as given first, then as the descriptor's encoding has them."""
        return _spellings(self.raw, self.name)


def _spellings(raw: bytes, name: str) -> list[str]:
    return list(dict.fromkeys([os.fsdecode(raw), name] if raw else [name]))


@dataclass
class Descriptor:
    """A parsed descriptor; keys keep their last value, in the spelling of the file."""

    create_type: str
    extents: list[ExtentLine] = field(default_factory=list)
    cid: int = NO_PARENT - 1
    parent_cid: int = NO_PARENT
    parent_hint: str | None = None
    parent_raw: bytes = b""
    encoding: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    #: The same by the key in lower case.
    folded: dict[str, str] = field(default_factory=dict, repr=False)
    ddb: dict[str, str] = field(default_factory=dict)
    encrypted: bool = False
    #: Bytes of text.
    size: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def capacity(self) -> int:
        """Bytes of the disk, as the extent lines say."""
        return sum(e.sectors for e in self.extents) * SECTOR

    @property
    def adapter_type(self) -> str | None:
        """C(ddb.adapterType) as it stands there."""
        return self.ddb.get("adapterType")

    @property
    def hw_version(self) -> str | None:
        """C(ddb.virtualHWVersion) as it stands there."""
        return self.ddb.get("virtualHWVersion")

    @property
    def parent_names(self) -> list[str]:
        """Spellings of C(parent_hint) to look for on disk, as C(ExtentLine.names)."""
        return _spellings(self.parent_raw, self.parent_hint or "")

    @property
    def is_delta(self) -> bool:
        """True where it hangs on a parent disk."""
        return self.parent_cid != NO_PARENT or self.create_type in DELTA_TYPES


def is_descriptor(data: bytes) -> bool:
    """True where C(data), the beginning of a file, is that of a text descriptor."""
    try:
        text = _decode(data[:4096], "")
    except VmdkError:
        return False
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped:
            return bool(_HEAD.match(stripped))
    return False


def _decode(data: bytes, where: str) -> str:
    """Text of C(data); bytes that are no UTF-8 survive as surrogates, so that names can be told from their bytes later."""
    # Without a mark, the zero half of a "#" tells.
    if data[:2] in (b"#\0", b"\0#"):
        data = (codecs.BOM_UTF16_LE if data[:1] == b"#" else codecs.BOM_UTF16_BE) + data
    for bom, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(bom):
            body = data[len(bom) :]
            if name == "utf-8":
                return body.decode("utf-8", "surrogateescape")
            try:
                return body[: len(body) & ~1].decode(name)
            except UnicodeDecodeError as e:
                raise VmdkError("The descriptor is not valid UTF-16.", path=where, offset=e.start) from e
    return data.decode("utf-8", "surrogateescape")


def _left_of_older(body: str, tail: str) -> bool:
    """True where C(tail) is what qemu left of an older text behind the zero byte that ends the present one.

    It writes a new CID in place without leading zeroes (vmdk_write_cid in block/vmdk.c): where that has fewer digits, the
    text gets shorter by so many bytes, and the last bytes of the older text, the same as the present one's, stay there.
    """
    return len(tail) < 7 and body.endswith(tail)


def parse(data: bytes, where: str, *, offset: int = 0, embedded: bool = False) -> Descriptor:
    """Parse the descriptor in C(data).

    :param where: the file it comes from, for errors.
    :param offset: byte offset of C(data) in that file.
    :param embedded: it stands inside a sparse file, padded with zero bytes.
    :raises VmdkError: for whatever is no descriptor, or one that cannot be believed.
    """
    if len(data) > MAX_DESCRIPTOR:
        raise VmdkError("The descriptor is too long.", path=where, offset=offset, found=len(data), expected=f"at most {MAX_DESCRIPTOR}")
    problems: list[str] = []
    text = _decode(data, where)
    body, nul, rest = text.partition("\0")
    if nul and rest != "\0" * len(rest) and not _left_of_older(body, rest.rstrip("\0")):
        if not embedded:
            raise VmdkError(
                "The descriptor holds binary data.", path=where, offset=offset + body.encode("utf-8", "surrogateescape").__len__()
            )
        problems.append("bytes follow the end of the descriptor; they are ignored")
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((line.strip() for line in lines if line.strip()), "")
    if not _HEAD.match(first):
        raise VmdkError("Not a VMDK descriptor.", path=where, offset=offset, found=first[:60], expected="# Disk DescriptorFile")
    d = Descriptor("", problems=problems, size=len(data))
    pending: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        # A key may be called "rw"; an extent line never has "=" straight after its first word.
        is_key = _KEY.match(line)
        if is_key:
            _key(d, is_key[1], is_key[2], where, number)
        elif _EXTENT.match(line):
            pending.append((number, line))
        else:
            raise VmdkError(
                "A line of the descriptor is neither comment, key nor extent."
                if not _LOOKS_LIKE_EXTENT.match(line)
                else "A broken extent line.",
                path=where,
                found=f"line {number}: {line[:80]}",
            )
        if len(pending) > MAX_EXTENTS:
            raise VmdkError("Too many extents.", path=where, expected=f"at most {MAX_EXTENTS}")
    d.extents = [_extent(line, number, d.encoding, where) for number, line in pending]
    total = sum(e.sectors for e in d.extents)
    if total > MAX_SECTORS:
        raise VmdkError("Impossible capacity in sectors.", path=where, found=total, expected=f"at most {MAX_SECTORS}")
    if not d.create_type:
        raise VmdkError("The descriptor has no createType.", path=where)
    if d.parent_hint:
        d.parent_raw = d.parent_hint.encode("utf-8", "surrogateescape")
        d.parent_hint = _name(d.parent_raw, d.encoding)
    if (d.parent_hint or d.create_type in DELTA_TYPES) and not any(key.lower() == "parentcid" for key in d.values):
        # Taken for "no parent", the disk would read as zeroes where it is the parent's.
        raise VmdkError("The descriptor of a delta has no parentCID.", path=where, found=d.parent_hint or d.create_type)
    if d.parent_hint and d.parent_cid == NO_PARENT:
        d.problems.append("parentFileNameHint is set though parentCID says that there is no parent; it is ignored")
    return d


def _unquote(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _key(d: Descriptor, key: str, quoted: str, where: str, line: int) -> None:
    value = _unquote(quoted)
    low = key.lower()
    if low.startswith("ddb."):
        d.ddb[key[4:]] = value
        return
    before = d.folded.get(low)
    if before is not None and before != value and low in ("createtype", "cid", "parentcid", "parentfilenamehint", "encoding"):
        raise VmdkError(f"The descriptor has {key} twice.", path=where, found=f"line {line}: {value[:60]}", expected=before[:60])
    d.values[key] = d.folded[low] = value
    if low == "createtype":
        if value.lower() not in _TYPES:
            raise VmdkError("Unknown createType.", path=where, found=f"line {line}: {value[:60]}")
        d.create_type = _TYPES[value.lower()]
    elif low in ("cid", "parentcid"):
        if not _CID.match(value):
            raise VmdkError(f"{key} is not a hexadecimal number of 32 bits.", path=where, found=f"line {line}: {value[:60]}")
        if low == "cid":
            d.cid = int(value, 16)
        else:
            d.parent_cid = int(value, 16)
    elif low == "parentfilenamehint":
        d.parent_hint = value
    elif low == "encoding":
        d.encoding = value
    elif low in ("encryptionkeys", "keyid") or low.startswith("encryption"):
        d.encrypted = True


def _number(text: str, what: str, where: str, line: int, limit: int) -> int:
    if not _NUMBER.match(text) or int(text) > limit:
        raise VmdkError(f"Impossible {what} in an extent line.", path=where, found=f"line {line}: {text[:60]}", expected=f"0 to {limit}")
    return int(text)


def _extent(line: str, number: int, encoding: str | None, where: str) -> ExtentLine:
    found = _EXTENT.match(line)
    if found is None:
        raise VmdkError("A broken extent line.", path=where, found=f"line {number}: {line[:80]}")
    access, size, kind, name, offset, extra = found.groups()
    if access.upper() not in ("RW", "RDONLY", "NOACCESS"):
        raise VmdkError(
            "Unknown access word in an extent line.", path=where, found=f"line {number}: {line[:80]}", expected="RW, RDONLY or NOACCESS"
        )
    count = _number(size, "size", where, number, MAX_SECTORS)
    if name is None and kind.upper() != "ZERO":
        raise VmdkError("An extent line without a name.", path=where, found=f"line {number}: {line[:80]}")
    raw = (name or "").encode("utf-8", "surrogateescape")
    if extra and extra.strip() and (offset is None or kind.upper() in ("FLAT", "SPARSE", "VMFS", "ZERO")) and "partitionUUID" not in extra:
        raise VmdkError("Unknown words at the end of an extent line.", path=where, found=f"line {number}: {extra.strip()[:80]}")
    return ExtentLine(
        access=access.upper(),
        sectors=count,
        type=kind.upper(),
        name=_name(raw, encoding),
        offset=_number(offset, "offset", where, number, 1 << 55) if offset is not None else 0,
        raw=raw,
        extra=(extra or "").strip(),
        line=number,
    )


def _name(raw: bytes, encoding: str | None) -> str:
    for codec in (encoding, "utf-8"):
        try:
            return raw.decode(codec) if codec else raw.decode("utf-8")
        except (LookupError, UnicodeError, ValueError):
            continue
    return os.fsdecode(raw)


def new_uuid(seed: bytes | None = None) -> str:
    """A C(ddb.uuid) in VMware's spelling: a fresh one, or that of C(seed)."""
    # 6000C29 is the prefix of VMware's NAA identifiers for virtual disks.
    raw = "6000C29" + (os.urandom(13) if seed is None else hashlib.sha256(seed).digest()).hex()[:25]
    pairs = [raw[i : i + 2] for i in range(0, 32, 2)]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])


def compose(
    *,
    create_type: str,
    extents: list[tuple[str, int, str, str, int | None]],
    adapter_type: str,
    geometry: tuple[int, int, int],
    hw_version: int,
    cid: int,
    uuid: str | None = None,
    thin: bool | None = None,
) -> bytes:
    """The bytes of a new descriptor without a parent.

    :param extents: (access, sectors, type, name, offset in sectors or None) of each extent line.
    :param geometry: cylinders, heads, sectors.
    :param uuid: with it, what follows depends on nothing but the parameters.
    :param thin: adds C(ddb.thinProvisioned) where not None.
    """
    content = os.urandom(12) if uuid is None else hashlib.sha256(f"{uuid}:{cid:08x}".encode()).digest()[:12]
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        'encoding="UTF-8"',
        f"CID={cid:08x}",
        f"parentCID={NO_PARENT:08x}",
        f'createType="{create_type}"',
        "",
        "# Extent description",
    ]
    for access, count, kind, name, offset in extents:
        lines.append(f'{access} {count} {kind} "{name}"' + ("" if offset is None else f" {offset}"))
    lines += ["", "# The Disk Data Base", "#DDB", "", f'ddb.adapterType = "{adapter_type}"']
    for key, value in zip(("cylinders", "heads", "sectors"), geometry, strict=True):
        lines.append(f'ddb.geometry.{key} = "{value}"')
    lines.append(f'ddb.longContentID = "{content.hex()}{cid:08x}"')
    if thin is not None:
        lines.append(f'ddb.thinProvisioned = "{int(thin)}"')
    lines.append(f'ddb.uuid = "{uuid or new_uuid()}"')
    lines.append(f'ddb.virtualHWVersion = "{hw_version}"')
    return ("\n".join(lines) + "\n").encode("utf-8")
