# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recipes for raw disk images with real file systems, made without root and without mounting.

A recipe is data; its image is cached in build/disks under a hash of the recipe and of the code that makes it. UUIDs, seeds
and times are fixed: with the same e2fsprogs the ext4 and FAT images are the same byte for byte. Not so xfs, whose inode
times are those of the clock: there compare files, or an image with itself.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Sequence

from . import partitions
from .common import BUILD, LabError, need
from .fat import Fat16

MIB = 1 << 20
TIME = 1768478400  # 2026-01-15 12:00 UTC
CACHE = BUILD / "disks"
NAMESPACE = uuid.UUID("0b0e6d0a-7f5c-5a57-8d0e-2f2d0a6b9c11")


@dataclass(frozen=True)
class File:
    """A file's content: text as it is, then so many random bytes from the seed, with holes before data where they are given."""

    text: str = ""
    random: int = 0
    seed: int = 0
    holes: tuple[tuple[int, int], ...] = ()  # (offset, number of random bytes there); the rest is a hole
    size: int = 0  # at least so long, by a hole at the end

    def write(self, path: Path) -> None:
        """Write the file; what is not data stays a hole."""
        source = random.Random(f"{self.seed}:{self.random}:{self.holes}")
        with open(path, "wb") as f:
            f.write(self.text.encode())
            left = self.random
            while left:
                f.write(source.randbytes(min(left, MIB)))
                left -= min(left, MIB)
            for offset, length in self.holes:
                f.seek(offset)
                f.write(source.randbytes(length))
            f.truncate(max(f.tell(), self.size))

    def content(self) -> bytes:
        """The bytes of a small file without holes."""
        return self.text.encode() + random.Random(f"{self.seed}:{self.random}:{self.holes}").randbytes(self.random)


Tree = dict[str, File]


@dataclass(frozen=True)
class Part:
    """A file system and where it lies on the disk, in bytes."""

    kind: str  # ext4, xfs, fat
    start: int
    size: int
    label: str
    tree: Tree


@dataclass(frozen=True)
class Recipe:
    """A disk: size in bytes, partition table, file systems."""

    size: int
    table: str  # mbr, gpt, none
    parts: tuple[Part, ...] = field(default_factory=tuple)


def _ident(name: str) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, name)


def _system(host: str, addresses: Sequence[tuple[str, str]]) -> Tree:
    """What every root file system has."""
    interfaces = "".join(f"# {mac}\nauto eth{i}\niface eth{i} inet static\n    address {ip}/24\n" for i, (mac, ip) in enumerate(addresses))
    return {
        "etc/hostname": File(f"{host}\n"),
        "etc/hosts": File(f"127.0.0.1 localhost\n127.0.1.1 {host}\n"),
        "etc/fstab": File(f"LABEL={host}-root / ext4 defaults 0 1\n"),
        "etc/os-release": File('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'),
        "etc/network/interfaces": File(interfaces),
        "var/log/syslog": File("".join(f"2026-01-15T12:{i // 60 % 60:02d}:{i % 60:02d} {host} demo[{i}]: line {i}\n" for i in range(4000))),
        "boot/vmlinuz": File(random=6 * MIB, seed=7),
        "usr/share/doc/README": File("A file system of the lab: the files are real, the system does not boot.\n" * 20),
    }


