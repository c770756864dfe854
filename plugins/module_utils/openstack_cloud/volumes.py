# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cinder volumes: who holds one, and attaching one to this machine so that its bytes can be written.

The attachment is the lease of the disk (design, section 4): Cinder gives a volume that is not multiattach to one holder,
atomically. Beside it stands a lock file of this machine, whose owner the kernel releases when the process dies: it proves
that an attachment of this machine that is still there is a dead one's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterator, Mapping

from ..errors import BadInput, Busy, FerryError, ServerError, bounded
from . import brick
from .client import call, get

GIB = 1 << 30
#: The attachments API with the access mode in the call that creates one (Cinder, Xena and later).
ATTACHMENTS = "3.54"
#: Where Cinder keeps the device name of an attachment, ours says who holds it: only an admin sees host names.
MOUNTPOINT = "/dev/ferry/"


@dataclass(frozen=True)
class Attachment:
    """One attachment of a volume. C(server) is the id of a Nova server; C(host) is known for ours and to admins."""

    id: str
    volume_id: str
    status: str
    server: str | None
    host: str | None
    ours: bool

    @property
    def holder(self) -> str:
        if self.server:
            return f"the server {self.server}"
        return f"the host {self.host}" if self.host else f"an unknown holder (attachment {self.id}, {self.status})"


def volume_id_of(value: str) -> str:
    """C(value) when it is an id; ids become parts of paths."""
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise BadInput(f"This is not the id of a volume: {bounded(value, 80)}") from None


def get_volume(conn: Any, volume_id: str) -> dict[str, Any]:
    """The volume as Cinder shows it now."""
    found: dict[str, Any] = get(conn, "block_storage", f"/volumes/{volume_id_of(volume_id)}", step="read the volume")["volume"]
    return found


def attachments_of(conn: Any, volume_id: str) -> list[Attachment]:
    """All attachments of a volume, also those that are only reserved or half made."""
    volume = get_volume(conn, volume_id)
    rows = get(
        conn,
        "block_storage",
        "/attachments/detail",
        step="read who holds the volume",
        params={"volume_id": volume["id"]},
        microversion=ATTACHMENTS,
    )["attachments"]
    known = {a.get("attachment_id"): a for a in volume.get("attachments") or []}
    found = []
    for row in rows:
        if row.get("volume_id") != volume["id"]:
            continue
        more = known.get(row["id"], {})
        device = str(more.get("device") or "")
        ours = device.startswith(MOUNTPOINT)
        host = device[len(MOUNTPOINT) :] if ours else more.get("host_name")
        server = None if ours else row.get("instance") or None
        found.append(Attachment(row["id"], volume["id"], str(row.get("status")), server, host, ours))
    return found


class AttachedVolume:
    """A volume at this machine; made by attach().

    C(path): block device or file to write to. C(size): bytes. C(is_block): whether it is a block device.
    """

    def __init__(self, conn: Any, volume_id: str, attachment_id: str, host: str, device: brick.Device, path: str, lock: _HostLock) -> None:
        self.volume_id = volume_id
        self.attachment_id = attachment_id
        self.host = host
        self.path = path
        self.size = brick.size_of(path)
        self.is_block = brick.is_block(path)
        self._conn = conn
        self._device: brick.Device | None = device
        self._lock = lock

    def detach(self) -> None:
        """Flush, disconnect, give the lease back. May be called twice.

        :raises SinkError: the device could not be disconnected; the attachment then stays, so that nobody else writes.
        """
        device, self._device = self._device, None
        if device is None:
            return
        with self._lock:
            try:
                device.disconnect()
                delete_attachment(self._conn, self.attachment_id)
            except FerryError as e:
                e.add(left=f"attachment {self.attachment_id} of volume {self.volume_id}; the next run on this host removes it")
                raise
            self._lock.note("free")
        wait_status(self._conn, self.volume_id, ("available", "in-use"), timeout=60)

    def still_ours(self) -> bool:
        """Whether Cinder still knows this attachment: false after a take-over by another host."""
        response = call(
            self._conn,
            "block_storage",
            "GET",
            f"/attachments/{self.attachment_id}",
            step="read the lease of the volume",
            microversion=ATTACHMENTS,
            allow=(404,),
        )
        return int(response.status_code) != 404

    def __enter__(self) -> AttachedVolume:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()


