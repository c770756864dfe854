# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs that died have left, in vCenter and in OpenStack: all of it listed with the reason why it goes or stays.

What the next run would go on with is not rubbish: volumes that are filled half, ports, servers that never started. They go only where
the user says that their migration is given up. What a server uses, what is attached to a machine that may write, and what a live
process holds stays in any case.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable, Mapping, Sequence

from ..errors import BadInput, FerryError, bounded
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import rehearsal, removal, volumes
from ..openstack_cloud.groups import PREFIX
from ..openstack_cloud.images import asked_for, of_a_server
from ..openstack_cloud.matching import never_ran, servers_of
from ..openstack_cloud.target import PORT_FIELDS, SERVERS, server_groups
from ..vsphere import client as vsphere_client
from ..vsphere import find, snapshots
from ..vsphere.properties import of_view
from ..vsphere.snapshot_tree import Snapshot, is_left_behind, server_time, tree_of
from . import holders
from .targets import SOURCE, STATE, state_dir

#: Seconds for which a rehearsal may still be going on, counted from the last thing that it made.
REHEARSAL_AGE = 3600.0

Row = Mapping[str, Any]


class Item:
    """Something of ours. C(why): why it goes or stays. C(work): removes it; None: it stays."""

    def __init__(self, kind: str, id_: str, name: str, source: str, why: str, size: int = 0, work: Callable[[], Any] | None = None) -> None:
        self.kind, self.id, self.name, self.source, self.why, self.size, self.work = kind, id_, name, source, why, size, work

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.id, "name": self.name, "source": self.source, "bytes": self.size, "why": self.why}


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """List what is left over, and remove what C(params) (the options of migration_cleanup) allow. See the module."""
    with contextlib.ExitStack() as stack:
        items: list[Item] = []
        names: dict[str, str] = {}
        if "vcenter" in params["where"]:
            session = vsphere_client.connect(params)
            stack.callback(session.close)
            items += _of_vcenter(session, params, names)
        if "openstack" in params["where"]:
            conn = openstack_client.connect({**params, "validate_certs": None})
            stack.callback(conn.close)
            items += _of_openstack(conn, params, names)
        removed: list[dict[str, Any]] = []
        errors: list[FerryError] = []
        for item in items:
            if item.work is None:
                continue
            try:
                if not check:
                    item.work()
                removed.append(item.as_dict())
            except FerryError as e:
                errors.append(e)
        kept = [i.as_dict() for i in items if i.work is None]
        result = {"changed": bool(removed), "removed": removed, "kept": kept}
        if errors:
            errors[0].partial = result
            raise errors[0].add(left=f"{len(errors)} things that could not be removed", next_command="run it again")
        return result


def _given_up(params: Mapping[str, Any], names: Mapping[str, str]) -> set[str]:
    """Instance UUIDs of the VMs whose migration is given up.

    :raises BadInput: several VMs have a name that was given.
    """
    wanted = {str(a).lower() for a in params["abandon"]}
    given_up = set(wanted)
    for name in sorted(wanted):
        found = sorted(uuid for uuid, known in names.items() if known.lower() == name)
        if len(found) > 1:
            raise BadInput(
                f"{len(found)} VMs are called {bounded(name, 80)}.",
                step="see which migrations are given up",
                said=", ".join(found[:20]),
                next_command="give the instance UUID of the one that is meant",
            )
        given_up |= set(found)
    return given_up


# -- vCenter --------------------------------------------------------------------------------------------------------


def _of_vcenter(session: Any, params: Mapping[str, Any], names: dict[str, str]) -> list[Item]:
    """Snapshots; fills C(names) (name by instance UUID)."""
    rows = of_view(session, {"VirtualMachine": ("name", "snapshot", "config.instanceUuid")}, step="look for snapshots")
    for row in rows:
        if row.props.get("config.instanceUuid"):
            names[str(row.props["config.instanceUuid"]).lower()] = str(row.props.get("name", ""))
    with_any = [row for row in rows if row.props.get("snapshot") is not None]
    if not with_any:
        return []
    now = server_time(session)
    given_up = _given_up(params, names)
    refs = {vm.moref: vm for vm in find.describe(session, [row.moref for row in with_any])}
    items = []
    for row in with_any:
        vm = refs.get(row.moref)
        for snapshot in reversed(tree_of(vm, row.props["snapshot"])) if vm is not None else ():
            if snapshot.tag is not None:
                items.append(_snapshot(session, snapshot, now, given_up))
    return items


