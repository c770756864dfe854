# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A conversion host that is itself a server of the target cloud: Nova plugs the volume in, and its device is found by the volume's id.

That needs no rights on the storage network, and Nova opens encrypted volumes by itself. Sources: Nova's libvirt driver gives the
volume's id as the disk's serial (virtio keeps 20 characters of it, VIRTIO_BLK_ID_BYTES), and its SMBIOS tables carry the server's id.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Callable

from ..errors import BadInput, ServerError, SinkError, bounded
from .client import call, get
from .waiting import wait_for

#: How a volume is attached: by Nova where this machine is a server of the cloud, else by os-brick.
WAYS = ("auto", "nova", "brick")
#: Characters of a serial that virtio-blk shows (linux/virtio_blk.h, VIRTIO_BLK_ID_BYTES).
VIRTIO_SERIAL = 20
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Servers may have multiattach volumes (Nova, Queens and later).
MULTIATTACH = "2.60"
#: Seconds.
ATTACH_TIMEOUT, DEVICE_TIMEOUT, PAUSE = 120.0, 60.0, 0.5


def find(conn: Any, way: str, instance: str | None, root_helper: str, *, root: Path = Path("/")) -> str | None:
    """The id of the server that this machine is, where volumes are to be attached through Nova; None for os-brick.

    :param way: one of WAYS.
    :param instance: the id, where the user gave it.
    :param root: where /sys is, for tests.
    :raises BadInput: C(way) is nova, and this machine is no server of this cloud.
    """
    if way not in WAYS:
        raise BadInput(f"A volume is attached by {', '.join(WAYS)}, not {bounded(way, 40)}.")
    if way == "brick":
        return None
    known = (instance or "").lower() or _from_firmware(root, root_helper)
    if instance and not _UUID.fullmatch(known or ""):
        raise BadInput(f"This is not the id of a server: {bounded(instance, 80)}")
    if known and _is_server(conn, known):
        return known
    if way == "nova" or instance:
        raise BadInput(
            "This machine is no server of this cloud, as far as it can be told: "
            + (f"Nova does not show the server {known}." if known else "its firmware tables name none."),
            code="no_instance",
            step="attach the volume",
            next_command="Give the server's id as instance, log in to the project that it is in, or leave the attaching to os-brick.",
        )
    return None


def _from_firmware(root: Path, root_helper: str) -> str | None:
    """The server's id from the SMBIOS tables, where they say that the machine is one of OpenStack's."""
    dmi = root / "sys/class/dmi/id"

    def read(name: str) -> str:
        try:
            return (dmi / name).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    if "openstack" not in f"{read('sys_vendor')} {read('product_name')} {read('chassis_asset_tag')}".lower():
        return None
    found = read("product_uuid")
    if not found and root_helper and os.geteuid() != 0:
        # Only root may read it.
        command = [*root_helper.split(), "cat", str(dmi / "product_uuid")]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = done.stdout.strip() if done.returncode == 0 else ""
    found = found.lower()
    return found if _UUID.fullmatch(found) else None


def _is_server(conn: Any, server: str) -> bool:
    answer = call(conn, "compute", "GET", f"/servers/{server}", step="look for this machine among the servers", allow=(403, 404))
    return int(answer.status_code) < 400


