# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VM that is to be moved: everything that decides where it can go, and everything that has to survive the move.

Vendor reference: vSphere Web Services API, VirtualMachine (layoutEx, recentTask, resourcePool) and VirtualMachineRelocateSpec.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput
from .client import Session
from .disks import VmDisk, VmNic, split_path
from .find import VmRef
from .guest import read_vms
from .properties import Row, moref_of, of_objects

PATHS = (
    "config.changeVersion",
    "config.hardware.device",
    "datastore",
    "guest.toolsRunningStatus",
    "guestHeartbeatStatus",
    "layoutEx.disk",
    "layoutEx.file",
    "name",
    "parent",
    "parentVApp",
    "recentTask",
    "resourceConfig.memoryAllocation.reservation",
    "resourcePool",
    "runtime.faultToleranceState",
    "runtime.question",
    "runtime.recordReplayState",
)

#: Devices that are a piece of their host (VirtualDevice's subclasses in the API reference): no vMotion takes them along.
PASSTHROUGH = frozenset({"VirtualPCIPassthrough", "VirtualSriovEthernetCard", "VirtualSCSIPassthrough", "VirtualUSB"})
#: Backings of CD and floppy drives that are a device of the host or of the client at the console.
HOST_BACKINGS = ("AtapiBackingInfo", "PassthroughBackingInfo", "DeviceBackingInfo")

#: descriptionId of the tasks that move a VM (TaskInfo): VirtualMachine.relocate, VirtualMachine.migrate.
MOVING = ("relocate", "migrate")


@dataclass(frozen=True)
class Drive:
    """A CD or floppy drive that is connected. C(datastore): MoRef of the image's datastore, None for a device of the host."""

    label: str
    what: str
    datastore: str | None


@dataclass(frozen=True)
class Subject:
    """A VM and what there is to know of it for a move. Datastores, hosts, pools and folders are MoRefs.

    C(bytes_on): bytes of its files per datastore. C(disk_bytes): bytes of each disk's files (all of its chain), by key.
    C(linked): disks with a base in the folder of another VM. C(networks): MoRef per NIC key, None where it cannot be told.
    C(moving): a task that moves it and is not over.
    """

    vm: VmRef
    facts: Mapping[str, Any] = field(repr=False)
    power: str = "off"
    connected: bool = True
    host: str | None = None
    pool: str | None = None
    folder: str | None = None
    vapp: bool = False
    vmx_path: str = ""
    vmx_datastore: str | None = None
    datastores: frozenset[str] = frozenset()
    disks: tuple[VmDisk, ...] = ()
    nics: tuple[VmNic, ...] = ()
    bytes_on: Mapping[str, int] = field(default_factory=dict)
    disk_bytes: Mapping[int, int] = field(default_factory=dict)
    snapshots: int = 0
    linked: tuple[str, ...] = ()
    passthrough: tuple[str, ...] = ()
    drives: tuple[Drive, ...] = ()
    fault_tolerance: bool = False
    consolidation: bool = False
    template: bool = False
    tools: bool = False
    heartbeat: str = "gray"
    question: str | None = None
    memory_mb: int = 0
    memory_reserved_mb: int = 0
    moving: Any = None

    @property
    def annotation(self) -> str:
        return str(self.facts.get("annotation") or "")

    @property
    def attributes(self) -> dict[str, str]:
        return dict(self.facts.get("custom_attributes") or {})

    def where(self) -> dict[str, Any]:
        """The state that C(before) and C(after) of vm_move show."""
        f = self.facts
        return {
            "name": self.vm.name,
            "moref": self.vm.moref,
            "instance_uuid": self.vm.instance_uuid,
            "host": f.get("host"),
            "cluster": f.get("cluster"),
            "power": self.power,
            "connection": f.get("connection"),
            "vmx_path": self.vmx_path,
            "folder": f.get("folder"),
            "pool": self.pool,
            "datastores": list(f.get("datastores") or ()),
            "disks": [
                {"key": d.key, "label": d.label, "path": d.path, "datastore": d.datastore, "format": disk_format(d)} for d in self.disks
            ],
            "nics": [{"label": n.label, "mac": n.mac, "network": n.network} for n in self.nics],
            "annotation": self.annotation,
            "attributes": self.attributes,
        }


