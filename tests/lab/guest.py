# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small guest that boots: Debian's kernel, busybox as its init, GRUB, real partitions with ext4; made without root.

It tells on its serial console which firmware, disks, controllers and cards it sees, what stands on its disks, and later which disks
were plugged in. Kernel and busybox are unpacked from Debian's packages under build/guest; nothing of them is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from . import cpio, partitions
from .common import BUILD, LabError, need
from .fat import Fat16

MIB = 1 << 20
CACHE = BUILD / "guest"
NAMESPACE = uuid.UUID("6f1d0b52-3c1e-5d58-9a70-5c4a0d3c9e01")
BEGIN, END = "FERRY-GUEST-BEGIN", "FERRY-GUEST-END"
#: What a guest on VMware and one on KVM may need; what they depend on comes along, what the kernel has built in is left out.
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "sd_mod", "vmw_pvscsi", "mptspi", "mptsas", "sym53c8xx", "ata_piix"),
    *("ahci", "nvme", "vmxnet3", "e1000", "e1000e", "pcnet32", "ext4"),
)
#: Features that GRUB reads, whatever this machine's mkfs would set by itself.
_EXT4 = "none,has_journal,extent,huge_file,flex_bg,dir_index,filetype,sparse_super,large_file"
_ESP = 40 * MIB
_START = MIB


@dataclass(frozen=True)
class Disks:
    """The guest's disks as raw images, read-only: who writes takes a copy."""

    root: Path
    data: Path


def build(firmware: str) -> Disks:
    """The disks of the guest for C(firmware), bios or efi; made now or earlier.

    Raises LabError when a system package is missing (it names it) or cannot be downloaded.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel = _packages()
        code = b"".join(Path(p).read_bytes() for p in (__file__, cpio.__file__, partitions.__file__, _init()))
        key = hashlib.sha256(code + (kernel / "versions").read_bytes()).hexdigest()[:16]
        made = Disks(CACHE / f"root-{firmware}-{key}.raw", CACHE / f"data-{key}.raw")
        if not made.data.exists():
            _data_disk(made.data)
        if not made.root.exists():
            _root_disk(made.root, firmware, kernel)
    return made


def _init() -> Path:
    return Path(__file__).with_name("guest_init.sh")


# -- Debian's packages --------------------------------------------------------------------------------------------------


def _packages() -> Path:
    """The folder with vmlinuz, busybox and modules/ of the packages."""
    ready = CACHE / "unpacked"
    if (ready / "versions").exists():
        return ready
    need("dpkg-deb", "dpkg", "unpacks the guest's kernel")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".packages-") as temp:
        folder = Path(temp)
        names = [_kernel_package(), "busybox-static"]
        _run(["apt-get", "download", *names], cwd=folder)
        new = folder / "unpacked"
        (new / "modules").mkdir(parents=True)
        for package in sorted(folder.glob("*.deb")):
            _unpack(package, new)
        for name in ("vmlinuz", "busybox"):
            if not (new / name).exists():
                raise LabError(f"Debian's packages {', '.join(names)} hold no {name}")
        (new / "versions").write_text("\n".join(sorted(p.name for p in folder.glob("*.deb"))) + "\n")
        shutil.rmtree(ready, ignore_errors=True)
        new.rename(ready)
    return ready


def _kernel_package() -> str:
    """What linux-image-amd64 stands for now. Not the cloud kernel, which lacks LSI Logic's controllers."""
    said = _run(["apt-cache", "depends", "--no-recommends", "--no-suggests", "linux-image-amd64"])
    found = re.search(r"Depends: (linux-image-\S+-amd64)\s", said)
    if found is None:
        raise LabError("apt knows no package linux-image-amd64: apt-get update")
    return found[1]