class _HostLock:
    """flock on a file per volume; its content says how far the last owner came."""

    def __init__(self, state_dir: str, volume_id: str, host: str) -> None:
        folder = os.path.join(state_dir, "volumes")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._volume_id = volume_id
        self._host = host
        self._fd = os.open(os.path.join(folder, f"{volume_id}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            last = self._read()
            os.close(self._fd)
            raise Busy(
                f"Volume {volume_id} is being written by process {last.get('pid', '?')} of this host, {bounded(host, 80)}.",
                step="attach the volume",
                holder=host,
                pid=last.get("pid"),
            ) from None
        self.last_phase = str(self._read().get("phase") or "free")

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, phase: str, **facts: Any) -> None:
        text = json.dumps({"phase": phase, "pid": os.getpid(), "host": self._host, "volume": self._volume_id, "time": time.time(), **facts})
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)
        os.fsync(self._fd)

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> _HostLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def attach(
    conn: Any,
    volume_id: str,
    *,
    state_dir: str,
    root_helper: str = "sudo",
    host: str | None = None,
    ip: str | None = None,
    take_over: bool = False,
) -> AttachedVolume:
    """Attach a volume to this machine; nobody else can write to it until detach().

    :param state_dir: a folder of this machine that outlives the run, the same for every run: locks and mounts live there.
    :param root_helper: what makes a command root; not used where this process is root.
    :param host: this machine's name towards Cinder (default: its host name).
    :param ip: this machine's address on the storage network (default: the one it reaches Cinder from).
    :param take_over: remove the attachment of another conversion host. Only for when it is known to be dead.
    :raises Busy: a server, another conversion host or another process of this one holds the volume; names it.
    :raises SinkError: os-brick could not connect it.
    """
    volume_id = volume_id_of(volume_id)
    host = host or socket.gethostname()
    ip = ip or brick.address_towards(str(conn.block_storage.get_endpoint() or ""))
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    lock = _HostLock(state_dir, volume_id, host)
    with contextlib.ExitStack() as undo:
        undo.callback(lock.release)
        clear_stale(conn, volume_id, host, state_dir=state_dir, root_helper=root_helper, lock=lock, take_over=take_over)
        properties = brick.connector_properties(state_dir, root_helper, host, ip)
        lock.note("attaching")
        row = _reserve(conn, volume_id, {**properties, "mountpoint": MOUNTPOINT + host})
        undo.callback(_quietly, delete_attachment, conn, row["id"])
        # Completed before the device is connected: from here on everybody can see by the device name whose it is.
        _complete(conn, row["id"])
        lock.note("attached", attachment=row["id"])
        device = brick.Device(row["connection_info"], state_dir, root_helper)
        path = device.connect()
        undo.callback(_quietly, device.disconnect, force=True)
        attached = AttachedVolume(conn, volume_id, row["id"], host, device, path, lock)
        undo.pop_all()
    return attached


def _reserve(conn: Any, volume_id: str, connector: Mapping[str, Any]) -> dict[str, Any]:
    body = {"attachment": {"volume_uuid": volume_id, "connector": dict(connector), "mode": "rw"}}
    try:
        row: dict[str, Any] = call(
            conn, "block_storage", "POST", "/attachments", step="attach the volume", body=body, microversion=ATTACHMENTS
        ).json()["attachment"]
    except ServerError as e:
        if e.details.get("status") != 400:
            raise
        holders = attachments_of(conn, volume_id)
        if not holders:
            raise
        raise _busy(volume_id, holders[0]) from e
    if not isinstance(row.get("connection_info"), dict) or "driver_volume_type" not in row["connection_info"]:
        _quietly(delete_attachment, conn, row["id"])
        raise ServerError("Cinder attached the volume but does not say how to reach it.", step="attach the volume", said=row.get("status"))
    info = row["connection_info"]
    if "data" not in info:
        # Since 3.27 Cinder answers the data flat beside driver_volume_type.
        info = {
            "driver_volume_type": info["driver_volume_type"],
            "data": info,
            "encrypted": info.get("encrypted"),
            "format": info.get("format"),
        }
        row = {**row, "connection_info": info}
    return row


def _complete(conn: Any, attachment_id: str) -> None:
    call(
        conn,
        "block_storage",
        "POST",
        f"/attachments/{attachment_id}/action",
        step="attach the volume",
        body={"os-complete": attachment_id},
        microversion="3.44",
    )


def clear_stale(
    conn: Any, volume_id: str, host: str, *, state_dir: str, root_helper: str, lock: _HostLock, take_over: bool = False
) -> list[str]:
    """Remove what a dead process of this host left on the volume; the ids of the attachments removed.

    C(lock) proves that no process of this host is alive on it. An attachment that has no name yet is ours when the last
    owner of the lock died while attaching.

    :raises Busy: somebody else holds the volume.
    """
    removed = []
    for a in attachments_of(conn, volume_id):
        nameless = not a.server and not a.host and a.status != "attached" and lock.last_phase == "attaching"
        if not (a.ours and (a.host == host or take_over) or nameless):
            raise _busy(volume_id, a)
        if a.host == host or nameless:
            _disconnect_left(conn, a, state_dir, root_helper)
        delete_attachment(conn, a.id)
        removed.append(a.id)
    if removed:
        wait_status(conn, volume_id, ("available",), timeout=60)
    return removed


