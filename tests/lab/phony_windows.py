# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that libguestfs and virt-v2v take for Windows Server 2019, with nothing of Windows on it: a registry, two NTFS file systems, the names of
files. With it inspection, the choice of drivers, the changes of the registry and the messages can be tried; that Windows starts cannot.
"""

from __future__ import annotations

import fcntl
import hashlib
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from .common import need
from .debian_guest import CACHE, MIB, fish, run

_VERSION = r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_SYSTEM = r"HKEY_LOCAL_MACHINE\SYSTEM"
SOFTWARE: dict[str, dict[str, object]] = {
    _VERSION: {
        "CurrentBuild": "17763",
        "CurrentBuildNumber": "17763",
        "CurrentMajorVersionNumber": 10,
        "CurrentMinorVersionNumber": 0,
        "CurrentVersion": "6.3",
        "EditionID": "ServerStandard",
        "InstallationType": "Server",
        "ProductName": "Windows Server 2019 Standard",
        "SystemRoot": r"C:\\Windows",
    },
    r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion": {
        "DevicePath": r"%SystemRoot%\\inf",
        "ProgramFilesDir": r"C:\\Program Files",
    },
}
SYSTEM: dict[str, dict[str, object]] = {
    _SYSTEM + r"\Select": {"Current": 1, "Default": 1},
    _SYSTEM + r"\MountedDevices": {r"\\DosDevices\\C:": b"1234\0\0\0\x10\0\0\0\0"},
    _SYSTEM + r"\ControlSet001\Control\CriticalDeviceDatabase": {},
    _SYSTEM + r"\ControlSet001\Control\ComputerName\ComputerName": {"ComputerName": "WINVM"},
    _SYSTEM + r"\ControlSet001\Services\Tcpip\Parameters": {"Hostname": "winvm"},
    _SYSTEM + r"\ControlSet001\Enum": {},
    _SYSTEM + r"\DriverDatabase\DriverPackages": {},
}
_DISK = """run
part-init /dev/sda mbr
part-add /dev/sda p 64 524287
part-add /dev/sda p 524288 -64
part-set-mbr-id /dev/sda 1 7
part-set-mbr-id /dev/sda 2 7
pwrite-device /dev/sda "1234" 0x1b8
mkfs ntfs /dev/sda1
mkfs ntfs /dev/sda2
mount /dev/sda2 /
mkdir-p /Windows/System32/config
mkdir-p /Windows/System32/drivers
mkdir-p /Windows/inf
mkdir-p /Windows/Drivers
mkdir "/Program Files"
upload {folder}/software /Windows/System32/config/SOFTWARE
upload {folder}/system /Windows/System32/config/SYSTEM
upload {folder}/cmd.exe /Windows/System32/cmd.exe
touch /autoexec.bat
{more}umount-all
"""


@dataclass(frozen=True)
class Phony:
    """C(disk): the image, read-only. C(virtio_win): a folder with names of drivers. C(tools): what virt-v2v puts beside them."""

    disk: Path
    virtio_win: Path
    tools: Path


def build(*, hibernated: bool = False) -> Phony:
    """Made now (half a minute, emulated) or earlier."""
    CACHE.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((SOFTWARE, SYSTEM, _DISK)).encode()).hexdigest()[:16]
    kind = "hibernated-" if hibernated else ""
    made = Phony(CACHE / f"phony-{kind}{key}.raw", CACHE / f"phony-{key}.drivers", CACHE / f"phony-{key}.tools")
    with open(CACHE / ".phony.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.disk.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=".phony-") as temp:
                _make(Path(temp), made, hibernated)
    return made


def _make(folder: Path, made: Phony, hibernated: bool) -> None:
    for name, keys in (("software", SOFTWARE), ("system", SYSTEM)):
        (folder / name).write_bytes(hive())
        (folder / f"{name}.reg").write_text(registry(keys))
        prefix = rf"HKEY_LOCAL_MACHINE\{name.upper()}"
        run(
            [
                need("hivexregedit", "libwin-hivex-perl", "fills a registry"),
                "--merge",
                "--prefix",
                prefix,
                str(folder / name),
                str(folder / f"{name}.reg"),
            ]
        )
    (folder / "cmd.exe").write_bytes(executable())
    for place, names in ((made.virtio_win / "amd64" / "2k19", _drivers()), (made.tools, ["rhsrvany.exe", "pnp_wait.exe"])):
        place.mkdir(parents=True, exist_ok=True)
        for file in names:
            (place / file).write_bytes(executable() if file.endswith(".exe") else b"not a driver\n")
    disk = folder / "disk.raw"
    with open(disk, "wb") as f:
        f.truncate(1024 * MIB)
    more = 'write /hiberfil.sys "HIBR and what was in memory"\n' if hibernated else ""
    fish(_DISK.format(folder=folder, more=more), (disk, ""))
    run(["cp", "--sparse=always", str(disk), str(folder / "sparse")])
    (folder / "sparse").chmod(0o444)
    (folder / "sparse").replace(made.disk)


def _drivers() -> list[str]:
    names = ("netkvm", "viostor", "vioscsi", "balloon", "vioser", "viorng", "qxldod", "pvpanic")
    return [f"{name}.{end}" for name in names for end in ("cat", "inf", "sys")]


def executable() -> bytes:
    """The headers of a PE32+ program for x86-64, which is what inspection reads the architecture from (Microsoft's "PE Format")."""
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 512, 0, 0, 0x1000, 0x1000) + struct.pack(
        "<QIIHHHHHHIIIIHHQQQQII", 0x140000000, 0x1000, 512, 6, 0, 0, 0, 6, 0, 0, 0x2000, 512, 0, 3, 0, 1 << 20, 4096, 1 << 20, 4096, 0, 16
    )
    section = b".text".ljust(8, b"\0") + struct.pack("<IIIIIIHHI", 16, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    return (head.ljust(0x80, b"\0") + coff + optional.ljust(240, b"\0") + section).ljust(512, b"\0") + b"\xc3".ljust(512, b"\0")


def registry(keys: Mapping[str, Mapping[str, object]]) -> str:
    """The keys as hivexregedit reads them, parents before children."""
    lines, seen = ["Windows Registry Editor Version 5.00", ""], set()
    for key, values in keys.items():
        parts = key.split("\\")
        for depth in range(3, len(parts)):
            parent = "\\".join(parts[:depth])
            if parent not in seen:
                lines += [f"[{parent}]", ""]
                seen.add(parent)
        seen.add(key)
        lines.append(f"[{key}]")
        for name, value in values.items():
            if isinstance(value, int):
                lines.append(f'"{name}"=dword:{value:08x}')
            elif isinstance(value, bytes):
                lines.append(f'"{name}"=hex(3):{",".join(f"{b:02x}" for b in value)}')
            else:
                kind = 2 if name == "DevicePath" else 1
                lines.append(f'"{name}"=str({kind}):"{value}"')
        lines.append("")
    return "\n".join(lines) + "\n"


def hive() -> bytes:
    """An empty registry hive (the format as hivex documents it: regf, one hbin, a root key and its security)."""
    own = struct.pack("<BBHIIII", 1, 0, 0x8004, 0x14, 0x20, 0, 0x2C)
    own += bytes.fromhex("010200000000000520000000") + bytes.fromhex("010100000000000512000000") + bytes(8)
    free = 0xFFFFFFFF
    links = (0, free, free, 0, free, 0x20 + 96, free, 0, 0, 0, 0)
    root = b"nk" + struct.pack("<HQIII", 0x2C, 0, 0, free, 0) + struct.pack("<11I", *links) + struct.pack("<IHH", 0, 4, 0) + b"ROOT"
    root = struct.pack("<i", -96) + root.ljust(92, b"\0")[:92]
    security = _cell(b"sk" + struct.pack("<HIIII", 0, 0x20 + 96, 0x20 + 96, 1, len(own)) + own)
    body = root + security
    left = 4096 - 32 - len(body)
    body += struct.pack("<i", left) + bytes(left - 4)
    block = b"hbin" + struct.pack("<IIQQI", 0, 4096, 0, 0, 0) + body
    head = (b"regf" + struct.pack("<IIQIIIIIII", 1, 1, 0, 1, 3, 0, 1, 0x20, 4096, 1)).ljust(0x1FC, b"\0")
    check = 0
    for word in struct.unpack(f"<{0x1FC // 4}I", head):
        check ^= word
    return (head + struct.pack("<I", check)).ljust(4096, b"\0") + block


def _cell(content: bytes) -> bytes:
    size = (len(content) + 4 + 7) // 8 * 8
    return struct.pack("<i", -size) + content.ljust(size - 4, b"\0")
