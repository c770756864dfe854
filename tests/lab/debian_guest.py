# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Debian guest as it lives on VMware: GRUB, its root file system on LVM, a second disk that fstab names by its device, open-vm-tools, a static
address on ens192, and an initramfs without a driver for virtio. Made of Debian's packages by mmdebstrap and guestfish, once, under build/guest.

It starts on pvscsi and vmxnet3 and not on virtio, and says on its serial console what it sees (tests/lab/debian/marker.sh).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .common import BUILD, LabError, need

MIB = 1 << 20
CACHE = BUILD / "guest"
MARKER = Path(__file__).with_name("debian") / "marker.sh"
BEGIN, END = "FERRY-DEBIAN-BEGIN", "FERRY-DEBIAN-END"
ADDRESS, GATEWAY, INTERFACE = "10.7.0.5", "10.7.0.1", "ens192"
#: What guestfish needs here: QEMU by itself, and emulated, since a machine in a cloud may have a KVM that does not work.
ENV = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
ROOT_SIZE, DATA_SIZE = 2048 * MIB, 256 * MIB
_PACKAGES = (
    *("linux-image-amd64", "initramfs-tools", "lvm2", "ifupdown", "iproute2", "systemd-sysv", "udev", "dbus", "kmod", "grub-pc-bin"),
    *("grub2-common", "grub-common", "open-vm-tools", "util-linux", "fdisk", "e2fsprogs", "netbase", "procps"),
)
#: Families of modules that no machine of a hypervisor needs: without them the guest is a third smaller.
_MODULES = (
    *("sound", "drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet", "drivers/infiniband", "drivers/iio"),
    *("drivers/staging", "drivers/isdn", "drivers/hwmon", "drivers/usb", "drivers/bluetooth", "drivers/input", "drivers/mtd"),
    *("drivers/platform", "drivers/leds", "drivers/mfd", "drivers/pinctrl", "drivers/crypto", "drivers/accel", "drivers/net/can"),
    *("drivers/net/usb", "drivers/comedi", "drivers/thunderbolt", "drivers/firewire", "drivers/edac", "net/wireless", "net/mac80211"),
    *("net/bluetooth", "net/can", "drivers/scsi/[b-l]", "drivers/scsi/q", "drivers/target", "drivers/ata/pata", "drivers/nvme"),
    *("drivers/w1", "drivers/rtc", "drivers/power", "drivers/mmc", "drivers/misc", "fs/xfs", "fs/btrfs", "fs/ocfs2", "fs/ceph", "fs/nfs"),
)
_EXCLUDED = ("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/bash-completion", "/usr/share/info", "/usr/lib/python3")
#: Files of the guest beside its packages.
FILES = {
    "etc/hostname": "oldvm\n",
    "etc/hosts": "127.0.0.1 localhost oldvm\n",
    "etc/fstab": "/dev/vg0/root / ext4 errors=remount-ro 0 1\n"
    "/dev/sda1 /boot ext4 defaults 0 2\n"
    "/dev/sdb1 /data ext4 defaults,nofail,x-systemd.device-timeout=60 0 2\n",
    "etc/network/interfaces": f"auto lo\niface lo inet loopback\n\nauto {INTERFACE}\niface {INTERFACE} inet static\n"
    f"  address {ADDRESS}/24\n  gateway {GATEWAY}\n",
    "etc/default/grub": 'GRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=""\n'
    'GRUB_CMDLINE_LINUX="console=ttyS0 net.ifnames=1 systemd.show_status=0"\nGRUB_TERMINAL="console serial"\n',
    "etc/initramfs-tools/conf.d/ferry-list": "MODULES=list\n",
    "etc/initramfs-tools/modules": "vmw_pvscsi\nmptspi\nmptsas\nsd_mod\nata_piix\next4\ndm_mod\nvmxnet3\n",
    "etc/ferry-canary": "".join(hashlib.sha256(str(n).encode()).hexdigest() + "\n" for n in range(1000)),
    "etc/systemd/system/marker.service": "[Unit]\nAfter=multi-user.target network.target local-fs.target\n[Service]\nType=oneshot\n"
    "ExecStart=/usr/local/sbin/marker.sh\nTimeoutStartSec=120\n[Install]\nWantedBy=multi-user.target\n",
}
CANARY = hashlib.sha256(FILES["etc/ferry-canary"].encode()).hexdigest()
_DISKS = """
set-memsize 1280
run
part-init /dev/sda mbr
part-add /dev/sda p 2048 411647
part-add /dev/sda p 411648 -2048
part-set-bootable /dev/sda 1 true
part-set-mbr-id /dev/sda 2 0x8e
part-disk /dev/sdb mbr
mkfs ext4 /dev/sda1
pvcreate /dev/sda2
vgcreate vg0 /dev/sda2
lvcreate-free root vg0 100
mkfs ext4 /dev/vg0/root
mkfs ext4 /dev/sdb1
mount /dev/vg0/root /
mkdir /boot
mount /dev/sda1 /boot
tar-in {tar} /
mkdir-p /data
mount /dev/sdb1 /data
write /data/data.txt "the second disk\\n"
sh "grub-install --target=i386-pc /dev/disk/guestfs/boot 2>&1"
sh "update-grub 2>&1"
umount-all
"""


@dataclass(frozen=True)
class Disks:
    """The guest's disks as raw images, read-only: who writes takes a copy."""

    root: Path
    data: Path