def _disconnect_left(conn: Any, attachment: Attachment, state_dir: str, root_helper: str) -> None:
    row = get(conn, "block_storage", f"/attachments/{attachment.id}", step="read what a killed run left", microversion=ATTACHMENTS)[
        "attachment"
    ]
    info = row.get("connection_info") or {}
    if info.get("driver_volume_type"):
        data = info.get("data") or info
        brick.Device({"driver_volume_type": info["driver_volume_type"], "data": data}, state_dir, root_helper).disconnect(force=True)


def _busy(volume_id: str, attachment: Attachment) -> Busy:
    return Busy(
        f"Volume {volume_id} is held by {attachment.holder}.",
        step="attach the volume",
        holder=attachment.server or attachment.host,
        attachment=attachment.id,
        next_command="Let that one finish. If that conversion host is dead for certain, run again with take_over."
        if attachment.ours
        else "Detach the volume there first.",
    )


def _quietly(work: Any, *args: Any, **kwargs: Any) -> None:
    """Undo after an error: the first error is the one to be told."""
    with contextlib.suppress(FerryError):
        work(*args, **kwargs)


def delete_attachment(conn: Any, attachment_id: str) -> None:
    """Give an attachment back; one that is gone already is no error."""
    call(
        conn,
        "block_storage",
        "DELETE",
        f"/attachments/{volume_id_of(attachment_id)}",
        step="detach the volume",
        microversion=ATTACHMENTS,
        allow=(404,),
    )


def wait_status(conn: Any, volume_id: str, wanted: tuple[str, ...], *, timeout: float, pause: float = 0.3) -> dict[str, Any]:
    """Wait until the volume has one of the statuses; the volume. C(timeout), C(pause): seconds."""
    end = time.monotonic() + timeout
    while True:
        volume = get_volume(conn, volume_id)
        status = str(volume["status"])
        if status in wanted:
            return volume
        if status.startswith("error"):
            raise ServerError(
                f"Volume {volume_id} has the status {status}.", code="volume_error", step="wait for the volume", volume=volume_id
            )
        if time.monotonic() > end:
            raise ServerError(
                f"Volume {volume_id} still has the status {status} after {timeout:.0f} s, awaited is {' or '.join(wanted)}.",
                code="timeout",
                step="wait for the volume",
                volume=volume_id,
            )
        time.sleep(pause)


def set_bootable(conn: Any, volume_id: str, bootable: bool) -> None:
    """Say whether servers may boot from the volume."""
    _action(conn, volume_id, "os-set_bootable", {"bootable": bootable}, "set the bootable flag")


def set_image_metadata(conn: Any, volume_id: str, properties: Mapping[str, str], *, unset: tuple[str, ...] = ()) -> None:
    """Set image properties of the volume (C(volume_image_metadata)): Nova takes disk bus, NIC model, firmware from there."""
    if properties:
        _action(conn, volume_id, "os-set_image_metadata", {"metadata": dict(properties)}, "set the volume's image properties")
    for key in unset:
        _action(conn, volume_id, "os-unset_image_metadata", {"key": key}, "remove an image property of the volume", allow=(404,))


def set_metadata(conn: Any, volume_id: str, metadata: Mapping[str, str], *, unset: tuple[str, ...] = ()) -> None:
    """Set these metadata keys of the volume and leave the others."""
    path = f"/volumes/{volume_id_of(volume_id)}/metadata"
    if metadata:
        call(conn, "block_storage", "POST", path, step="set the volume's metadata", body={"metadata": dict(metadata)})
    for key in unset:
        call(conn, "block_storage", "DELETE", f"{path}/{key}", step="remove metadata of the volume", allow=(404,))


def rename(conn: Any, volume_id: str, name: str) -> None:
    """Give the volume another name."""
    body = {"volume": {"name": name}}
    call(conn, "block_storage", "PUT", f"/volumes/{volume_id_of(volume_id)}", step="rename the volume", body=body)


def _action(conn: Any, volume_id: str, action: str, body: Mapping[str, Any], step: str, *, allow: tuple[int, ...] = ()) -> None:
    call(conn, "block_storage", "POST", f"/volumes/{volume_id_of(volume_id)}/action", step=step, body={action: dict(body)}, allow=allow)


@contextlib.contextmanager
def attached(conn: Any, volume_id: str, **kwargs: Any) -> Iterator[AttachedVolume]:
    """attach() for a C(with) block: detached at its end, also after an error."""
    volume = attach(conn, volume_id, **kwargs)
    try:
        yield volume
    finally:
        volume.detach()
