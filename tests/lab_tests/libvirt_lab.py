# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests on the lab with Nova on libvirt share: libvirt's own description of a server, and what the guest says of itself."""

from __future__ import annotations

import os
import re
import subprocess
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lab.guest import BEGIN, END

#: For tests that look into libvirt; without such a lab they are skipped.
needs_libvirt = pytest.mark.skipif(
    os.environ.get("FERRY_LAB_NOVA") != "libvirt", reason="Nova does not run on libvirt here: make test-boot, or make lab-openstack-libvirt"
)
#: Seconds: without acceleration, on a machine that does other things too, a boot takes between ten seconds and minutes.
BOOT_TIMEOUT = 420


def virsh(*arguments: str) -> str:
    """What virsh says."""
    command = ["virsh", "-q", "-c", os.environ["FERRY_LAB_LIBVIRT"], *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def domain(server_id: str) -> ET.Element:
    """The XML of a running server as libvirt has it; a domain's uuid is the server's id."""
    return ET.fromstring(virsh("dumpxml", server_id))


@dataclass(frozen=True)
class DomainDisk:
    """A disk of a domain: device name, bus (scsi, virtio, ide, sata), model of its controller, serial (the volume's id)."""

    dev: str
    bus: str
    controller: str | None
    serial: str | None
    file: str | None


def buses(root: ET.Element) -> list[DomainDisk]:
    """The disks, in libvirt's order."""
    models = {(c.get("type"), c.get("index")): c.get("model") for c in root.findall("./devices/controller")}
    found = []
    for disk in root.findall("./devices/disk[@device='disk']"):
        target, address, source = disk.find("target"), disk.find("address"), disk.find("source")
        assert target is not None
        index = address.get("controller") if address is not None else None
        bus = str(target.get("bus"))
        model = models.get(("scsi" if bus == "scsi" else bus, index))
        file = source.get("file") if source is not None else None
        found.append(DomainDisk(str(target.get("dev")), bus, model, disk.findtext("serial"), file))
    return found


def cards(root: ET.Element) -> list[tuple[str, str]]:
    """(MAC, model) of the network cards, in libvirt's order."""
    found = []
    for card in root.findall("./devices/interface"):
        mac, model = card.find("mac"), card.find("model")
        found.append((str(mac.get("address")) if mac is not None else "", str(model.get("type")) if model is not None else ""))
    return found


def firmware(root: ET.Element) -> tuple[str, bool]:
    """(bios or efi, whether it checks signatures)."""
    loader = root.find("./os/loader")
    if root.find("./os[@firmware='efi']") is not None or (loader is not None and loader.get("type") == "pflash"):
        return "efi", loader is not None and loader.get("secure") == "yes"
    return "bios", False


@dataclass(frozen=True)
class Guest:
    """What tests/lab/guest_init.sh printed. C(disks): name to its words; C(cards): MAC to its words; C(said): all of it."""

    firmware: str
    disks: dict[str, dict[str, str]]
    cards: dict[str, dict[str, str]]
    mounted: dict[str, tuple[str, str]] = field(default_factory=dict)
    boots: int = 0
    said: str = ""


def console(conn: Any, server_id: str) -> str:
    """The serial console's text so far."""
    answer = conn.compute.post(f"/servers/{server_id}/action", json={"os-getConsoleOutput": {}})
    return str(answer.json().get("output", "")) if answer.ok else ""


def wait_for_console(conn: Any, server_id: str, pattern: str, timeout: float = BOOT_TIMEOUT) -> re.Match[str]:
    """Wait until the console shows the pattern."""
    end = time.monotonic() + timeout
    while True:
        text = console(conn, server_id)
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return found
        assert "Kernel panic" not in text, text[-3000:]
        if time.monotonic() > end:
            pytest.fail(f"The guest does not say {pattern!r}:\n{text[-3000:]}")
        time.sleep(1)


def wait_for_guest(conn: Any, server_id: str) -> Guest:
    """Wait until the guest has come up, and give what it said of itself."""
    return parse(wait_for_console(conn, server_id, f"{BEGIN}(.*?){END}")[1])


def parse(text: str) -> Guest:
    """The words between the guest's two marks."""
    disks: dict[str, dict[str, str]] = {}
    nics: dict[str, dict[str, str]] = {}
    mounted: dict[str, tuple[str, str]] = {}
    one: dict[str, str] = {}
    for line in (raw.strip() for raw in text.splitlines()):
        word, _blank, rest = line.partition(" ")
        if word in ("disk", "nic"):
            name, *pairs = rest.split()
            row = dict(zip(pairs[::2], [*pairs[1::2], ""], strict=False))
            if word == "disk":
                disks[name] = row
            else:
                nics[row["mac"]] = row
        elif word == "mounted":
            label, device, *content = rest.split(" ", 2)
            mounted[label] = (device, " ".join(content))
        elif word in ("firmware", "boots", "kernel"):
            one[word] = rest
    return Guest(one.get("firmware", ""), disks, nics, mounted, int(one.get("boots") or 0), text)