@dataclass(frozen=True)
class Seen:
    """What the guest said of itself. C(mounts): device by mount point; C(nics): (name, driver) by MAC; C(addresses): by name."""

    mounts: dict[str, str]
    nics: dict[str, tuple[str, str]]
    addresses: dict[str, str]
    lines: list[str]


def build() -> Disks:
    """The disks; made now (some minutes, emulated) or earlier.

    Raises LabError when a system package is missing or cannot be downloaded.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    recipe = repr((FILES, _PACKAGES, _MODULES, _EXCLUDED, _DISKS, ROOT_SIZE, DATA_SIZE)).encode() + MARKER.read_bytes()
    key = hashlib.sha256(recipe).hexdigest()[:16]
    made = Disks(CACHE / f"debian-root-{key}.raw", CACHE / f"debian-data-{key}.raw")
    with open(CACHE / ".debian.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made.root.exists() and made.data.exists()):
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=".debian-") as temp:
                _disks(Path(temp), made, CACHE / f"debian-tree-{key}.tar")
            for old in (*CACHE.glob("debian-*-*.raw"), *CACHE.glob("debian-tree-*.tar")):
                if old not in (made.root, made.data):
                    old.unlink()
    return made


def read(console: str) -> Seen:
    """The words between the guest's two marks."""
    text = console.rpartition(BEGIN)[2].partition(END)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = [line.split() for line in lines]
    return Seen(
        {r[2]: r[1] for r in rows if r[0] == "mount" and len(r) == 3},
        {r[2]: (r[1], r[3] if len(r) > 3 else "") for r in rows if r[0] == "nic" and len(r) > 2},
        {r[1]: r[3] for r in rows if r[0] == "addr" and len(r) > 3},
        lines,
    )


def fish(script: str, *drives: tuple[Path, str]) -> str:
    """Run a script of guestfish on drives, each a raw file with its label (or an empty one)."""
    added = "".join(f"add-drive {path} format:raw cachemode:unsafe{f' label:{label}' if label else ''}\n" for path, label in drives)
    return run([need("guestfish", "libguestfs-tools", "makes disks with file systems")], input_=added + script)


def run(argv: list[str], *, input_: str | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        argv,
        env={**os.environ, **ENV, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1700000000"},
        input=input_,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise LabError(f"{argv[0]} failed ({done.returncode}):\n{(done.stderr or done.stdout)[-3000:]}")
    return done.stdout


def _disks(folder: Path, made: Disks, tar: Path) -> None:
    # Kept until the disks are made: to unpack and configure the packages is the longer half.
    if not tar.exists():
        _tree(folder / "tree", folder / "tree.tar")
        (folder / "tree.tar").replace(tar)
    root, data = folder / "root.raw", folder / "data.raw"
    for path, size in ((root, ROOT_SIZE), (data, DATA_SIZE)):
        with open(path, "wb") as f:
            f.truncate(size)
    # With a label, since the kernel in the appliance may number the drives another way than guestfish does.
    fish(_DISKS.format(tar=tar), (root, "boot"), (data, ""))
    with open(root, "rb") as f:
        if f.read(2) != b"\xeb\x63":
            raise LabError("GRUB is not where it should be: its first stage is not in the first sector of the first disk")
    for path, target in ((root, made.root), (data, made.data)):
        sparse = path.with_suffix(".sparse")
        run(["cp", "--sparse=always", str(path), str(sparse)])
        sparse.chmod(0o444)
        sparse.replace(target)


def _tree(tree: Path, part: Path) -> None:
    for name, content in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    (tree / "usr/local/sbin").mkdir(parents=True)
    (tree / "usr/local/sbin/marker.sh").write_bytes(MARKER.read_bytes())
    (tree / "usr/local/sbin/marker.sh").chmod(0o755)
    tree.chmod(0o755)
    excluded = [*(f"/lib/modules/*/kernel/{name}*" for name in _MODULES), *(f"{name}/*" for name in _EXCLUDED)]
    run(
        [
            need("mmdebstrap", "mmdebstrap", "makes the guest's file system"),
            *("--variant=minbase", '--aptopt=APT::Sandbox::User "root"', f"--include={','.join(_PACKAGES)}"),
            *(f"--dpkgopt=path-exclude={name}" for name in excluded),
            f'--essential-hook=mkdir -p "$1/etc/initramfs-tools" && cp -r {tree}/etc/initramfs-tools/. "$1/etc/initramfs-tools"',
            f'--customize-hook=cp -r --no-preserve=ownership {tree}/. "$1" && mkdir -p "$1/data"',
            '--customize-hook=chroot "$1" systemctl enable marker.service && chroot "$1" passwd -d root',
            '--customize-hook=chroot "$1" update-initramfs -u && rm -rf "$1/var/lib/apt/lists/"*',
            "bookworm",
            str(part),
        ]
    )


def without_boot_loader(disks: Disks, folder: Path) -> Disks:
    """The same guest, of which virt-v2v says that it has no boot loader: what makes GRUB's configuration is gone from it."""
    broken = Disks(folder / "broken-root.raw", disks.data)
    run(["cp", "--sparse=always", str(disks.root), str(broken.root)])
    broken.root.chmod(0o644)
    fish("run\nmount /dev/vg0/root /\nmount /dev/sda1 /boot\nrm-rf /usr/share/grub\nrm-rf /boot/grub\numount-all\n", (broken.root, ""))
    return broken


def version(console: str) -> str:
    """The guest's kernel, as its console says it at the start."""
    found = re.search(r"Linux version (\S+)", console)
    return found[1] if found else ""
