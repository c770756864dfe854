# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A migration that counts for good: what of it may now be deleted, with sizes, and deleting what was named and nothing else."""

from __future__ import annotations

import contextlib
import glob
import os
from typing import Any, Mapping, Sequence

from ..errors import BadInput, Busy, FerryError
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import undo
from ..openstack_cloud.images import asked_for, of_a_server
from ..openstack_cloud.matching import servers_of
from ..openstack_cloud.target import DISK, SERVERS
from ..vsphere import client as vsphere_client
from ..vsphere import fence, find, guest, snapshots, source_state
from ..vsphere.properties import of_objects
from ..vsphere.restore import COMMITTED
from ..vsphere.snapshot_tree import every
from ..vsphere.tasks import wait_task
from . import holders, sources, ways
from .targets import SOURCE, SOURCE_STATE, STATE, state_dir, state_of

KINDS = ("snapshots", "source", "ledgers", "images")
#: Metadata of the server: by these a second run finds that the source it names has been deleted.
_MOREF, _NAME = "ferry_moref", "ferry_vm"
#: Seconds for the deletion of a VM with its files.
DESTROY_TIMEOUT = 3600.0

Row = Mapping[str, Any]


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Commit the migration of the VM that C(params) (the options of migration_commit) name. See the module for options and results."""
    with contextlib.ExitStack() as stack:
        conn = openstack_client.connect({**params, "validate_certs": None})
        stack.callback(conn.close)
        session = vsphere_client.connect(params)
        stack.callback(session.close)
        try:
            vm = find.find_vm(session, params["vm"])
        except BadInput as e:
            gone = _committed_before(conn, str(params["vm"])) if e.details.get("unknown") else None
            if gone is None:
                raise
            return _after_all(conn, params, gone, check)
        return _Commit(params, conn, session, vm, check).run()


def _committed_before(conn: Any, wanted: str) -> Row | None:
    """The server of a migration that was committed and whose source, called C(wanted), is gone."""
    last = wanted.rstrip("/").rsplit("/", 1)[-1]
    rows = openstack_client.listing(conn, "compute", "/servers/detail", "servers", step="read the servers", microversion=SERVERS)
    found = []
    for row in rows:
        known = row.get("metadata") or {}
        names = (known.get(_MOREF), known.get(_NAME), known.get(SOURCE))
        if known.get(STATE) == COMMITTED and (wanted in names or last in names or wanted.lower() in names):
            found.append(row)
    return found[0] if len(found) == 1 else None


def _after_all(conn: Any, params: Mapping[str, Any], server: Row, check: bool) -> dict[str, Any]:
    """The source is gone: ledgers and images may be left."""
    known = server.get("metadata") or {}
    source = str(known.get(SOURCE) or "")
    items = [*_ledgers(params, source), *_images(conn, source)]
    deleted = _delete(conn, params, source, items, check)
    return {
        "changed": bool(deleted),
        "vm": {"name": known.get(_NAME), "moref": known.get(_MOREF), "instance_uuid": source},
        "server": server["id"],
        "committed": True,
        "left": [i for i in items if i not in deleted],
        "deleted": deleted,
    }


def _ledgers(params: Mapping[str, Any], source: str) -> list[dict[str, Any]]:
    folder = state_dir(params.get("ledger"))
    paths = set()
    for lock in holders.lock_files(folder, source) if source else ():
        base = lock.removesuffix(".lock")
        # with a separator: beside vm-4 there may be a vm-42
        paths |= {base, *glob.glob(glob.escape(base) + "[.-]*")}
    rows = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):
            rows.append({"kind": "ledgers", "what": path, "bytes": os.stat(path).st_size, "id": path})
    return rows


def _images(conn: Any, source: str) -> list[dict[str, Any]]:
    if not source:
        return []
    found = openstack_client.listing(conn, "image", "/images", "images", step="read the images", params={SOURCE: source})
    return [
        {"kind": "images", "what": f"image {i.get('name')}", "bytes": int(i.get("size") or 0), "id": i["id"]}
        for i in found
        if i.get(SOURCE) == source and not of_a_server(i) and not asked_for(i)
    ]


def _delete(conn: Any, params: Mapping[str, Any], source: str, items: Sequence[dict[str, Any]], check: bool) -> list[dict[str, Any]]:
    """Delete the ledgers and images that were named.

    :raises Busy: a process of this machine works with the ledgers; without its lock file, a second one could.
    """
    done: list[dict[str, Any]] = []
    there = holders.holders(state_dir(params.get("ledger")), source) if source and "ledgers" in params["delete"] else []
    if there:
        raise Busy(
            "The ledgers are in use.",
            step="delete the ledgers",
            said=", ".join(f"process {h.pid or '?'} holds {os.path.basename(h.path)}" for h in there),
            next_command="let that process end, and run it again",
        )
    for item in items:
        if item["kind"] not in params["delete"]:
            continue
        if not check and item["kind"] == "ledgers":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(item["id"])
        elif not check and item["kind"] == "images":
            openstack_client.call(conn, "image", "DELETE", f"/images/{item['id']}", step="delete the image", allow=(404,))
        done.append(item)
    return done


class _Commit:
    def __init__(self, params: Mapping[str, Any], conn: Any, session: Any, vm: find.VmRef, check: bool) -> None:
        self.params = params
        self.conn = conn
        self.session = session
        self.vm = vm
        self.check = check
        self.source = str(vm.instance_uuid or vm.moref).lower()

    def run(self) -> dict[str, Any]:
        facts = guest.read_vms(self.session, [self.vm])[0]
        landed = undo.landed(self.conn, self.source)
        server = self._insist(facts, landed)
        snaps = [s for s in every(self.session, self.vm) if s.tag is not None]
        items = [{"kind": "snapshots", "what": f"snapshot {s.name}", "bytes": None, "id": s.moref} for s in snaps]
        items.append(self._source_item(facts))
        rest = [*_ledgers(self.params, self.source), *_images(self.conn, self.source)]
        if "source" in self.params["delete"]:
            self._insist_alone(facts)
            self._insist_unwritten(facts, landed[2])
        changed = self._mark(server)
        deleted: list[dict[str, Any]] = []
        for item in items:
            if item["kind"] not in self.params["delete"]:
                continue
            if not self.check:
                try:
                    if item["kind"] == "source":
                        self._destroy()
                    else:
                        snapshots.remove(self.session, next(s for s in snaps if s.moref == item["id"]))
                except FerryError as e:
                    e.partial = {"changed": True, "deleted": deleted}
                    raise e.add(vm=self.vm.name) from e
            deleted.append(item)
        deleted += _delete(self.conn, self.params, self.source, rest, self.check)
        return {
            "changed": changed or bool(deleted),
            "vm": {"name": self.vm.name, "moref": self.vm.moref, "instance_uuid": self.source},
            "server": server["id"],
            "committed": True,
            "left": [i for i in [*items, *rest] if i not in deleted],
            "deleted": deleted,
        }

    def _insist(self, facts: Row, there: tuple[list[Row], list[Row], list[Row]]) -> Row:
        """The server that the VM has become, where nothing is missing any more.

        :param there: undo.landed().
        :raises BadInput: code not_done, with all reasons.
        """
        servers, _ports, disks = there
        landed = {str((v.get("metadata") or {}).get(DISK)) for v in disks}
        # A shared disk may have been left out: it is another VM's volume, and keeps the source from being deleted.
        without = [d.label for d in facts["disks"] if str(d.key) not in landed and d.sharing != "sharingMultiWriter" and not d.rdm_mode]
        state = source_state.read_state(self.session, self.vm)
        said = state.attributes.get(fence.STATE, "")
        problems = []
        if state.power != "off":
            problems.append(f"its source is {state.power}")
        if said not in ("migrated", COMMITTED):
            problems.append(f"its state is {said or 'not known'}")
        if len(servers) != 1:
            problems.append(f"there are {len(servers)} servers of it" if servers else "there is no server of it")
        elif servers[0].get("status") not in ("ACTIVE", "SHUTOFF"):
            problems.append(f"its server has the status {servers[0].get('status')}")
        for volume in disks:
            known = volume.get("metadata") or {}
            if known.get(STATE) != "complete":
                problems.append(f"its volume {volume.get('name')} is not complete")
            elif servers and servers[0]["id"] not in servers_of(volume):
                problems.append(f"its volume {volume.get('name')} is not attached to its server")
        if not disks:
            problems.append("there are no volumes of it")
        elif without:
            problems.append(f"there is no volume of its disk {', '.join(without)}")
        if problems:
            raise BadInput(
                "Its migration cannot be committed: " + "; ".join(problems) + ".",
                code="not_done",
                vm=self.vm.name,
                step="commit",
                next_command="run ferry.vmware.migrate once more, or ferry.vmware.rollback",
            )
        return servers[0]

    def _source_item(self, facts: Row) -> dict[str, Any]:
        rows = of_objects(self.session, [self.vm.ref], {"VirtualMachine": ("summary.storage",)}, step="read the VM")
        storage = rows[0].props.get("summary.storage") if rows else None
        size = int(storage.committed) if storage is not None else sum(d.capacity for d in facts["disks"])
        return {
            "kind": "source",
            "what": f"virtual machine {self.vm.path} with its {len(facts['disks'])} disks",
            "bytes": size,
            "id": self.vm.moref,
        }

    def _insist_alone(self, facts: Row) -> None:
        """Nothing of somebody else may go with the VM.

        :raises BadInput: code shared.
        """
        problems = [f"{d.label} is shared with other VMs" for d in facts["disks"] if d.sharing == "sharingMultiWriter"]
        problems += [f"{d.label} is a raw device" for d in facts["disks"] if d.rdm_mode]
        foreign = [s.name for s in every(self.session, self.vm) if s.tag is None]
        if foreign:
            problems.append(f"it has snapshots that are not ours ({', '.join(foreign[:5])}): they may be the base of linked clones")
        if facts["template"]:
            problems.append("it is a template")
        if problems:
            raise BadInput(
                "The source is not deleted: " + "; ".join(problems) + ".",
                code="shared",
                vm=self.vm.name,
                step="delete the source",
                next_command="take these apart first, or delete it by hand",
            )

    def _insist_unwritten(self, facts: Row, landed: Sequence[Row]) -> None:
        """What was written at the source after the copy is nowhere else: files that are no more as they were when they were copied
        keep the source from being deleted.

        :param landed: its volumes.
        :raises BadInput: code written_since.
        """
        copied = {str((v.get("metadata") or {}).get(DISK)): (v.get("metadata") or {}).get(SOURCE_STATE) for v in landed}
        for disk in facts["disks"]:
            state = copied.get(str(disk.key))
            if not state or disk.sharing == "sharingMultiWriter" or disk.rdm_mode or ways.choose("auto", disk, nbd=False).name != "https":
                continue
            with contextlib.closing(sources.open_https(self.session, disk)) as source:
                same = state_of(source) == state
            if not same:
                raise BadInput(
                    f"The source is not deleted: {disk.label} is not known to be as it was copied. The VM may have run since.",
                    code="written_since",
                    vm=self.vm.name,
                    step="delete the source",
                    next_command="look at what was written there; ferry.vmware.rollback brings the source back, and migrate copies it anew",
                )

    def _mark(self, server: Row) -> bool:
        wanted = source_state.Wanted(attributes={fence.STATE: COMMITTED})
        changed = bool(source_state.apply(self.session, self.vm, wanted, check=self.check)["changed"])
        said = {STATE: COMMITTED, _MOREF: self.vm.moref}
        known = server.get("metadata") or {}
        if any(known.get(k) != v for k, v in said.items()):
            changed = True
            if not self.check:
                body = {"metadata": said}
                openstack_client.call(self.conn, "compute", "POST", f"/servers/{server['id']}/metadata", step="mark the server", body=body)
        return changed

    def _destroy(self) -> None:
        step = "delete the source"
        state = source_state.read_state(self.session, self.vm)
        if state.power != "off" or state.attributes.get(fence.STATE) != COMMITTED:
            raise BadInput("The source is not off any more, or its state has changed.", code="not_done", vm=self.vm.name, step=step)
        task = self.session.call(self.vm.ref.Destroy_Task, step=step)
        wait_task(self.session, task, vm=self.vm.name, step=step, timeout=DESTROY_TIMEOUT)