def disk_format(disk: VmDisk) -> str:
    """thin, thick or eagerZeroedThick, as the backing says; "other" for a backing that has no such choice."""
    if disk.thin:
        return "thin"
    if disk.eager:
        return "eagerZeroedThick"
    return "thick" if disk.thin is not None or disk.eager is not None else "other"


def folder_of(path: str) -> str:
    """The folder of a datastore file, with its datastore: "[ds] web01"."""
    return path.rpartition("/")[0]


def linked_disks(disks: Iterable[VmDisk], vmx_path: str) -> tuple[str, ...]:
    """Labels of the disks that stand on a file in a folder which is neither the VM's nor that of the running disk."""
    own = folder_of(vmx_path)
    return tuple(d.label for d in disks if any(folder_of(p) not in (own, folder_of(d.path)) for p in d.chain[1:] if p))


def drives(devices: Iterable[Any]) -> tuple[Drive, ...]:
    """CD and floppy drives that are connected."""
    found = []
    for device in devices:
        if device._wsdlName not in ("VirtualCdrom", "VirtualFloppy"):
            continue
        connectable = device.connectable
        if connectable is None or not connectable.connected:
            continue
        kind = device.backing._wsdlName
        ref = getattr(device.backing, "datastore", None)
        label = str(getattr(device.deviceInfo, "label", None) or device.key)
        if ref is not None:
            found.append(Drive(label, str(device.backing.fileName), moref_of(ref)))
        elif kind.endswith(HOST_BACKINGS) and "Remote" not in kind:
            found.append(Drive(label, str(getattr(device.backing, "deviceName", "") or "a device of the host"), None))
    return tuple(found)


def passthrough(devices: Iterable[Any]) -> tuple[str, ...]:
    """Labels of the devices that are a piece of the host."""
    return tuple(str(getattr(d.deviceInfo, "label", None) or d.key) for d in devices if d._wsdlName in PASSTHROUGH)


def sizes(
    files: Sequence[Any], layouts: Sequence[Any], disks: Sequence[VmDisk], datastores: Mapping[str, str]
) -> tuple[dict[str, int], dict[int, int]]:
    """Bytes of a VM's files per datastore, and bytes per disk, from layoutEx.

    A disk whose files are not listed, or say nothing of their size, counts with its capacity: room is never promised that is not there.

    :param datastores: MoRefs by name.
    """
    by_key = {int(f.key): f for f in files or ()}
    per_disk: dict[int, int] = {}
    for layout in layouts or ():
        keys = [int(k) for unit in layout.chain or () for k in unit.fileKey or ()]
        per_disk[int(layout.key)] = sum(int(by_key[k].size or 0) for k in keys if k in by_key)
    for disk in disks:
        if per_disk.get(disk.key, 0) <= 0 or disk_format(disk) != "thin" and len(disk.chain) == 1:
            per_disk[disk.key] = max(per_disk.get(disk.key, 0), disk.capacity)
    on: dict[str, int] = {}
    of_disks = {int(k) for layout in layouts or () for unit in layout.chain or () for k in unit.fileKey or ()}
    for file in files or ():
        if int(file.key) in of_disks or str(file.type) in ("diskDescriptor", "diskExtent"):
            continue
        moref = datastores.get(split_path(str(file.name))[0]) if str(file.name).startswith("[") else None
        if moref:
            on[moref] = on.get(moref, 0) + int(file.size or 0)
    for disk in disks:
        if disk.datastore_moref:
            on[disk.datastore_moref] = on.get(disk.datastore_moref, 0) + per_disk[disk.key]
    return on, per_disk