def _recipes() -> dict[str, Recipe]:
    start = MIB
    web = 512 * MIB + 3 * 512
    web_tree: Tree = {
        **_system("web01", [("00:50:56:01:02:03", "192.0.2.11")]),
        "var/www/index.html": File("<!doctype html><title>web01</title><p>こんにちは</p>\n"),
        "var/www/画像/ロゴ.bin": File(random=3 * MIB, seed=11),
        "var/www/データ 2026.csv": File("".join(f"{i},行 {i},{i * i}\n" for i in range(20000))),
        "var/lib/app/assets.bin": File(random=40 * MIB, seed=12),
        "var/lib/app/sparse.img": File(holes=((5 * MIB, 65536), (63 * MIB + 4096, 4096)), seed=13, size=96 * MIB),
        "var/lib/app/zeros.bin": File("\0" * (2 * MIB)),
    }
    root = 512 * MIB
    db_tree: Tree = {
        **_system("db01", [("00:50:56:0a:00:22", "192.0.2.12"), ("00:50:56:0a:00:11", "198.51.100.12")]),
        "usr/lib/postgresql/bin/postgres": File(random=24 * MIB, seed=21),
        "etc/postgresql/設定.conf": File("max_connections = 100\nlc_messages = 'ja_JP.UTF-8'\n"),
    }
    esp_tree: Tree = {
        "EFI/BOOT/BOOTX64.EFI": File(random=900000, seed=22),
        "EFI/debian/grub.cfg": File("search --label db01-root --set=root\nset prefix=($root)/boot/grub\n"),
        "startup.nsh": File("\\EFI\\BOOT\\BOOTX64.EFI\r\n"),
    }
    data_tree: Tree = {
        "pgdata/PG_VERSION": File("15\n"),
        **{f"pgdata/base/5/{16384 + i}": File(random=2 * MIB, seed=100 + i) for i in range(20)},
        "pgdata/pg_wal/000000010000000000000001": File(random=4 * MIB, seed=31, size=16 * MIB),
    }
    xfs_tree: Tree = {
        "backup/base.tar": File(random=30 * MIB, seed=41),
        "backup/sparse.img": File(holes=((16 * MIB, 262144), (48 * MIB, 65536)), seed=42, size=64 * MIB),
        "backup/list.txt": File("".join(f"backup {i}\n" for i in range(3000))),
    }
    legacy = 128 * MIB
    legacy_tree: Tree = {
        **_system("legacy01", [("00:50:56:0c:00:01", "192.0.2.13")]),
        "srv/在庫/一覧.txt": File("".join(f"品目 {i:05d}\t数量 {i % 97}\n" for i in range(30000))),
        "srv/在庫/管理.db": File(random=14 * MIB, seed=51),
    }
    esp = 48 * MIB
    return {
        "web01-root": Recipe(web, "mbr", (Part("ext4", start, 511 * MIB, "web01-root", web_tree),)),
        "db01-root": Recipe(
            root,
            "gpt",
            (Part("fat", start, esp, "ESP", esp_tree), Part("ext4", start + esp, root - esp - 2 * MIB, "db01-root", db_tree)),
        ),
        "db01-data": Recipe(256 * MIB, "none", (Part("ext4", 0, 256 * MIB, "db01-data", data_tree),)),
        "db01-xfs": Recipe(320 * MIB, "none", (Part("xfs", 0, 320 * MIB, "db01-xfs", xfs_tree),)),
        "legacy01-root": Recipe(legacy, "mbr", (Part("ext4", start, 127 * MIB, "legacy01-root", legacy_tree),)),
    }


RECIPES = _recipes()


def _run(argv: Sequence[str]) -> None:
    env = {**os.environ, "E2FSPROGS_FAKE_TIME": str(TIME), "SOURCE_DATE_EPOCH": str(TIME), "DETERMINISTIC_SEED": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(list(argv), capture_output=True, text=True, errors="replace", env=env, check=False)
    if done.returncode:
        raise LabError(f"{Path(argv[0]).name} failed ({done.returncode}):\n{(done.stderr or done.stdout)[-2000:]}")


def _write_tree(tree: Tree, folder: Path) -> None:
    for name, file in sorted(tree.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file.write(path)
        os.chmod(path, 0o755 if "/bin/" in name else 0o644)
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (TIME, TIME))
    os.utime(folder, (TIME, TIME))


def _ext4(image: Path, part: Part, name: str, work: Path) -> None:
    mkfs = need("mkfs.ext4", "e2fsprogs", "makes the ext4 file systems of the lab's disks")
    ident = str(_ident(f"{name} {part.label}"))
    options = f"offset={part.start},hash_seed={_ident('hash ' + ident)},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    argv = [mkfs, "-q", "-F", "-b", "4096", "-L", part.label[:16], "-U", ident, "-E", options, "-d", str(work)]
    _run([*argv, str(image), f"{part.size // 1024}k"])
    # mkfs takes over each file's change time, which nobody can set on the way in: debugfs sets it in the image.
    debugfs = need("debugfs", "e2fsprogs", "sets the times in the lab's ext4 file systems")
    commands = work.parent / "commands"
    names = ["", *(str(p.relative_to(work)) for p in sorted(work.rglob("*")))]
    commands.write_text("".join(f'sif "/{n}" ctime @{TIME}\n' for n in names), encoding="utf-8")
    _run([debugfs, "-w", "-f", str(commands), f"{image}?offset={part.start}"])


def _xfs(image: Path, part: Part, name: str, work: Path) -> None:
    """XFS takes its files from a prototype (mkfs.xfs(8), -p): names in it hold no spaces."""
    mkfs = need("mkfs.xfs", "xfsprogs", "makes the xfs file system of db01's third disk")
    lines = ["/stand/diskboot", "0 0", "d--755 0 0"]

    def folder(path: Path) -> None:
        for entry in sorted(path.iterdir()):
            if entry.is_dir():
                lines.append(f"{entry.name} d--755 0 0")
                folder(entry)
                lines.append("$")
            else:
                lines.append(f"{entry.name} ---644 0 0 {entry}")

    folder(work)
    proto = work.parent / "proto"
    proto.write_text("\n".join([*lines, "$", ""]), encoding="utf-8")
    if part.start:
        raise LabError("an xfs file system starts at the beginning of a disk here")
    ident = str(_ident(f"{name} {part.label}"))
    _run([mkfs, "-q", "-f", "-L", part.label[:12], "-m", f"uuid={ident}", "-p", str(proto), "-d", f"file=0,name={image},size={part.size}"])


def _fat(image: Path, part: Part, name: str) -> None:
    with open(image, "r+b") as f:
        serial = _ident(f"{name} {part.label}").int & 0xFFFFFFFF
        Fat16(part.size // 512, serial, part.label).write(f, part.start, {p: x.content() for p, x in part.tree.items()})


def _make(name: str, recipe: Recipe, image: Path, work: Path) -> None:
    with open(image, "wb") as f:
        f.truncate(recipe.size)
    for i, part in enumerate(recipe.parts):
        if part.kind == "fat":
            _fat(image, part, name)
            continue
        tree = work / f"tree{i}"
        tree.mkdir()
        _write_tree(part.tree, tree)
        make: dict[str, Callable[[Path, Part, str, Path], None]] = {"ext4": _ext4, "xfs": _xfs}
        make[part.kind](image, part, name, tree)
    entries = []
    for p in recipe.parts:
        kind = partitions.GPT_ESP if p.kind == "fat" else partitions.GPT_LINUX
        entries.append(partitions.Entry(p.start // 512, p.size // 512, kind, _ident(f"{name} part {p.label}"), p.label))
    with open(image, "r+b") as f:
        if recipe.table == "mbr":
            partitions.write_mbr(f, _ident(name).int & 0xFFFFFFFF, entries)
        elif recipe.table == "gpt":
            partitions.write_gpt(f, _ident(name), recipe.size // 512, entries)
        f.truncate(recipe.size)


def _sparse_copy(src: Path, dst: Path) -> None:
    """Copy what is not zero, in blocks of 4 KiB: mkfs writes and reserves zeroes, which shall be holes."""
    block, big = 4096, MIB
    zero_block, zero_big = bytes(block), bytes(big)
    with open(src, "rb") as i, open(dst, "wb") as o:
        size = os.fstat(i.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(i.fileno(), at, os.SEEK_DATA) // big * big
            except OSError as e:
                if e.errno == errno.ENXIO:  # only a hole is left
                    break
                raise
            data = os.pread(i.fileno(), big, at)
            if data != zero_big[: len(data)]:
                for offset in range(0, len(data), block):
                    part = data[offset : offset + block]
                    if part != zero_block[: len(part)]:
                        o.seek(at + offset)
                        o.write(part)
            at += big
        o.truncate(size)


def build(name: str) -> Path:
    """Give the raw image of a recipe, made now or earlier. It is read-only: who writes takes a copy.

    Raises LabError when a system package is missing (it names the package) or a tool fails.
    """
    recipe = RECIPES[name]
    code = b"".join(Path(p).read_bytes() for p in (__file__, partitions.__file__, sys.modules[Fat16.__module__].__file__ or ""))
    key = hashlib.sha256(repr((name, recipe)).encode() + code).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    image = CACHE / f"{name}-{key}.raw"
    if image.exists():
        return image
    with open(CACHE / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if image.exists():
            return image
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{name}-") as temp:
            new = Path(temp) / "image"
            _make(name, recipe, new, Path(temp))
            sparse = Path(temp) / "sparse"
            _sparse_copy(new, sparse)
            os.chmod(sparse, 0o444)
            os.replace(sparse, image)
        for old in CACHE.glob(f"{name}-*.raw"):
            if old != image:
                old.unlink()
    return image
