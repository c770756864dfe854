# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running virt-v2v-in-place on layers over a guest's disks, and reading what it says. Source: virt-v2v-in-place(1), libvirt's "Domain XML format"."""

from __future__ import annotations

import os
import tempfile
from typing import Callable, Sequence
from xml.sax.saxutils import quoteattr

from ..errors import bounded
from . import tools, words
from .decide import Wishes
from .model import Disk, GuestError

_STEP = "convert the guest"


def domain(disks: Sequence[Disk], wishes: Wishes, *, uefi: bool) -> str:
    """The guest as libvirt describes machines, which is how several disks are given to virt-v2v-in-place together."""
    boots = '<os firmware="efi"><type arch="x86_64" machine="q35">hvm</type></os>' if uefi else '<os><type arch="x86_64">hvm</type></os>'
    rows = [
        f'<disk type="{"block" if _is_block(d.path) else "file"}" device="disk"><driver name="qemu" type={quoteattr(d.format)}/>'
        f'<source {"dev" if _is_block(d.path) else "file"}={quoteattr(d.path)}/><target dev="sd{_letters(i)}" bus="scsi"/></disk>'
        for i, d in enumerate(disks)
    ]
    cards = [
        f'<interface type="bridge"><source bridge="VM Network"/><mac address={quoteattr(c.mac)}/><model type="vmxnet3"/></interface>'
        for c in wishes.cards
    ]
    return (
        '<domain type="vmware"><name>guest</name><memory unit="MiB">1024</memory><vcpu>1</vcpu>'
        f"{boots}<features><acpi/></features><devices>{''.join(rows)}{''.join(cards)}</devices></domain>\n"
    )


def _is_block(path: str) -> bool:
    return path.startswith("/dev/")


def _letters(number: int) -> str:
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def run(
    disks: Sequence[Disk],
    wishes: Wishes,
    *,
    uefi: bool,
    root: str,
    check: Callable[[], None] = lambda: None,
    watch: Callable[[str], None] = lambda step: None,
    timeout: float = 3600.0,
    log: str = "",
) -> words.Said:
    """Convert the guest on C(disks).

    :param root: the device with the system.
    :param watch: gets the name of each step.
    :param timeout: seconds.
    :param log: a file that keeps all that virt-v2v says, for whoever has to find out why.
    :raises GuestError: it could not be converted; the disks are half changed and to be thrown away.
    """
    more = {"VIRTIO_WIN": wishes.virtio_win} if wishes.virtio_win else {}
    macs = [word for card in wishes.cards if card.static for word in ("--mac", f"{card.mac}:ip:{card.static}")]

    def line(text: str) -> None:
        step = words.step_of(text)
        if step is not None:
            watch(step)

    with tempfile.NamedTemporaryFile("w", prefix="ferry-guest-", suffix=".xml") as xml:
        xml.write(domain(disks, wishes, uefi=uefi))
        xml.flush()
        argv = ["virt-v2v-in-place", "-i", "libvirtxml", xml.name, "--root", root, *macs]
        done = tools.run(argv, check=check, watch=line, timeout=timeout, env=tools.environment(**more))
    said = words.read(done.said)
    if log:
        with open(log, "w", encoding="utf-8", opener=tools.private) as f:
            f.write(done.said)
    if done.code != 0:
        raise GuestError(
            "virt-v2v could not convert the guest.",
            code=said.code,
            step=_STEP,
            said=" | ".join(said.errors) or bounded(done.said[-500:]),
            next_command="mend what it says at the source and migrate again, or land it as it is: ferry_guest_convert: false for this VM",
            exit_code=done.code,
            log=log or None,
        )
    return said


def virtio_win(path: str) -> str:
    """The folder or image with Windows' drivers: the option, the environment, or where Fedora's package puts it."""
    found = path or os.environ.get("VIRTIO_WIN") or ""
    if path and not os.path.exists(path):
        raise GuestError(f"There is no virtio-win at {bounded(path, 200)}.", code="no_virtio_win", step=_STEP)
    return found or next((p for p in ("/usr/share/virtio-win/virtio-win.iso", "/usr/share/virtio-win") if os.path.exists(p)), "")
