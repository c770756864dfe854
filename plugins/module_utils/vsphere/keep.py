# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What vCenter alone knows of a VM, in a file that outlives the run: written before the VM is unregistered, put back afterwards.

A VM's files hold its devices, its notes and its UUIDs. Not in them are: custom attributes, tags, permissions, the folder, the
resource pool, and its places in the rules, groups and exceptions of its cluster.

Vendor reference: vSphere Web Services API, VirtualMachine.UnregisterVM ("any high-level information stored with the management
server (such as statistics, resource pool association, permissions, and alarms)" is lost).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

from ..errors import BadInput, Busy, FerryError, ServerError, bounded

VERSION = 1
#: No file of ours is larger: a VM with a thousand permissions takes some 200 KiB.
MAX_BYTES = 4 << 20
#: The order of the steps of a failover.
STEPS = ("kept", "unregistering", "unregistered", "registering", "registered", "restored", "booted")


def default_folder() -> Path:
    """The folder of the files, of this user on this machine."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "ferry" / "failover"


class Record:
    """One VM's file: C(data) as JSON has it, C(path) where it lies."""

    def __init__(self, path: Path, data: dict[str, Any]) -> None:
        self.path = path
        self.data = data

    @property
    def step(self) -> str:
        return str(self.data["step"])

    @property
    def name(self) -> str:
        return str(self.data["vm"]["name"])

    def reached(self, step: str) -> bool:
        """Whether C(step) of STEPS has been made."""
        return STEPS.index(self.step) >= STEPS.index(step)

    def answers_to(self, wanted: str) -> bool:
        """Whether C(wanted), as a user names a VM, is this one."""
        vm = self.data["vm"]
        text = wanted.strip()
        known = (vm["name"], vm["moref"], vm["path"], self.data.get("new_moref"), str(vm["instance_uuid"] or "").lower())
        return bool(text) and (
            text in known or text.lower() == known[-1] or "/" in text and str(vm["path"]).endswith("/" + text.strip("/"))
        )

    def save(self, **changes: Any) -> None:
        """Write the record with C(changes), so that it is there after a power cut: a new file, flushed, renamed, the folder flushed."""
        data = {**self.data, **changes}
        text = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".new-")  # made with mode 0600
            with os.fdopen(handle, "w", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            raise FerryError(
                f"The record of the VM cannot be written to {self.path}.",
                code="state",
                vm=self.name,
                step="keep what vCenter alone knows",
                said=e,
                left="nothing was changed in vCenter since the last record",
            ) from e
        self.data = data


class Store:
    """The records of one vCenter in a folder. C(vcenter): its instance UUID."""

    def __init__(self, folder: str | os.PathLike[str] | None, vcenter: str) -> None:
        self.folder = Path(folder).expanduser() if folder else default_folder()
        self.vcenter = vcenter
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise BadInput(f"The folder {self.folder} cannot be made.", step="open the records", said=e) from e

    def _path(self, uuid: str, done: bool = False) -> Path:
        # what comes from a server never becomes a path
        name = hashlib.sha256(f"{self.vcenter}\0{uuid}".encode()).hexdigest()[:32]
        return self.folder / f"{name}{'.done' if done else ''}.json"

    def _load(self, path: Path) -> Record | None:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError("too large")
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] != VERSION or data["step"] not in STEPS or not isinstance(data["vm"]["name"], str):
                raise ValueError("of another version")
            if data["vcenter"] == self.vcenter and not _whole(data):
                raise ValueError("something is missing")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            raise BadInput(
                f"{path} is no record of a VM ({bounded(e, 100)}).",
                code="state",
                step="open the records",
                next_command="look at the file; it may be all that is left of what vCenter knew of an unregistered VM",
            ) from e
        return Record(path, data)

    def get(self, uuid: str, *, done: bool = False) -> Record | None:
        """The record of the VM with the instance UUID C(uuid), if there is one; C(done): that of its last finished failover."""
        return self._load(self._path(uuid, done))

    def all(self) -> list[Record]:
        """All records of this vCenter that are not finished."""
        paths = sorted(p for p in self.folder.glob("*.json") if not p.name.endswith(".done.json") and not p.name.startswith("."))
        found = [r for p in paths if (r := self._load(p)) is not None]
        return [r for r in found if r.data["vcenter"] == self.vcenter]

    def find(self, wanted: str) -> Record | None:
        """The one unfinished record that C(wanted) names; BadInput where there are several."""
        found = [r for r in self.all() if r.answers_to(wanted)]
        if len(found) > 1:
            listed = ", ".join(f"{r.data['vm']['path']} ({r.data['vm']['instance_uuid']})" for r in found)
            raise BadInput(f"{len(found)} failovers under way answer to {bounded(wanted, 120)}: {listed}.", step="open the records")
        return found[0] if found else None

    def new(self, uuid: str, data: Mapping[str, Any]) -> Record:
        """A new record, written."""
        record = Record(self._path(uuid), {**data, "version": VERSION, "vcenter": self.vcenter, "step": "kept"})
        record.save()
        return record

    def finish(self, record: Record) -> None:
        """The failover is over: its record stays, as the last one of this VM."""
        done = self._path(str(record.data["vm"]["instance_uuid"]), True)
        try:
            os.replace(record.path, done)
        except OSError as e:
            raise FerryError(f"The record {record.path} cannot be put away.", code="state", step="end the failover", said=e) from e
        record.path = done

    def drop(self, record: Record) -> None:
        """The failover was never begun: forget it."""
        record.path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, uuid: str) -> Iterator[None]:
        """One run at a time for one VM, on this machine; vCenter itself lets only one register it."""
        path = self._path(uuid).with_suffix(".lock")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise BadInput(f"{path} cannot be made.", code="state", step="open the records", said=e) from e
        with open(handle, "w", encoding="ascii") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                raise Busy("Another run fails this VM over.", step="open the records", said=e) from e
            yield


#: What a record has beside its steps, and of which types.
_FIELDS: dict[str, tuple[type, ...]] = {
    "host": (str,),
    "power": (str,),
    "vmx_path": (str,),
    "memory_mb": (int,),
    "datastores": (list,),
    "attributes": (dict,),
    "permissions": (list,),
    "drs": (dict,),
    "before": (dict,),
    "annotation": (str,),
    "folder": (str, type(None)),
    "folder_path": (str, type(None)),
    "pool": (str, type(None)),
    "pool_path": (list,),
    "cluster": (str, type(None)),
    "host_name": (str, type(None)),
    "tags": (list, type(None)),
}
_VM_FIELDS = ("moref", "instance_uuid", "path")


def _whole(data: Mapping[str, Any]) -> bool:
    """Whether a record has all that the steps of a failover ask of it."""
    of = all(isinstance(data["vm"].get(name), str) for name in _VM_FIELDS) and "bios_uuid" in data["vm"]
    drs = data.get("drs")
    lists = isinstance(drs, dict) and all(isinstance(drs.get(name), list) for name in ("groups", "rules"))
    return of and lists and all(isinstance(data.get(name), kinds) for name, kinds in _FIELDS.items())


def unknown_folder(name: str, path: str) -> ServerError:
    """The error for a folder that was there when the VM was kept."""
    return ServerError(f"The folder {path} of the VM is gone.", code="gone", vm=name, step="register the VM")
