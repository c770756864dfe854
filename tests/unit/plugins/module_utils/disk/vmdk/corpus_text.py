# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""More malformed disks: markers and compressed data, descriptors, split disks, names, chains, and what is no VMDK at all."""

from __future__ import annotations

import functools
import io
import random
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Iterator

from . import builder, deltas
from .builder import GRAIN, GRAIN_SECTORS, SECTORS, SIZE
from .corpus import DISK, EITHER, GRAINS, LINE, READ, REFUSE, RIGHT, Case, Special, bases, one, plain, put, sha, stream

FLAT = DISK
FLAT_LINE = f'RW {SECTORS} FLAT "disk-flat.vmdk" 0\n'


def _bomb() -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _n in range(32)) + packer.flush()


def _raw(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def markers() -> Iterator[Case]:
    """Compressed grains that lie about their size or place, and markers that are not what they say."""
    whole = GRAINS[5]
    bodies = {
        "deflate without zlib": _raw(whole),
        "gzip": zlib.compressobj(1, zlib.DEFLATED, 31).compress(whole) + zlib.compressobj(1, zlib.DEFLATED, 31).flush(),
        "bomb": _bomb(),
        "a byte short": zlib.compress(whole[:-1]),
        "a byte long": zlib.compress(whole + b"x"),
        "double": zlib.compress(whole * 2),
        "empty": zlib.compress(b""),
        "cut": zlib.compress(whole)[:-1],
        "without checksum": zlib.compress(whole)[:-4],
        "wrong checksum": zlib.compress(whole)[:-1] + b"\0",
        "stored": whole,
        "zeroes": bytes(500),
        "with a dictionary": _with_dictionary(whole),
    }
    for front in (False, True):
        base = "front" if front else "stream"
        for name, body in bodies.items():
            yield one(f"{base}: grain {name}", stream(front=front, packed={5: builder.grain(5, whole, body=body)}).data, REFUSE)
        packed = zlib.compress(whole, 1)
        for name, body in (("padding", packed + bytes(9)), ("garbage", packed + b"garbage")):
            yield one(f"{base}: {name} behind the data", stream(front=front, packed={5: builder.grain(5, whole, body=body)}).data)
        for size in (0, 1, 2, len(packed) - 1, len(packed) + 1, len(packed) + 512, GRAIN, 1 << 20, (1 << 31), (1 << 32) - 1):
            yield one(f"{base}: marker size {size}", stream(front=front, packed={5: builder.grain(5, whole, size=size)}).data)
        for lba in (0, 1, 3 * 16, 5 * 16 + 1, 7 * 16, 6 * 16, SECTORS, SECTORS + 16, 1 << 32, 1 << 63, (1 << 64) - 1):
            must = REFUSE
            yield one(f"{base}: marker of sector {lba:#x}", stream(front=front, packed={5: builder.grain(5, whole, lba=lba)}).data, must)
        crossed = {5: builder.grain(5, GRAINS[7], lba=7 * GRAIN_SECTORS), 7: builder.grain(7, whole, lba=5 * GRAIN_SECTORS)}
        yield one(f"{base}: crossed grains", stream(front=front, packed=crossed).data, REFUSE)
        for name, extra in (
            ("a grain twice", builder.grain(5, GRAINS[8])),
            ("a grain nobody names", builder.grain(4, GRAINS[8])),
            ("an unknown marker", builder.marker(9, 0)),
            ("a marker of many sectors", builder.marker(4, 1 << 40)),
            ("an end", bytes(512)),
            ("text", b"<html>".ljust(512, b"x")),
        ):
            yield one(f"{base}: {name} between", stream(front=front, before={5: extra}).data)
    built = stream()
    for name, at in built.at.items():
        if not name.startswith("marker") and name != "end":
            continue
        for field, offset, size in (("value", 0, 8), ("size", 8, 4), ("type", 12, 4), ("rest", 16, 4)):
            for value in (0, 1, 2, 3, 4, 5, 512, (1 << 31), (1 << 32) - 1):
                data = put(built.copy(), at + offset, value, size)
                if data != built.data:
                    yield one(f"stream: {name} {field} = {value:#x}", data)
    footer = built.at["marker footer"]
    yield one("stream: no footer", built.data[:footer], REFUSE)
    yield one("stream: no end", built.data[:-512], REFUSE)
    yield one("stream: two footers", built.data + built.data[footer:])
    yield one("stream: footer that points to a footer", put(built.copy(), built.at["footer"] + 56, (1 << 64) - 1, 8), REFUSE)
    yield one("stream: footer in front", built.data[:512] + built.data[footer : footer + 1024] + built.data[512:], REFUSE)
    other = builder.stream({n: d[::-1] for n, d in GRAINS.items()}, builder.descriptor("streamOptimized", LINE))
    yield one("stream: another stream behind", built.data + other.data)
    rng = random.Random(7)
    first = built.grains[0]
    for n in range(40):
        at = rng.randrange(first, built.at["end_of_grains"])
        yield one(f"stream: bit {n} turned in the grains, at {at}", put(built.copy(), at, built.data[at] ^ (1 << rng.randrange(8)), 1))


def _with_dictionary(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, zdict=b"grain text")
    return packer.compress(data) + packer.flush()


def _flat(name: str, text: bytes, must: str = EITHER, *right: str, **files: bytes | Special) -> Case:
    named: dict[str, bytes | Special] = {"disk.vmdk": text, "disk-flat.vmdk": FLAT}
    named.update({k.replace("__", "."): v for k, v in files.items()})
    return Case(name, named, must, frozenset(right or {RIGHT}))


def descriptors() -> Iterator[Case]:
    """The text of a flat disk's descriptor, and of an embedded one."""
    good = builder.descriptor("monolithicFlat", FLAT_LINE)
    text = good.decode()
    yield _flat("flat: sound", good, READ)
    line = FLAT_LINE.strip()
    variants: dict[str, tuple[str, str]] = {
        "CRLF": (text.replace("\n", "\r\n"), READ),
        "CR": (text.replace("\n", "\r"), EITHER),
        "blanks around =": (text.replace("=", " = "), READ),
        "trailing blanks": (text.replace("\n", "  \n"), READ),
        "tabs": (text.replace(line, line.replace(" ", "\t", 2)), EITHER),
        "unquoted createType": (text.replace('"monolithicFlat"', "monolithicFlat"), READ),
        "#Disk": (text.replace("# Disk", "#Disk"), READ),
        "empty line before the extent": (text.replace(line, "\n" + line), READ),
        "no last newline": (text.rstrip("\n"), READ),
        "unknown keys": (text + 'some.key = "x"\nother=1\n', READ),
        "commented extent": (text.replace(line, f"#{line}\n{line}"), READ),
        "extent twice": (text.replace(line, f"{line}\n{line}"), REFUSE),
        "no extent": (text.replace(line, ""), REFUSE),
        "extent cut": (text.replace(line, line[:-4]), EITHER),
        "RDONLY": (text.replace("RW ", "RDONLY "), READ),
        "NOACCESS": (text.replace("RW ", "NOACCESS "), REFUSE),
        "unknown access": (text.replace("RW ", "RX "), REFUSE),
        "lower case": (text.replace("RW ", "rw ").replace("FLAT", "flat"), EITHER),
        "unknown type": (text.replace("FLAT", "FLATT"), REFUSE),
        "SPARSE": (text.replace("FLAT", "SPARSE"), REFUSE),
        "ZERO in front": (text.replace(line, f"RW 16 ZERO\n{line}"), READ),
        "two createTypes": (text + 'createType="monolithicSparse"\n', REFUSE),
        "no createType": (text.replace("createType", "creatType"), REFUSE),
        "unknown createType": (text.replace("monolithicFlat", "monolithicFlit"), REFUSE),
        "createType in a comment": (text.replace("createType", "#createType"), REFUSE),
        "CID not hex": (text.replace("1234abcd", "xyz"), REFUSE),
        "CID of 33 bits": (text.replace("1234abcd", "11234abcd"), REFUSE),
        "a parent": (text.replace("ffffffff", "00000000"), REFUSE),
        "a hint without a parent": (text.replace("parentCID", 'parentFileNameHint="x.vmdk"\nparentCID'), READ),
        "encrypted": (text + 'encryptionKeys="vmware:key/list/x"\n', REFUSE),
        "a line of nonsense": (text + "nonsense here\n", REFUSE),
        "a line of 1 MiB": (text + "#" + "x" * (1 << 20) + "\n", EITHER),
        "50,000 extents": (text.replace(line, "\n".join(f'RW 1 FLAT "disk-flat.vmdk" {i}' for i in range(50_000))), REFUSE),
        "50,000 keys": (text + "".join(f"k{i}=1\n" for i in range(50_000)), EITHER),
        "a NUL": (text + "\0\0", EITHER),
        "a NUL in the middle": (text.replace("# Extent", "\0# Extent"), REFUSE),
        "binary behind": (text + "\0binary", REFUSE),
        "unknown encoding": (text.replace("UTF-8", "no-such-code"), EITHER),
        "a codec that is no text": (text.replace("UTF-8", "zlib_codec"), EITHER),
        "digits of another script": (text.replace(str(SECTORS), "٩٥٩١"), REFUSE),
        "version 9": (text.replace("version=1", "version=9"), EITHER),
        "text of another kind": (text.replace("# Disk DescriptorFile", "# Disk descriptor"), REFUSE),
    }
    for name, (body, must) in variants.items():
        right = sha(bytes(16 * 512) + DISK) if name == "ZERO in front" else RIGHT
        yield _flat(f"flat: {name}", body.encode(), must, right)
    for size in (0, 1, SECTORS - 1, SECTORS + 1, SECTORS * 2, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 10**30):
        yield _flat(f"flat: size {size}", text.replace(f" {SECTORS} ", f" {size} ").encode(), REFUSE)
    for word in ("-1", "1e3", "0x10", "", "9599.5", "９"):
        yield _flat(f"flat: size {word!r}", text.replace(f" {SECTORS} ", f" {word} ").encode(), REFUSE)
    for offset in ("1", "-1", str(1 << 40), str(1 << 64), "x"):
        yield _flat(f"flat: offset {offset}", text.replace('" 0', f'" {offset}').encode(), REFUSE)
    for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"):
        yield _flat(f"flat: in {codec}", text.encode(codec), READ if codec in ("utf-8-sig", "utf-16") else EITHER)
    for cut in range(0, len(good), 23):
        yield _flat(f"flat: descriptor cut to {cut}", good[:cut], REFUSE if cut < good.index(b"RW ") else EITHER)
    for short in (0, 1, 511, 512, SIZE - 1, SIZE - 512):
        yield _flat(f"flat: {short} bytes left", good, REFUSE, disk_flat__vmdk=b"", **{"disk-flat__vmdk": FLAT[:short]})
    yield _flat("flat: longer by zeroes", good, EITHER, **{"disk-flat__vmdk": FLAT + bytes(1 << 20)})
    yield _flat("flat: longer by data", good, REFUSE, **{"disk-flat__vmdk": FLAT + bytes(65536) + b"data"})
    for base, built in bases().items():
        start = built.data.index(b"# Disk")
        for name, old, new in (
            ("another name", b'"disk.vmdk"', b'"/etc/x.vm"'),
            ("FLAT line", b" SPARSE ", b" FLAT   "),
            ("VMFS line", b" SPARSE ", b" VMFS   "),
            ("createType flat", b'"monolithicSparse"', b'"monolithicFlat"  '),
            ("createType vmfs", b'"streamOptimized"', b'"vmfs"           '),
            ("no magic line", b"# Disk Descr", b"# Dosk Descr"),
            ("parent", b"parentCID=ffffffff", b"parentCID=00000001"),
            ("size less", f"RW {SECTORS}".encode(), f"RW {SECTORS - 1}".encode()),
            ("size more", f"RW {SECTORS}".encode(), f"RW {SECTORS + 1}".encode()),
            ("NOACCESS", b"# Extent description\nRW ", b"# Extent\nNOACCESS    "),
        ):
            data = built.copy()
            if old in data:
                at = data.index(old, start)
                data[at : at + len(old)] = new[: len(old)].ljust(len(old))
                yield one(f"{base}: embedded {name}", data, READ if name == "another name" else EITHER if "create" in name else REFUSE)


def _split(
    kind: str,
    create: str,
    files: dict[str, bytes | Special],
    right: str,
    name: str,
    chosen: list[str],
    must: str,
    change: dict[str, bytes | Special | None] | None = None,
) -> Case:
    """A split disk with the extent lines C(chosen) and its files C(files), some of them changed (None: missing)."""
    named: dict[str, bytes | Special] = {**files, "disk.vmdk": builder.descriptor(create, "\n".join(chosen) + "\n")}
    for key, value in (change or {}).items():
        if value is None:
            del named[key]
        else:
            named[key] = value
    return Case(f"split {kind}: {name}", named, must, frozenset({right}))


def split() -> Iterator[Case]:
    """Split disks: lines lost, swapped, doubled; files missing, short, of another disk."""
    half = 512 * GRAIN_SECTORS
    sizes = [half, SECTORS - half]
    parts = [builder.sparse({n - 512 * i: d for n, d in GRAINS.items() if n // 512 == i}, sectors=sizes[i]).data for i in range(2)]
    third = builder.sparse({}, sectors=half).data
    for kind in ("SPARSE", "FLAT"):
        letter = "s" if kind == "SPARSE" else "f"
        create = "twoGbMaxExtentSparse" if kind == "SPARSE" else "twoGbMaxExtentFlat"
        names = [f"disk-{letter}{i:03}.vmdk" for i in (1, 2, 3)]
        lines = [f'RW {s} {kind} "{n}"' + (" 0" if kind == "FLAT" else "") for s, n in zip([*sizes, half], names, strict=True)]
        files: dict[str, bytes | Special] = (
            {n: bytes(p) for n, p in zip(names, [*parts, third], strict=True)}
            if kind == "SPARSE"
            else {names[0]: FLAT[: half * 512], names[1]: FLAT[half * 512 :], names[2]: bytes(half * 512)}
        )
        right = sha(DISK + bytes(half * 512))

        case = functools.partial(_split, kind, create, files, right)
        yield case("sound", lines, READ)
        yield case("first line lost", lines[1:], REFUSE)
        yield case("middle line lost", [lines[0], lines[2]], REFUSE)
        yield case("last line lost", lines[:2], REFUSE)
        yield case("lines swapped", [lines[1], lines[0], lines[2]], REFUSE)
        yield case("a line doubled", [lines[0], *lines], REFUSE)
        yield case("a line doubled at the end", [*lines, lines[2]], REFUSE)
        yield case("names swapped", [lines[0].replace("001", "002"), lines[1].replace("002", "001"), lines[2]], REFUSE)
        yield case("no access to one", [lines[0], lines[1].replace("RW", "NOACCESS"), lines[2]], REFUSE)
        yield case("a size less", [lines[0].replace(str(half), str(half - 16)), *lines[1:]], REFUSE)
        yield case("a size more", [lines[0].replace(str(half), str(half + 16)), *lines[1:]], REFUSE)
        yield case("the other type", [x.replace(kind, "FLAT" if kind == "SPARSE" else "SPARSE") for x in lines], REFUSE)
        for number, name in enumerate(names):
            yield case(f"{name} missing", lines, REFUSE, {name: None})
            yield case(f"{name} empty", lines, REFUSE, {name: b""})
            data = files[name]
            assert isinstance(data, bytes)
            yield case(f"{name} cut", lines, REFUSE, {name: data[:-512] if kind == "FLAT" or number < 2 else data[:1024]})
            yield case(f"{name} is a folder", lines, REFUSE, {name: Special("folder")})
            yield case(f"{name} is a FIFO", lines, REFUSE, {name: Special("fifo")})
            yield case(f"{name} is text", lines, REFUSE, {name: b"<html>nothing</html>"})
        yield Case(f"split {kind}: an extent as head", dict(files), REFUSE if kind == "SPARSE" else EITHER, frozenset({right}), names[0])
    for field, at, size in (("capacity", 12, 8), ("grain", 20, 8), ("gd", 56, 8), ("rgd", 48, 8), ("flags", 8, 4)):
        for value in (0, 1, 2, 8, 1 << 31, (1 << 63), (1 << 64) - 1):
            data = put(bytearray(parts[0]), at, value, size)
            named = {
                "disk-s001.vmdk": bytes(data),
                "disk-s002.vmdk": bytes(parts[1]),
                "disk.vmdk": builder.descriptor(
                    "twoGbMaxExtentSparse", f'RW {sizes[0]} SPARSE "disk-s001.vmdk"\nRW {sizes[1]} SPARSE "disk-s002.vmdk"\n'
                ),
            }
            yield Case(f"split: extent's {field} = {value:#x}", dict(named), EITHER)


def names() -> Iterator[Case]:
    """Names that lead where nothing is to be opened (CVE-2022-47951)."""
    outside = ["../out/secret.vmdk", "./../out/secret.vmdk", "sub/../../out/secret.vmdk", "{out}/secret.vmdk", "{out}/pipe", "../out/pipe"]
    odd = [
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "/etc/passwd",
        "file:{out}/secret.vmdk",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x",
    ]
    odd += [
        "nbd:unix:/x",
        'json:{"driver":"file"}',
        "ssh://x/y",
        "C:\\x.vmdk",
        "\\\\.\\PhysicalDrive0",
        "sub\\x.vmdk",
        "",
        ".",
        "..",
        "/",
        "sub",
    ]
    odd += ["x" * 300, "x" * 5000, "disk.vmdk", "a\tb", "~/x.vmdk", "$HOME/x", "fd:0", "host_device:/dev/sda", "fat:rw:/"]
    for name in [*outside, *odd]:
        for kind, create in (("FLAT", "monolithicFlat"), ("SPARSE", "twoGbMaxExtentSparse"), ("VMFS", "vmfs"), ("FLAT", "fullDevice")):
            tail = "" if kind != "FLAT" else " 0"
            text = builder.descriptor(create, f'RW {SECTORS} {kind} "{name}"{tail}\n')
            yield Case(f"name {name[:40]} in {create}", {"disk.vmdk": text, "sub": Special("folder")}, REFUSE)
        child = plain_child(hint=name)
        yield Case(f"parent {name[:40]}", {"disk.vmdk": child, "sub": Special("folder")}, REFUSE)
    flat = builder.descriptor("monolithicFlat", FLAT_LINE)
    for target in ("../out/secret.vmdk", "../out/pipe", "/dev/zero", "/etc/passwd", "disk-flat.vmdk", "nowhere"):
        yield Case(f"link to {target}", {"disk.vmdk": flat, "disk-flat.vmdk": Special("link", target)}, REFUSE)
    yield Case("link inside", {"disk.vmdk": flat, "disk-flat.vmdk": Special("link", "other"), "other": FLAT}, READ)
    yield Case("link of a folder", {"disk.vmdk": flat.replace(b'"disk-flat', b'"sub/disk-flat'), "sub": Special("link", "../out")}, REFUSE)
    yield Case("head is a folder", {"disk.vmdk": Special("folder")}, REFUSE)
    yield Case("head is a link to nowhere", {"disk.vmdk": Special("link", "nowhere")}, REFUSE)
    empty = builder.sparse({}, text=builder.descriptor("monolithicSparse", 'RW 16 SPARSE "/etc/passwd"\n'), sectors=16).data
    yield one("capacity 0 with a descriptor that leads away", put(bytearray(empty), 12, 0, 8), REFUSE)


def plain_child(*, hint: str = "base.vmdk", parent: str = "1234abcd", cid: str = "0badcafe", sectors: int = SECTORS) -> bytes:
    line = f'RW {sectors} SPARSE "disk.vmdk"\n'
    text = builder.descriptor("monolithicSparse", line, cid=cid, parent=parent, hint=hint)
    return bytes(builder.sparse({3: GRAINS[1]}, text=text, sectors=sectors).data)


def _delta(kind: str, head: bytes, base: bytes, right: str, name: str, body: bytes, must: str = EITHER) -> Case:
    named: dict[str, bytes | Special] = {"disk.vmdk": head, "x-delta.vmdk": body, "base.vmdk": base}
    return Case(f"{kind}: {name}", named, must, frozenset({right}))


def chains() -> Iterator[Case]:
    base = bytes(plain().data)
    over = sha(builder.disk({**GRAINS, 3: GRAINS[1]}))

    def case(name: str, must: str, child: bytes, **files: bytes | Special) -> Case:
        named: dict[str, bytes | Special] = {"disk.vmdk": child, **{k.replace("__", "."): v for k, v in files.items()}}
        return Case(f"chain: {name}", named, must, frozenset({over}))

    yield case("sound", READ, plain_child(), base__vmdk=base)
    yield case("another CID", REFUSE, plain_child(parent="1234abce"), base__vmdk=base)
    yield case("a zero parent CID", REFUSE, plain_child(parent="00000000"), base__vmdk=base)
    yield case("no parent file", REFUSE, plain_child())
    yield case("its own parent", REFUSE, plain_child(hint="disk.vmdk", cid="1234abcd"))
    yield case("a circle of two", REFUSE, plain_child(), base__vmdk=plain_child(hint="disk.vmdk", cid="1234abcd", parent="0badcafe"))
    yield case("a link to itself", REFUSE, plain_child(cid="1234abcd"), base__vmdk=Special("link", "disk.vmdk"))
    yield case("parent cut", REFUSE, plain_child(), base__vmdk=base[: len(base) // 2])
    yield case("parent empty", REFUSE, plain_child(), base__vmdk=b"")
    yield case("parent is a FIFO", REFUSE, plain_child(), base__vmdk=Special("fifo"))
    yield case("parent is raw", REFUSE, plain_child(), base__vmdk=DISK)
    yield case("parent is larger", REFUSE, plain_child(sectors=SECTORS - 16), base__vmdk=base)
    deep: dict[str, bytes | Special] = {}
    for n in range(200):
        deep[f"d{n}.vmdk"] = plain_child(hint=f"d{n + 1}.vmdk", cid=f"{n + 1:08x}", parent=f"{n + 2:08x}", sectors=16 * 16)
    yield Case("chain: 200 deep", deep, REFUSE, head="d0.vmdk")
    with tempfile.TemporaryDirectory() as folder:
        for kind, line in (("cowd", "VMFSSPARSE"), ("sesparse", "SESPARSE")):
            file = Path(folder) / kind
            grains: dict[int, bytes | str] = {n: bytes([n % 200 + 1]) * (512 if kind == "cowd" else 4096) for n in (0, 3, 900)}
            getattr(deltas, kind)(file, SECTORS, grains)
            data = file.read_bytes()
            size = 512 if kind == "cowd" else 4096
            right = sha(deltas.expected(DISK, grains, size, SECTORS))
            create = "vmfsSparse" if kind == "cowd" else "seSparse"
            head = deltas.descriptor(create, [(SECTORS, line, "x-delta.vmdk")], parent_cid=0x1234ABCD, hint="base.vmdk").encode()

            delta = functools.partial(_delta, kind, head, base, right)
            yield delta("sound", data, READ)
            width = 4 if kind == "cowd" else 8
            for at in range(0, 44 if kind == "cowd" else 208, width):
                for value in (0, 1, 2, 3, 5, 1 << 16, (1 << 31), (1 << 32) - 1, (1 << 63), (1 << 64) - 1):
                    changed = bytes(put(bytearray(data), at, value, width))
                    if changed != data:
                        yield delta(f"byte {at} = {value:#x}", changed)
            used = [i for i in range(512, len(data) - width, width) if any(data[i : i + width]) and i < (1 << 20)][:40]
            for at in used:
                for value in (0, 1, len(data) // 512, (1 << 31), (1 << 64) - 1):
                    changed = bytes(put(bytearray(data), at, value, width))
                    inside = data[at : at + width] in (bytes([n % 200 + 1]) * width for n in grains)
                    if changed != data and not inside:
                        yield delta(f"word {at} = {value:#x}", changed)
            for cut in (0, 1, 511, 512, 2048, len(data) // 2, len(data) - 4096, len(data) - 512, len(data) - 1):
                yield delta(f"cut to {cut}", data[:cut], REFUSE)
            yield Case(f"{kind}: without its descriptor", {"disk.vmdk": data}, REFUSE)


def foreign() -> Iterator[Case]:
    for name, data in {
        "nothing": b"",
        "a byte": b"K",
        "KDM": b"KDM",
        "KDMV": b"KDMV",
        "KDMV and zeroes": b"KDMV" + bytes(508),
        "KDMV and ones": b"KDMV" + b"\xff" * 508,
        "COWD": b"COWD" + bytes(2044),
        "COWD and ones": b"COWD" + b"\xff" * 2044,
        "seSparse and ones": b"\xbe\xba\xfe\xca\0\0\0\0" + b"\xff" * 504,
        "a page": b"<!DOCTYPE html><html><body>404 \x1b[31m not found</body></html>" * 50,
        "qcow2": b"QFI\xfb\0\0\0\3" + bytes(100),
        "qcow2 cut": b"QFI\xfb",
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "VHDX": b"vhdxfile" + bytes(1000),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "ELF": b"\x7fELF" + bytes(100),
        "zeroes": bytes(1 << 20),
        "noise": random.Random(1).randbytes(1 << 16),
        "a comment": b"# Disk DescriptorFile",
        "comments": b"# Disk DescriptorFile\n" + b"#\n" * 100_000,
        "UTF-16 of odd length": b"\xff\xfe#",
        "a lone surrogate": b"\xff\xfe\x00\xd8\x00\xd8",
        "XML": b"<?xml version='1.0'?><Envelope/>",
    }.items():
        yield one(f"foreign: {name}", data, REFUSE)
    yield Case("foreign: 100 MB descriptor", {"disk.vmdk": Special("text", "# Disk DescriptorFile\n# comment\n", 100 << 20)}, REFUSE)
    yield Case("foreign: a sparse 4 TiB file", {"disk.vmdk": Special("size", size=4 << 40)}, REFUSE)
    yield Case("foreign: qcow2 named so", {"disk.qcow2": b"QFI\xfb" + b"\xff" * 508}, REFUSE, head="disk.qcow2")
    yield Case("foreign: missing", {"other": b""}, REFUSE)


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def containers() -> Iterator[Case]:
    """OVA members and OVF chunks: cut, doubled, lost, of wrong sizes, with names that lead away."""
    disk = bytes(stream().data)
    ovf = b"<Envelope/>"
    good = _tar([("x.ovf", ovf), ("disk.vmdk", disk), ("x.mf", b"SHA256(x)= 0")])
    place = good.index(b"disk.vmdk")

    def ova(name: str, data: bytes, must: str = EITHER, head: str = "x.ova") -> Case:
        return Case(f"OVA: {name}", {"x.ova": data}, must, head=head)

    yield ova("sound", good, READ)
    yield ova("sound, by member", good, READ, "x.ova/disk.vmdk")
    yield ova("no such member", good, REFUSE, "x.ova/other.vmdk")
    yield ova("a member above", good, REFUSE, "x.ova/../../out/secret.vmdk")
    yield ova("disk first", _tar([("disk.vmdk", disk), ("x.ovf", ovf)]), READ)
    yield ova("no disk", _tar([("x.ovf", ovf)]), REFUSE)
    yield ova("two of one name", _tar([("disk.vmdk", disk), ("disk.vmdk", disk[::-1])]), REFUSE)
    yield ova("empty", b"", REFUSE)
    yield ova("zeroes", bytes(10240), REFUSE)
    yield ova("a disk that is none", _tar([("disk.vmdk", b"<html>" * 100)]), REFUSE)
    for cut in (1, 511, 512, 1024, place + 256, place + 512 + len(disk) // 2, place + len(disk), len(good) - 10240 + 1024):
        yield ova(f"cut to {cut}", good[:cut], REFUSE if cut < place + len(disk) else EITHER)
    for at, value in (
        (124, b"00000000001"),
        (124, b"77777777777"),
        (124, b"\x80" + b"\xff" * 10),
        (124, b"-0000000001"),
        (124, b"           "),
        (148, b"0000000"),
    ):
        data = bytearray(good)
        data[place + at : place + at + len(value)] = value
        yield ova(f"field {at} = {value!r}", bytes(data), REFUSE)
        # The same with a checksum that is right again.
        data[place + 148 : place + 156] = b" " * 8
        data[place + 148 : place + 156] = b"%06o\0 " % sum(data[place : place + 512])
        yield ova(f"field {at} = {value!r}, checksum mended", bytes(data), REFUSE if at == 124 else READ)
    for kind in b"123456KLgxSVDM":
        data = bytearray(good)
        data[place + 156] = kind
        data[place + 148 : place + 156] = b" " * 8
        data[place + 148 : place + 156] = b"%06o\0 " % sum(data[place : place + 512])
        yield ova(f"member of type {chr(kind)}", bytes(data))
    size = 20_480
    chunks = {f"disk.vmdk.{i:09}": disk[at : at + size] for i, at in enumerate(range(0, len(disk), size))}
    names = sorted(chunks)

    def chunked(name: str, change: dict[str, bytes | Special | None], must: str) -> Case:
        files: dict[str, bytes | Special] = dict(chunks)
        for key, value in change.items():
            if value is None:
                del files[key]
            else:
                files[key] = value
        return Case(f"chunks: {name}", files, must, head=names[0])

    yield chunked("sound", {}, READ)
    yield chunked("one missing", {names[1]: None}, REFUSE)
    yield chunked("the last missing", {names[-1]: None}, REFUSE)
    yield chunked("one short", {names[1]: chunks[names[1]][:-512]}, REFUSE)
    yield chunked("one empty", {names[1]: b""}, REFUSE)
    yield chunked("two swapped", {names[1]: chunks[names[2]], names[2]: chunks[names[1]]}, REFUSE)
    yield chunked("one is a link away", {names[1]: Special("link", "../out/secret.vmdk")}, REFUSE)
    yield chunked("one is a FIFO", {names[1]: Special("fifo")}, REFUSE)
    yield chunked("one more", {f"disk.vmdk.{len(names):09}": b"more"}, REFUSE)
    yield chunked("one more of zeroes", {f"disk.vmdk.{len(names):09}": bytes(512)}, EITHER)


SOURCES = (containers, markers, descriptors, split, names, chains, foreign)
