# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying the disks of a VM, or one file, to where they will live: what vm_disk_copy does, free of Ansible."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import Any, Mapping

from ..disk import copy as engine
from ..disk import ledger as ledgers
from ..disk.model import Kind, Source
from ..disk.progress import Progress
from ..disk.sinks.file import FileSink
from ..disk.sources.file import FileSource
from ..disk.vmdk import reader as vmdk_reader
from ..errors import BadInput, Busy, FerryError, ServerError
from ..long_task import progress_from
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import volumes
from ..vsphere import client as vsphere_client
from ..vsphere import disks as vsphere_disks
from ..vsphere import find, guest
from . import sources

#: Metadata that a finished volume carries: a second host (or a second run without the ledger) finds the facts there.
STATE, DIGEST, SOURCE, SOURCE_STATE, DISK_KEY = "ferry_state", "ferry_digest", "ferry_source", "ferry_source_state", "ferry_disk"


@dataclass
class Wanted:
    """One disk to be copied: where from, where to."""

    label: str
    key: str
    capacity: int
    dest: Mapping[str, Any]
    facts: vsphere_disks.VmDisk | None = None

    @property
    def target(self) -> str:
        """The target as the ledger names it."""
        return f"volume:{self.dest['volume']}" if self.dest.get("volume") else f"path:{os.path.abspath(self.dest['path'])}"


