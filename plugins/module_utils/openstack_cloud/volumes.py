# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cinder volumes: who holds one, and attaching one to this machine so that its bytes can be written: by os-brick, or through Nova.

The attachment is the lease of the disk (design, section 4): Cinder gives a volume that is not multiattach to one holder,
atomically; of a multiattach volume two holders see each other, and the second gives way. Beside it stands a lock file of this
machine, whose owner the kernel releases when the process dies: it proves that an attachment of this machine that is still
there is a dead one's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Iterator, Mapping

from ..errors import BadInput, Busy, FerryError, ServerError, bounded
from . import brick, instance
from .client import call, get
from .host_lock import HostLock

GIB = 1 << 30
#: The attachments API with the access mode in the call that creates one (Cinder, Xena and later).
ATTACHMENTS = "3.54"
#: Where Cinder keeps the device name of an attachment, ours says who holds it: only an admin sees host names.
MOUNTPOINT = "/dev/ferry/"
#: Metadata of a volume that Nova has attached to a conversion host: that server's id. So a take-over can tell it from a guest.
HOLDER = "ferry_holder"


#: Runs a call of os-brick's where that may run (home.Home), and gives its result.
Run = Callable[[Callable[[], Any]], Any]


def _here(work: Callable[[], Any]) -> Any:
    return work()


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
    C(attachment_id): empty where Nova attached it, which alone may give that attachment back.
    """

    def __init__(
        self,
        conn: Any,
        volume_id: str,
        attachment_id: str,
        host: str,
        device: brick.Device | instance.Plugged,
        path: str,
        lock: HostLock,
        run: Run = _here,
    ) -> None:
        self.volume_id = volume_id
        self.attachment_id = attachment_id
        self._plugged = device if isinstance(device, instance.Plugged) else None
        self.host = host
        self.path = path
        self.size = brick.size_of(path)
        self.is_block = brick.is_block(path)
        self._conn = conn
        self._device: brick.Device | instance.Plugged | None = device
        self._lock = lock
        self._run = run

    def detach(self) -> None:
        """Flush, disconnect, give the lease back. May be called twice.

        :raises SinkError: the device could not be disconnected; the attachment then stays, so that nobody else writes.
        """
        device, self._device = self._device, None
        if device is None:
            return
        with self._lock:
            try:
                if self._plugged is None:
                    self._run(device.disconnect)
                    delete_attachment(self._conn, self.attachment_id)
                else:
                    device.disconnect()
                    _quietly(_forget_holder, self._conn, self.volume_id, self._plugged.server)
            except FerryError as e:
                e.add(left=f"the attachment of volume {self.volume_id} to this host, {self.host}; the next run on this host removes it")
                raise
            self._lock.note("free")
        wait_status(self._conn, self.volume_id, ("available", "in-use"), timeout=60)

    def still_ours(self) -> bool:
        """Whether Cinder, or Nova, still knows this attachment: false after a take-over by another host."""
        if self._plugged is not None:
            return self._plugged.attached()
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


def attach(
    conn: Any,
    volume_id: str,
    *,
    state_dir: str,
    root_helper: str = "sudo",
    host: str | None = None,
    ip: str | None = None,
    take_over: bool = False,
    way: str = "brick",
    server: str | None = None,
    root: Path = Path("/"),
    run: Run = _here,
) -> AttachedVolume:
    """Attach a volume to this machine; nobody else can write to it until detach().

    :param state_dir: a folder of this machine that outlives the run, the same for every run: locks and mounts live there.
    :param root_helper: what makes a command root; not used where this process is root.
    :param host: this machine's name towards Cinder (default: its host name).
    :param ip: this machine's address on the storage network (default: the one it reaches Cinder from).
    :param take_over: remove the attachment of another conversion host. Only for when it is known to be dead.
    :param way: one of instance.WAYS: through Nova where this machine is a server of the cloud, or by os-brick.
    :param server: this machine's id in Nova, where it cannot tell it by itself.
    :param root: where /sys and /dev are, for tests.
    :param run: runs what os-brick does, where this is not the process's first thread.
    :raises Busy: a server, another conversion host or another process of this one holds the volume; names it.
    :raises SinkError: os-brick could not connect it, or the device does not appear.
    """
    volume_id = volume_id_of(volume_id)
    server = instance.find(conn, way, server, root_helper, root=root)
    host = host or socket.gethostname()
    ip = ip or brick.address_towards(str(conn.block_storage.get_endpoint() or ""))
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    lock = HostLock(state_dir, volume_id, host)
    with contextlib.ExitStack() as undo:
        undo.callback(lock.release)
        known: dict[str, Any] = {"state_dir": state_dir, "root_helper": root_helper, "run": run}
        clear_stale(conn, volume_id, host, lock=lock, take_over=take_over, server=server, **known)
        if server is not None:
            attached = _attach_by_nova(conn, volume_id, instance.Plugged(conn, server, volume_id, root=root), host, server, lock, undo)
            undo.pop_all()
            return attached
        properties = run(partial(brick.connector_properties, state_dir, root_helper, host, ip))
        lock.note("attaching")
        row = _reserve(conn, volume_id, {**properties, "mountpoint": MOUNTPOINT + host})
        undo.callback(_quietly, delete_attachment, conn, row["id"])
        _alone(conn, volume_id, row["id"])
        # Completed before the device is connected: from here on everybody can see by the device name whose it is.
        _complete(conn, row["id"])
        lock.note("attached", attachment=row["id"])
        device: brick.Device = run(partial(brick.Device, row["connection_info"], state_dir, root_helper))
        path: str = run(device.connect)
        undo.callback(_quietly, run, partial(device.disconnect, force=True))
        attached = AttachedVolume(conn, volume_id, row["id"], host, device, path, lock, run)
        undo.pop_all()
    return attached


def _attach_by_nova(
    conn: Any, volume_id: str, plugged: instance.Plugged, host: str, server: str, lock: HostLock, undo: contextlib.ExitStack
) -> AttachedVolume:
    """The same through Nova: its attachment, to a server, is as exclusive as one of ours."""
    lock.note("attaching", server=server)
    undo.callback(_quietly, plugged.disconnect, force=True)
    try:
        plugged.request()
        # From here on, who takes over can tell this from a guest's.
        undo.callback(_quietly, _forget_holder, conn, volume_id, server)
        set_metadata(conn, volume_id, {HOLDER: server})
        path = plugged.device()
    except ServerError as e:
        others = [a for a in attachments_of(conn, volume_id) if a.server != server]
        if not others:
            raise
        raise _busy(volume_id, others[0]) from e
    _alone(conn, volume_id, None, server)
    lock.note("attached", server=server)
    return AttachedVolume(conn, volume_id, "", host, plugged, path, lock)


def _forget_holder(conn: Any, volume_id: str, server: str) -> None:
    """Take our name off the volume; after a take-over another one's stands there, and stays."""
    if (get_volume(conn, volume_id).get("metadata") or {}).get(HOLDER) == server:
        set_metadata(conn, volume_id, {}, unset=(HOLDER,))