def _snapshot(session: Any, snapshot: Snapshot, now: datetime, given_up: set[str]) -> Item:
    tag, vm = snapshot.tag, snapshot.vm
    where = f"{snapshot.name} of {vm.name if vm else '?'}"
    source = str(tag.vm if tag else "").lower()
    if tag is not None and tag.purpose == snapshots.KEPT:
        return Item("snapshot", snapshot.moref, where, source, "it was asked for, and is kept until somebody removes it")
    if tag is not None and tag.alive is None and source not in given_up:
        # Its age says nothing: terabytes take longer than any limit, and a copy that loses its snapshot is lost.
        return Item(
            "snapshot", snapshot.moref, where, source, f"only {tag.host}, where it was taken, knows whether its run is over; run it there"
        )
    if is_left_behind(snapshot, now):
        return Item(
            "snapshot", snapshot.moref, where, source, "the run that took it is over", work=lambda: snapshots.remove(session, snapshot)
        )
    return Item("snapshot", snapshot.moref, where, source, f"a run on {tag.host if tag else '?'} may be using it")


# -- OpenStack ------------------------------------------------------------------------------------------------------


def _of_openstack(conn: Any, params: Mapping[str, Any], names: Mapping[str, str]) -> list[Item]:
    return [*_rehearsals(conn, params), *_Landed(conn, params, names).items(), *_groups(conn, params)]


def _groups(conn: Any, params: Mapping[str, Any]) -> list[Item]:
    """Server groups by their name, since they have no metadata. An empty one does not tell whose it is, nor its age: a wave that copies at
    this moment has made it before its servers. So it goes only where it is named."""
    given_up = {str(a) for a in params["abandon"]}
    items = []
    for group in server_groups(conn):
        name = str(group.get("name"))
        if not name.startswith(PREFIX):
            continue
        work: Callable[[], Any] | None = None
        if group.get("members"):
            why = f"servers in it: {len(group['members'])}"
        elif name not in given_up:
            why = "empty: the next run of its wave puts its servers in it; it goes where its name is given up"
        else:
            why, work = "given up", partial(removal.remove_server_group, conn, group["id"])
        items.append(Item("server group", group["id"], name, "", why, work=work))
    return items


def _age(rows: Sequence[Row], now: datetime) -> float:
    """Seconds since the newest of C(rows) was made; 0 where one does not say."""
    ages = []
    for row in rows:
        text = str(row.get("created_at") or row.get("created") or "")
        try:
            made = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            return 0.0
        ages.append((now - (made if made.tzinfo else made.replace(tzinfo=timezone.utc))).total_seconds())
    return min(ages, default=0.0)


def _rehearsals(conn: Any, params: Mapping[str, Any]) -> list[Item]:
    found = rehearsal.left_over(conn)
    now = datetime.now(timezone.utc)
    by_source: dict[str, dict[str, list[Row]]] = {}
    for kind, rows in found.items():
        for row in rows:
            said = str((row.get("metadata") or {}).get(rehearsal.REHEARSAL) or str(row.get("description") or "").partition("=")[2])
            by_source.setdefault(said.lower(), {k: [] for k in found})[kind].append(row)
    items = []
    for source, kinds in sorted(by_source.items()):
        rows = [row for some in kinds.values() for row in some]
        over = _age(rows, now) >= float(params["rehearsal_age"])
        work: Callable[[], Any] | None = partial(rehearsal.remove, conn, kinds) if over else None
        why = "the rehearsal is over" if over else f"the rehearsal may be going on: it is younger than {params['rehearsal_age']:.0f} s"
        size = sum(int(v.get("size") or 0) for v in kinds["volumes"]) * volumes.GIB
        what = ", ".join(f"{len(some)} {kind}" for kind, some in kinds.items() if some)
        items.append(Item("rehearsal", source, what, source, why, size, work))
    return items