def state_dir(ledger: str | None) -> str:
    """The folder of ledgers, locks and mounts on this machine; C(ledger) or the user's state folder (XDG base directories)."""
    if ledger:
        return os.path.abspath(os.path.expanduser(ledger))
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "ferry")


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Copy the disks that C(params) (the options of vm_disk_copy) name. See the module for options and results.

    :raises FerryError: with the VM, the disk and the step; what was copied stays in the ledger and is used again.
    """
    with contextlib.ExitStack() as stack:
        progress = progress_from(params, name=str(params.get("vm") or params.get("source")))
        if not check:
            stack.enter_context(progress)
            progress.install_signals()
        vm: dict[str, Any] | None = None
        try:
            if params.get("vm"):
                session = vsphere_client.connect(params)
                stack.callback(session.close)
                found = find.find_vm(session, params["vm"])
                vm = guest.read_vms(session, [found])[0]
                progress.name = vm["name"]
                wanted = _of_vm(vm, params)
            else:
                session = None
                wanted = [_of_file(params)]
            return _Copy(params, stack, progress, session, vm).run(wanted, check)
        except FerryError as e:
            e.add(vm=vm["name"] if vm else params.get("vm"))
            raise


def _of_vm(vm: Mapping[str, Any], params: Mapping[str, Any]) -> list[Wanted]:
    out = []
    disks: list[vsphere_disks.VmDisk] = vm["disks"]
    for entry in params["disks"]:
        if entry.get("disk") is None and len(disks) != 1:
            raise BadInput("Say which disk goes where.", step="find the disk", said=", ".join(d.label for d in disks))
        disk = vsphere_disks.find_disk(disks, entry["disk"]) if entry.get("disk") is not None else disks[0]
        out.append(Wanted(disk.label, str(disk.key), disk.capacity, _dest(entry), disk))
    for what, values in (("disk", [w.key for w in out]), ("target", [w.target for w in out])):
        if len(set(values)) != len(values):
            raise BadInput(f"The same {what} is named twice.", step="read the options")
    if vm["power"] != "off":
        raise BadInput(
            "The VM is running: its disks change while they would be copied.",
            code="vm_running",
            step="look at the VM",
            said=vm["power"],
            next_command="shut the VM down, then run the same command again",
        )
    return out


def _of_file(params: Mapping[str, Any]) -> Wanted:
    entries = params["disks"]
    if len(entries) != 1 or entries[0].get("disk") is not None:
        raise BadInput("With source there is one disk: give one entry in disks, with dest only.", step="read the options")
    path = os.path.abspath(params["source"])
    return Wanted(os.path.basename(path), path, 0, _dest(entries[0]))


def _dest(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    dest: Mapping[str, Any] = entry.get("dest") or {}
    if len([k for k in ("path", "volume") if dest.get(k)]) != 1:
        raise BadInput("dest needs one of path and volume.", step="read the options")
    return dest


class _Copy:
    def __init__(
        self, params: Mapping[str, Any], stack: contextlib.ExitStack, progress: Progress, session: Any, vm: Mapping[str, Any] | None
    ) -> None:
        self.params = params
        self.stack = stack
        self.progress = progress
        self.session = session
        self.vm = vm
        self.folder = state_dir(params.get("ledger"))
        self.source_id = str(vm["instance_uuid"]) if vm else ""
        self._conn: Any = None

    @property
    def conn(self) -> Any:
        if self._conn is None:
            # validate_certs and ca_path are vCenter's here; OpenStack's are in clouds.yaml or ca_cert.
            self._conn = openstack_client.connect({**self.params, "validate_certs": None})
            self.stack.callback(self._conn.close)
        return self._conn

    def run(self, wanted: list[Wanted], check: bool) -> dict[str, Any]:
        rows: list[dict[str, Any] | None] = [None] * len(wanted)
        jobs: list[tuple[int, engine.Job]] = []
        attached: list[tuple[Wanted, volumes.AttachedVolume, engine.Job]] = []
        for i, w in enumerate(wanted):
            try:
                source = self._source(w)
                w.capacity = source.capacity
                done = self._already(w, source)
                if done is not None or check:
                    rows[i] = done or self._predict(w, source)
                    continue
                ledger = ledgers.Ledger(self._ledger_path(w), source.capacity)
                self.stack.callback(ledger.close)
                if self.params["mode"] == "full" and ledger.fact("state") == "complete":
                    ledger.forget()
                sink, volume = self._sink(w)
                job = engine.Job(w.label, source, sink, ledger, unit=self.params["chunk_size"])
                jobs.append((i, job))
                if volume is not None:
                    attached.append((w, volume, job))
            except FerryError as e:
                e.add(disk=w.label)
                raise
        if jobs:
            for w, volume, _job in attached:
                volumes.set_metadata(self.conn, volume.volume_id, {STATE: "copying", SOURCE: self.source_id or w.key, DISK_KEY: w.key})
            try:
                results = engine.run(
                    [job for _i, job in jobs],
                    workers=self.params["workers"],
                    verify=self.params["verify"],
                    watcher=self.progress,
                    guard=lambda: self._still_ours(attached),
                )
            except FerryError as e:
                e.partial = {"changed": True, "disks": [self._row(wanted[i], job.result.as_dict(), None) for i, job in jobs]}
                raise
            for (i, job), result in zip(jobs, results, strict=True):
                rows[i] = self._row(wanted[i], result.as_dict(), job)
            for w, volume, job in attached:
                self._finish_volume(w, volume, job)
        found = [r for r in rows if r is not None]
        return {"changed": any(r["changed"] for r in found), "disks": found}

    # -- source and target --------------------------------------------------------------------------------------

    def _source(self, w: Wanted) -> Source:
        source: Source
        if w.facts is not None:
            if self.params["transport"] == "file":
                raise BadInput("A VM's disk is read from vCenter: transport is https or auto.", step="read the options")
            source = sources.open_https(self.session, w.facts, stop=self.progress.check, patience=self.params["patience"])
        else:
            if self.params["transport"] == "https":
                raise BadInput("A local source is read as a file: transport is file or auto.", step="read the options")
            path = self.params["source"]
            source = vmdk_reader.open_disk(path) if _named_vmdk(path) else FileSource(path)
        self.stack.callback(source.close)
        return source

    def _sink(self, w: Wanted) -> tuple[FileSink, volumes.AttachedVolume | None]:
        if not w.dest.get("volume"):
            sink = FileSink(w.dest["path"], w.capacity)
            self.stack.callback(sink.close)
            return sink, None
        attachment = volumes.attach(
            self.conn, w.dest["volume"], state_dir=self.folder, root_helper=self.params["root_helper"], take_over=self.params["take_over"]
        )
        self.stack.callback(attachment.detach)
        if attachment.size < w.capacity:
            raise BadInput(
                f"The volume has {attachment.size} bytes, the disk {w.capacity}.", code="target_too_small", step="attach the volume"
            )
        sink = FileSink(attachment.path, w.capacity, resize=False)
        sink.identity = w.target
        self.stack.callback(sink.close)
        return sink, attachment

    def _ledger_path(self, w: Wanted) -> str:
        return os.path.join(self.folder, "ledgers", ledgers.file_name(self.source_id or "file", w.key, w.target))

    @staticmethod
    def _still_ours(attached: list[tuple[Wanted, volumes.AttachedVolume, engine.Job]]) -> None:
        """Raise when another host has taken a volume over: its attachment is the lease, and deleting it does not stop us."""
        for w, volume, _job in attached:
            try:
                ours = volume.still_ours()
            except ServerError:
                continue  # Cinder is away: that says nothing about the lease; it is asked again in a few seconds
            if not ours:
                raise Busy(
                    "The volume was taken over by another host while it was being written.",
                    disk=w.label,
                    step="write",
                    volume=volume.volume_id,
                )

    # -- what is known ------------------------------------------------------------------------------------------

    def _state_of(self, source: Source) -> str:
        return hashlib.sha256(source.identity.encode()).hexdigest()[:32]

    def _already(self, w: Wanted, source: Source) -> dict[str, Any] | None:
        """The row of a volume that says itself that it holds this state of the source; None where work is to be done."""
        if not w.dest.get("volume"):
            return None
        volume = volumes.get_volume(self.conn, w.dest["volume"])
        known = volume.get("metadata") or {}
        if volume["size"] * volumes.GIB < w.capacity:
            raise BadInput(
                f"The volume has {volume['size']} GiB, the disk {w.capacity} bytes.", code="target_too_small", step="look at the volume"
            )
        theirs = known.get(SOURCE), known.get(DISK_KEY)
        if None not in theirs and theirs != (self.source_id or w.key, w.key):
            raise Busy(
                "The volume holds another VM's disk.", step="look at the volume", said=f"{SOURCE}={theirs[0]} {DISK_KEY}={theirs[1]}"
            )
        if known.get(STATE) != "complete" or known.get(SOURCE_STATE) != self._state_of(source):
            return None
        if self.params["mode"] == "full" or self.params["verify"] == "full" and volume["status"] == "available":
            return None
        result = engine.Result(w.label, w.capacity, mode="none", digest=known.get(DIGEST, ""))
        return self._row(w, result.as_dict(), None)

    def _predict(self, w: Wanted, source: Source) -> dict[str, Any]:
        """What a run would do, for check mode; nothing is opened for writing."""
        data = sum(e.length for e in source.extents() if e.kind == Kind.DATA)
        result = engine.Result(w.label, w.capacity, changed=True)
        path, resumed = self._ledger_path(w), 0
        if os.path.exists(path):
            ledger = ledgers.Ledger(path, w.capacity)
            with contextlib.closing(ledger):
                same = ledger.fact("source") == source.identity
                if same and ledger.fact("state") == "complete" and self.params["mode"] != "full" and self._unaltered(w, ledger):
                    result.changed, result.mode, result.digest = False, "none", ledger.fact("digest", "")
                elif same:
                    resumed = sum(
                        ledger.digests.length_of(c) for c in range(ledger.chunks) if ledger.state(c) in (ledgers.ZERO, ledgers.DATA)
                    )
        row = self._row(w, result.as_dict(), None)
        row["bytes_to_read"] = max(0, data - resumed) if result.changed else 0
        return row

    def _unaltered(self, w: Wanted, ledger: ledgers.Ledger) -> bool:
        try:
            info = os.stat(w.dest["path"])
        except OSError:
            return False
        return bool(ledger.fact("stamp") == f"{info.st_size}:{info.st_mtime_ns}")

    # -- results ------------------------------------------------------------------------------------------------

    def _row(self, w: Wanted, row: dict[str, Any], job: engine.Job | None) -> dict[str, Any]:
        row["key"] = w.key
        row["dest"] = {k: v for k, v in w.dest.items() if v}
        row["transport"] = "https" if w.facts is not None else "file"
        row["change_id"] = None
        if job is not None and self.params.get("checksum") == "sha256":
            row["sha256"] = _sha256(job.sink, w.capacity, self.progress, w.label)
        return row

    def _finish_volume(self, w: Wanted, volume: volumes.AttachedVolume, job: engine.Job) -> None:
        volumes.set_metadata(
            self.conn,
            volume.volume_id,
            {STATE: "complete", DIGEST: job.result.digest, SOURCE_STATE: self._state_of(job.source)},
        )


def _named_vmdk(path: str) -> bool:
    """Whether C(path) is to be read as a VMDK. By its name, never by its content: that of a raw disk is the guest's to write."""
    name = os.path.basename(path).lower()
    return name.endswith(".vmdk") and not name.endswith(("-flat.vmdk", "-rdmp.vmdk"))


def _sha256(sink: Any, capacity: int, progress: Progress, label: str) -> str:
    """SHA-256 of the first C(capacity) bytes of the target, read in order."""
    total = hashlib.sha256()
    step = 4 << 20
    zeroes = bytes(step)
    for at in range(0, capacity, step):
        length = min(step, capacity - at)
        progress.update(label, "sha256", at, capacity)
        progress.check()
        total.update(memoryview(zeroes)[:length] if sink.is_hole(at, length) else sink.read(at, length))
    progress.finish(label)
    return total.hexdigest()