def _alone(conn: Any, volume_id: str, ours: str | None, server: str | None = None) -> None:
    """Of a multiattach volume Cinder gives as many attachments as are asked for: two that come at once both see the other, and go.

    :raises Busy: there is another one beside ours.
    """
    if not get_volume(conn, volume_id).get("multiattach"):
        return
    others = [a for a in attachments_of(conn, volume_id) if a.id != ours and (server is None or a.server != server)]
    if others:
        raise _busy(volume_id, others[0])


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
    conn: Any,
    volume_id: str,
    host: str,
    *,
    state_dir: str,
    root_helper: str,
    lock: HostLock,
    take_over: bool = False,
    server: str | None = None,
    run: Run = _here,
) -> list[str]:
    """Remove what a dead process of this host left on the volume; the ids of the attachments removed.

    C(lock) proves that no process of this host is alive on it. An attachment that has no name yet is ours when the last
    owner of the lock died while attaching. One to a server is ours when the lock says that its last owner had it attached there,
    and another conversion host's when the volume's metadata say so (HOLDER).

    :param server: the server that this machine is, where it attaches through Nova.
    :raises Busy: somebody else holds the volume.
    """
    removed = []
    for a in attachments_of(conn, volume_id):
        if a.server and _of_conversion_host(conn, a, lock, server, take_over):
            instance.Plugged(conn, a.server, volume_id).disconnect(force=True)
            removed.append(a.id)
            continue
        nameless = not a.server and not a.host and a.status != "attached" and lock.last_phase == "attaching"
        if not (a.ours and (a.host == host or take_over) or nameless):
            raise _busy(volume_id, a)
        if a.host == host or nameless:
            _disconnect_left(conn, a, state_dir, root_helper, run)
        delete_attachment(conn, a.id)
        removed.append(a.id)
    if removed:
        wait_status(conn, volume_id, ("available",), timeout=60)
    return removed


def _of_conversion_host(conn: Any, attachment: Attachment, lock: HostLock, server: str | None, take_over: bool) -> bool:
    """Whether a server's attachment is what a dead process left: of this host, or of another that is being taken over from."""
    if server and attachment.server == server == lock.last_server and lock.last_phase in ("attaching", "attached"):
        return True
    return take_over and (get_volume(conn, attachment.volume_id).get("metadata") or {}).get(HOLDER) == attachment.server


def _disconnect_left(conn: Any, attachment: Attachment, state_dir: str, root_helper: str, run: Run) -> None:
    row = get(conn, "block_storage", f"/attachments/{attachment.id}", step="read what a killed run left", microversion=ATTACHMENTS)[
        "attachment"
    ]
    info = row.get("connection_info") or {}
    if info.get("driver_volume_type"):
        data = info.get("data") or info
        left = {"driver_volume_type": info["driver_volume_type"], "data": data}
        run(lambda: brick.Device(left, state_dir, root_helper).disconnect(force=True))


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