class _Landed:
    """What was made for VMs that are to become, or have become, servers."""

    def __init__(self, conn: Any, params: Mapping[str, Any], names: Mapping[str, str]) -> None:
        self.conn = conn
        self.folder = state_dir(params.get("ledger"))
        self.given_up = _given_up(params, names)
        self.names = names

    def items(self) -> list[Item]:
        conn = self.conn
        items = []
        servers = list(
            openstack_client.listing(conn, "compute", "/servers/detail", "servers", step="read the servers", microversion=SERVERS)
        )
        for server in servers:
            source = str((server.get("metadata") or {}).get(SOURCE) or "").lower()
            if source:
                items.append(self._server(server, source))
        running = {i.source for i in items if i.work is None}
        staying = {s["id"] for s in servers} - {i.id for i in items if i.work is not None}
        fields = {"fields": [*PORT_FIELDS]}
        for port in openstack_client.listing(conn, "network", "/ports", "ports", step="read the ports", params=fields):
            marks = [*(port.get("tags") or ()), *str(port.get("description") or "").split()]
            source = next((m.partition("=")[2].lower() for m in marks if m.startswith(f"{SOURCE}=")), "")
            if source:
                items.append(self._port(port, source, running, staying))
        for volume in openstack_client.listing(conn, "block_storage", "/volumes/detail", "volumes", step="read the volumes"):
            source = str((volume.get("metadata") or {}).get(SOURCE) or "").lower()
            if source:
                items.append(self._volume(volume, source, running, staying))
        for image in openstack_client.listing(conn, "image", "/images", "images", step="read the images"):
            if image.get(SOURCE) and not of_a_server(image):
                items.append(self._image(image, str(image[SOURCE]).lower(), running))
        return items

    def _busy(self, source: str) -> str | None:
        there = holders.holders(self.folder, source)
        return f"process {there[0].pid or '?'} of this machine is copying disks of its VM" if there else None

    def _of(self, source: str) -> str:
        return self.names.get(source, source)

    def _server(self, server: Row, source: str) -> Item:
        def item(why: str, work: Callable[[], Any] | None = None) -> Item:
            return Item("server", server["id"], str(server.get("name")), source, why, work=work)

        if not never_ran(server):
            return item(f"it is what {self._of(source)} has become")
        if source not in self.given_up:
            return item("it never started: the next run makes it anew")
        return item("given up", lambda: removal.remove_server(self.conn, server["id"]))

    def _port(self, port: Row, source: str, running: set[str], staying: set[str]) -> Item:
        def item(why: str, work: Callable[[], Any] | None = None) -> Item:
            return Item("port", port["id"], str(port.get("name")), source, why, work=work)

        if source in running:
            return item("its server is there" if port.get("device_id") else "it is for a server that is there")
        if port.get("device_id") in staying or str(port.get("device_owner")).startswith("network:"):
            return item("something without our mark uses it")
        if source not in self.given_up:
            return item(f"the next run for {self._of(source)} uses it")
        return item("given up", lambda: removal.remove_port(self.conn, port["id"]))

    def _volume(self, volume: Row, source: str, running: set[str], staying: set[str]) -> Item:
        def item(why: str, work: Callable[[], Any] | None = None) -> Item:
            size = int(volume.get("size") or 0) * volumes.GIB
            return Item("volume", volume["id"], str(volume.get("name")), source, why, size, work)

        known = volume.get("metadata") or {}
        busy = self._busy(source)
        if servers_of(volume) and source in running:
            return item("a server has it")
        if busy:
            return item(busy)
        if set(servers_of(volume)) & staying:
            return item("it is attached to a server without our mark: a conversion host that copies, or somebody's own")
        if volume.get("status") in ("attaching", "in-use", "reserved") and not servers_of(volume):
            return item(
                "it is attached to a machine that may write to it; ferry.vmware.rollback on that machine, with rollback_target=purged, removes it"
            )
        if source not in self.given_up:
            return item(f"{known.get(STATE) or 'copying'}: the next run for {self._of(source)} goes on with it")
        if source in running:
            return item("there is a server of its VM; ferry.vmware.rollback removes both")
        return item("given up", lambda: removal.remove_volume(self.conn, volume["id"]))

    def _image(self, image: Row, source: str, running: set[str]) -> Item:
        size = int(image.get("size") or 0)
        if asked_for(image) and image.get(STATE) == "complete":
            why = "it was asked for, and is kept until somebody removes it"
            return Item("image", image["id"], str(image.get("name")), source, why, size)
        if source in running:
            why = "its server is there; ferry.vmware.commit deletes it"
            return Item("image", image["id"], str(image.get("name")), source, why, size)
        if source not in self.given_up:
            why = "it is not whole yet: the next upload goes on with it" if image.get("status") in ("queued", "saving") else "it is whole"
            return Item("image", image["id"], str(image.get("name")), source, why, size)

        def remove() -> None:
            openstack_client.call(self.conn, "image", "DELETE", f"/images/{image['id']}", step="delete the image", allow=(404,))

        return Item("image", image["id"], str(image.get("name")), source, "given up", size, remove)