class Plugged:
    """A volume that Nova attaches to this machine."""

    def __init__(self, conn: Any, server: str, volume_id: str, *, root: Path = Path("/")) -> None:
        self._conn = conn
        self.server = server
        self._volume_id = volume_id
        self._root = root

    def request(self) -> None:
        """Ask Nova for the volume. It reserves it at once, as nobody else's, and attaches it afterwards.

        :raises ServerError: Nova or Cinder refuses (the volume is somebody else's by now).
        """
        body = {"volumeAttachment": {"volumeId": self._volume_id}}
        call(self._conn, "compute", "POST", self._path(), step="attach the volume", body=body, microversion=MULTIATTACH)

    def device(self) -> str:
        """Wait for the volume that was requested; the path of its device.

        :raises ServerError: Nova could not attach it.
        :raises SinkError: no device with the volume's id appears here.
        """
        self._wait(
            lambda: self._status() == "in-use" or None,
            ATTACH_TIMEOUT,
            f"Nova has not attached volume {self._volume_id} to this server in {ATTACH_TIMEOUT:.0f} s.",
        )
        path: str = self._wait(
            lambda: device_of(self._volume_id, self._root),
            DEVICE_TIMEOUT,
            f"Nova has attached volume {self._volume_id} to this server, but no device with that serial appears in {DEVICE_TIMEOUT:.0f} s.",
        )
        return path

    def disconnect(self, *, force: bool = False) -> None:
        """Detach, and wait until Nova has done so; what Nova no longer knows (it was taken over) is left alone.

        :param force: as brick.Device has it; here it makes no difference.
        :raises ServerError: Nova cannot detach it.
        """
        answer = call(
            self._conn,
            "compute",
            "DELETE",
            f"{self._path()}/{self._volume_id}",
            step="detach the volume",
            allow=(404,),
        )
        if answer.status_code == 404:
            return
        self._wait(
            lambda: self.attached() is False or None,
            ATTACH_TIMEOUT,
            f"Nova has not detached volume {self._volume_id} in {ATTACH_TIMEOUT:.0f} s: the guest still uses it?",
        )

    def attached(self) -> bool:
        """Whether Nova has the volume at this server."""
        answer = call(self._conn, "compute", "GET", f"{self._path()}/{self._volume_id}", step="read the lease of the volume", allow=(404,))
        return int(answer.status_code) != 404

    def _path(self) -> str:
        return f"/servers/{self.server}/os-volume_attachments"

    def _status(self) -> str:
        status = str(get(self._conn, "block_storage", f"/volumes/{self._volume_id}", step="wait for the volume")["volume"]["status"])
        # Nova answers before it is done; when its attaching fails, it gives the volume back.
        if status.startswith("error") or (status == "available" and not self.attached()):
            raise ServerError(
                f"Nova could not attach volume {self._volume_id} to this server; the volume is {status}.",
                code="attach_failed",
                step="attach the volume",
                volume=self._volume_id,
            )
        return status

    @staticmethod
    def _wait(done: Callable[[], Any], timeout: float, late: str) -> Any:
        return wait_for(done, timeout, lambda: SinkError(late, code="timeout", step="wait for the volume"), pause=PAUSE)


def device_of(volume_id: str, root: Path = Path("/")) -> str | None:
    """The device whose serial is the volume's id; None as long as there is none.

    Asked of the kernel itself (sysfs), and of udev's links where a driver tells the kernel nothing.

    :raises SinkError: several devices have it; none of them is taken.
    """
    found = set()
    for block in sorted((root / "sys/block").glob("*")):
        serial = _serial(block)
        if serial and (serial == volume_id or len(serial) >= VIRTIO_SERIAL and volume_id.startswith(serial)):
            found.add(block.name)
    for link in sorted((root / "dev/disk/by-id").glob("*")):
        name = link.name
        if volume_id[:VIRTIO_SERIAL] in name and not re.search(r"-part\d+$", name):
            found.add(os.path.basename(os.path.realpath(link)))
    if len(found) > 1:
        raise SinkError(
            f"Several devices have the serial of volume {volume_id}: {bounded(', '.join(sorted(found)), 100)}.",
            step="find the volume's device",
        )
    for name in found:
        path = root / "dev" / name
        if path.exists():
            return str(path)
    return None


def _serial(block: Path) -> str:
    """The serial of a block device, as virtio-blk (serial) and SCSI disks (unit serial number page 80h, SPC-4 7.8.17) tell it."""
    try:
        return (block / "serial").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        pass
    try:
        page = (block / "device/vpd_pg80").read_bytes()
    except OSError:
        return ""
    return page[4:].decode("ascii", errors="replace").strip("\0 ")