def _unpack(package: Path, target: Path) -> None:
    """Take the kernel, its modules and busybox out of a package."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                stem = name.rpartition("/")[2]
                if not member.isfile():
                    continue
                if name.startswith("boot/vmlinuz-"):
                    place = target / "vmlinuz"
                elif name in ("bin/busybox", "usr/bin/busybox"):
                    place = target / "busybox"
                elif "/kernel/" in name and re.search(r"\.ko(\.xz)?$", name) and "/debug/" not in name:
                    place = target / "modules" / re.sub(r"\.ko(\.xz)?$", ".ko", stem).replace("-", "_")
                else:
                    continue
                file = archive.extractfile(member)
                assert file is not None
                data = file.read()
                place.write_bytes(lzma.decompress(data) if name.endswith(".xz") else data)
    if reader.returncode:
        raise LabError(f"{package.name} cannot be unpacked")


def _needed(folder: Path) -> list[str]:
    """MODULES that are no part of the kernel itself, and what they depend on, in the order in which they are to be loaded."""
    order: list[str] = []

    def add(name: str) -> None:
        path = folder / f"{name}.ko"
        if name in order or not path.exists():
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for other in depends[1].decode().split(",") if depends and depends[1] else ():
            add(other.replace("-", "_"))
        # Asked for by name when it is used (MODULE_SOFTDEP), which nobody answers here.
        for other in ("crc32c_generic",) if name == "ext4" else ():
            add(other)
        order.append(name)

    for module in MODULES:
        add(module)
    return order


# -- the disks ----------------------------------------------------------------------------------------------------------


def _initramfs(kernel: Path) -> bytes:
    modules = _needed(kernel / "modules")
    made = cpio.Archive()
    for folder in ("bin", "dev", "proc", "sys", "mnt", "mnt/root", "mnt/data", "lib", "lib/modules"):
        made.folder(folder)
    made.device("dev/console", 5, 1)
    made.file("bin/busybox", (kernel / "busybox").read_bytes(), 0o755)
    made.link("bin/sh", "busybox")
    made.file("init", _init().read_bytes(), 0o755)
    made.file("lib/modules/order", "".join(f"{m}\n" for m in modules).encode(), 0o644)
    for module in modules:
        made.file(f"lib/modules/{module}.ko", (kernel / "modules" / f"{module}.ko").read_bytes(), 0o644)
    return made.gzip()


# Emulated on a busy machine, timers are late: the kernel is not to take that for broken hardware.
GRUB = """\
serial --unit=0 --speed=115200
terminal_output serial
echo GRUB loads the kernel
linux /boot/vmlinuz console=ttyS0,115200 quiet panic=30 net.ifnames=0 no_timer_check rcupdate.rcu_cpu_stall_suppress=1
initrd /boot/initrd.img
boot
"""
#: Where the boot loader finds the rest, whatever number the disk has now.
EARLY = "search --label --set=root ferry-root\nset prefix=($root)/boot/grub\n"


def _root_disk(target: Path, firmware: str, kernel: Path) -> None:
    size = 96 * MIB + (_ESP if firmware == "efi" else 0) + 3 * 512
    start = _START + (_ESP if firmware == "efi" else 0)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".root-") as temp:
        folder, image = Path(temp), Path(temp) / "image"
        tree = folder / "tree"
        for name, content in {
            "boot/vmlinuz": (kernel / "vmlinuz").read_bytes(),
            "boot/initrd.img": _initramfs(kernel),
            "boot/grub/grub.cfg": GRUB.encode(),
            "etc/ferry": b"root of the guest\n",
        }.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        _image(image, size)
        _ext4(image, start, 94 * MIB, "ferry-root", tree)
        with open(image, "r+b") as disk:
            if firmware == "efi":
                _uefi_loader(disk, folder, size, start)
            else:
                _bios_loader(disk, folder, start)
        _keep(image, target)


def _data_disk(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".data-") as temp:
        image, tree = Path(temp) / "image", Path(temp) / "tree"
        tree.mkdir()
        (tree / "data.txt").write_text("the second disk\n")
        _image(image, 24 * MIB)
        _ext4(image, _START, 22 * MIB, "ferry-data", tree)
        with open(image, "r+b") as disk:
            partitions.write_mbr(disk, 0xFE44D47A, [partitions.Entry(_START // 512, 22 * MIB // 512)])
        _keep(image, target)


def _grub(folder: Path, platform: str, *modules: str) -> bytes:
    mkimage = need("grub-mkimage", "grub-common", "makes the guest's boot loader")
    early, core = folder / "early.cfg", folder / "core.img"
    early.write_text(EARLY)
    always = ("ext2", "search", "search_label", "normal", "linux", "serial", "terminal", "echo", "configfile", "boot")
    _run([mkimage, "-O", platform, "-o", str(core), "-c", str(early), "-p", "/boot/grub", *always, *modules])
    return core.read_bytes()


def _bios_loader(disk: io.BufferedRandom, folder: Path, start: int) -> None:
    """GRUB's first stage in the MBR; the second behind it, where its first stage looks for it unless told otherwise: in sector 1."""
    core = _grub(folder, "i386-pc", "biosdisk", "part_msdos")
    if 512 + len(core) > start:
        raise LabError(f"GRUB's image of {len(core)} bytes does not fit in front of the first partition")
    partitions.write_mbr(disk, 0xFE440001, [partitions.Entry(start // 512, 94 * MIB // 512)])
    boot = Path("/usr/lib/grub/i386-pc/boot.img")
    if not boot.exists():
        raise LabError(f"{boot} is missing: apt-get install grub-pc-bin")
    disk.seek(0)
    disk.write(boot.read_bytes()[:440])
    disk.seek(512)
    disk.write(core)


def _uefi_loader(disk: io.BufferedRandom, folder: Path, size: int, start: int) -> None:
    """GRUB where firmware looks that knows nothing of the disk: the removable media path (UEFI specification, 3.5.1.1)."""
    core = _grub(folder, "x86_64-efi", "part_gpt", "fat")
    Fat16(_ESP // 512, 0xFE440002, "ESP").write(disk, _START, {"EFI/BOOT/BOOTX64.EFI": core})
    entries = [
        partitions.Entry(_START // 512, _ESP // 512, partitions.GPT_ESP, uuid.uuid5(NAMESPACE, "esp"), "ESP"),
        partitions.Entry(start // 512, 94 * MIB // 512, partitions.GPT_LINUX, uuid.uuid5(NAMESPACE, "root"), "root"),
    ]
    partitions.write_gpt(disk, uuid.uuid5(NAMESPACE, "disk"), size // 512, entries)


def _image(path: Path, size: int) -> None:
    with open(path, "wb") as f:
        f.truncate(size)


def _ext4(image: Path, start: int, size: int, label: str, tree: Path) -> None:
    mkfs = need("mkfs.ext4", "e2fsprogs", "makes the guest's file systems")
    before = image.stat().st_size
    options = f"offset={start},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    _run([mkfs, "-q", "-F", "-b", "4096", "-O", _EXT4, "-L", label, "-E", options, "-d", str(tree), str(image), f"{size // 1024}k"])
    with open(image, "r+b") as f:
        f.truncate(before)


def _keep(image: Path, target: Path) -> None:
    """In its place, whole or not at all, with holes for zeroes; older ones of its kind go."""
    sparse = image.with_name("sparse")
    _run(["cp", "--sparse=always", str(image), str(sparse)])
    sparse.chmod(0o444)
    sparse.replace(target)
    for old in CACHE.glob(f"{target.name.rpartition('-')[0]}-*.raw"):
        if old != target:
            old.unlink()


def _run(argv: list[str], cwd: Path | None = None) -> str:
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as e:
        raise LabError(f"{argv[0]} is missing: the guest is made of Debian's packages, by apt") from e
    if done.returncode:
        raise LabError(f"{' '.join(argv[:3])} failed ({done.returncode}):\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout
