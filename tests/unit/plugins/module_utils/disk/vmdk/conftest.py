# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks to read and write, and readers that are not ours."""

from __future__ import annotations

import hashlib
import importlib
import random
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import Disk, open_disk

GRAIN = 65536


class Disks:
    """Makes disks in a folder, and asks other programs what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def raw(self, size: int, *, name: str = "src.raw", seed: int = 1, pieces: int = 8, content: str = "mixed") -> Path:
        """A sparse raw disk of C(size) bytes: mixed (random, text, zeroes, holes), empty, zeroes (allocated) or full."""
        rng = random.Random(seed)
        path = self.folder / name
        with path.open("wb") as out:
            out.truncate(size)
            if content == "full":
                out.write(rng.randbytes(size))
            elif content == "zeroes":
                out.write(bytes(size))
            elif content == "mixed" and size:
                for _n in range(pieces):
                    at = rng.randrange(size)
                    length = min(rng.randrange(1, 3 * GRAIN), size - at)
                    out.seek(at)
                    out.write(rng.randbytes(length // 3) + bytes(length // 3) + b"text " * (length // 15))
                out.seek(size - 1)
                out.write(b"E")
        return path

    def qemu(self, raw: Path, subformat: str, *, adapter: str = "ide") -> Path:
        """C(raw) as a VMDK written by qemu-img."""
        path = self.folder / f"qemu-{subformat}.vmdk"
        self.run(
            "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat},adapter_type={adapter}", str(raw), str(path)
        )
        return path

    def run(self, *command: str) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        subprocess.run(command, check=True, capture_output=True)

    def descriptor(self, text: str, name: str = "disk.vmdk") -> Path:
        path = self.folder / name
        path.write_bytes(text.encode())
        return path

    def by_qemu(self, path: Path) -> str:
        out = path.with_suffix(".by-qemu")
        self.run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(path), str(out))
        return self.sha(out)

    @staticmethod
    def by_dissect(path: Path) -> str:
        vmdk: Any = pytest.importorskip("dissect.hypervisor.disk.vmdk")
        with path.open("rb") as f, warnings.catch_warnings():
            # It leaves the descriptors of parents open.
            warnings.simplefilter("ignore", ResourceWarning)
            disk = vmdk.VMDK(f)
            # Its read() asks for sectors past an odd end; read_sectors() does not.
            data = disk.read_sectors(0, disk.size // 512) if disk.size else b""
        while disk is not None:
            for part in disk.disks:
                part.fh.close()
            disk = disk.parent
        return hashlib.sha256(data).hexdigest()

    @staticmethod
    def by_libvmdk(path: Path) -> str:
        pytest.importorskip("pyvmdk")
        handle = importlib.import_module("pyvmdk").handle()
        handle.open(str(path))
        handle.open_extent_data_files()
        total = hashlib.sha256()
        size = handle.get_media_size()
        for at in range(0, size, 1 << 20):
            total.update(handle.read_buffer_at_offset(min(1 << 20, size - at), at))
        handle.close()
        return total.hexdigest()

    @staticmethod
    def sha(path: Path) -> str:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    @staticmethod
    def ours(path: Path | Disk, step: int = 1 << 20) -> str:
        """SHA-256 of the disk as we read it: the extents are walked, then all of it is read in steps."""
        disk = path if isinstance(path, Disk) else open_disk(str(path))
        total = hashlib.sha256()
        with disk:
            at = 0
            for e in disk.extents():
                assert e.start == at and e.length > 0
                at = e.end
            assert at == disk.capacity
            for start in range(0, at, step):
                total.update(disk.read(start, min(step, at - start)))
        return total.hexdigest()

    @staticmethod
    def patch(path: Path, offset: int, data: bytes) -> None:
        with path.open("r+b") as out:
            out.seek(offset, 2 if offset < 0 else 0)
            out.write(data)

    @staticmethod
    def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(path.read_bytes()))


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path)