def _moving(session: Session, vm: str, tasks: Iterable[Any]) -> Any:
    """A task that moves the VM (MoRef) and is not over, among its own recent tasks and vCenter's (TaskManager.recentTask, 200 at most)."""
    step = "read the VM's tasks"
    refs = list(tasks)
    manager = session.content.taskManager
    if manager is not None:
        for row in of_objects(session, [manager], {"TaskManager": ("recentTask",)}, step=step):
            refs += row.props.get("recentTask") or ()
    if not refs:
        return None
    for row in of_objects(session, refs, {"Task": ("info.state", "info.descriptionId", "info.entity")}, step=step):
        what = str(row.props.get("info.descriptionId", "")).rpartition(".")[2]
        entity = row.props.get("info.entity")
        going = str(row.props.get("info.state", "")) in ("queued", "running") and what.startswith(MOVING)
        if going and entity is not None and moref_of(entity) == vm:
            return session.managed("Task", row.moref)
    return None


def read_subject(session: Session, vm: VmRef) -> Subject:
    """Read C(vm) in four questions.

    :raises BadInput: code gone, the VM is not in vCenter any more.
    """
    facts_list = read_vms(session, [vm])
    rows = of_objects(session, [vm.ref], {"VirtualMachine": PATHS}, step="read the VM")
    if not facts_list or not rows:
        raise BadInput("The VM is gone from vCenter.", code="gone", vm=vm.name, step="read the VM")
    refs = rows[0].props.get("datastore") or ()
    around = of_objects(session, refs, {"Datastore": ("name",)}, step="read the VM") if refs else []
    names = {str(r.props.get("name")): r.moref for r in around}
    return subject_of(vm, facts_list[0], rows[0], names, _moving(session, vm.moref, rows[0].props.get("recentTask") or ()))


def subject_of(vm: VmRef, facts: Mapping[str, Any], row: Row, datastores: Mapping[str, str], moving: Any = None) -> Subject:
    """The Subject from what was read. Pure.

    :param datastores: MoRefs of the VM's datastores by name.
    """
    p = row.props
    devices = p.get("config.hardware.device") or ()
    disks: tuple[VmDisk, ...] = tuple(facts["disks"])
    vmx = str(facts.get("vmx_path") or "")
    vmx_name = next((n for n in datastores if vmx.startswith(f"[{n}]")), None)
    known = {**{d.datastore: d.datastore_moref for d in disks if d.datastore_moref}, **datastores}
    on, per_disk = sizes(p.get("layoutEx.file") or (), p.get("layoutEx.disk") or (), disks, {k: v for k, v in known.items() if v})
    question = p.get("runtime.question")
    ft = str(p.get("runtime.faultToleranceState", "notConfigured"))
    pool, folder = p.get("resourcePool"), p.get("parent")
    vmx_datastore = datastores.get(vmx_name) if vmx_name is not None else None
    used = {d.datastore_moref for d in disks if d.datastore_moref} | ({vmx_datastore} if vmx_datastore else set())
    return Subject(
        vm=vm,
        facts=facts,
        power=str(facts.get("power") or "off"),
        connected=facts.get("connection") in (None, "connected"),
        host=facts.get("host_moref"),
        pool=moref_of(pool) if pool is not None else None,
        folder=moref_of(folder) if folder is not None else None,
        vapp=p.get("parentVApp") is not None,
        vmx_path=vmx,
        vmx_datastore=vmx_datastore,
        datastores=frozenset(str(u) for u in used),
        disks=disks,
        nics=tuple(facts["nics"]),
        bytes_on=on,
        disk_bytes=per_disk,
        snapshots=int(facts.get("snapshots") or 0),
        linked=linked_disks(disks, vmx),
        passthrough=passthrough(devices),
        drives=drives(devices),
        fault_tolerance=ft not in ("notConfigured", "None", ""),
        consolidation=bool(facts.get("consolidation_needed")),
        template=bool(facts.get("template")),
        tools=p.get("guest.toolsRunningStatus") in ("guestToolsRunning", "guestToolsExecutingScripts"),
        heartbeat=str(p.get("guestHeartbeatStatus", "gray")),
        question=str(question.text) if question is not None else None,
        memory_mb=int(facts.get("memory_mb") or 0),
        memory_reserved_mb=int(p.get("resourceConfig.memoryAllocation.reservation") or 0),
        moving=moving,
    )
