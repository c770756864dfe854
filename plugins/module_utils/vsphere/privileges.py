# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which privileges a migration needs of its account at the source, and which of them are missing.

Vendor reference: vSphere Web Services API, "Required privileges" of each method (ReconfigVM_Task, CreateSnapshot_Task,
QueryChangedDiskAreas, ExportSnapshot, SetField …); vSphere Web Services SDK Programming Guide, "Privilege Requirements for HTTP Access";
Virtual Disk Development Kit Programming Guide, "Privileges"; AuthorizationManager.HasPrivilegeOnEntities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from ..concerns import Concern
from ..errors import ServerError
from .client import Session
from .fence import BEFORE, STATE
from .precheck_catalogue import found
from .precheck_disks import WhyNoFiles, way_of
from .precheck_options import Options
from .precheck_read import SourceVm, Wave, session_key

#: What a privilege is needed on.
VM, DATASTORE, ROOT = "VirtualMachine", "Datastore", "Folder"
_STEP = "check the privileges"
#: Objects that may not be read; each costs another question.
_MOST_UNREAD = 4
#: VMs that are named in one concern.
_NAMED = 10


@dataclass(frozen=True)
class Need:
    """C(when): always, warm, encrypted, attributes (these have to be defined yet), or the transports that need it."""

    privilege: str
    on: str
    why: str
    when: tuple[str, ...] = ("always",)


NEEDS: tuple[Need, ...] = (
    Need("VirtualMachine.Interact.PowerOff", VM, "shut the guest down at the cutover"),
    Need("VirtualMachine.Interact.PowerOn", VM, "start the source again in a rollback"),
    Need("VirtualMachine.Interact.DeviceConnection", VM, "take the source off the network at the cutover"),
    Need("VirtualMachine.Config.EditDevice", VM, "keep its network cards from connecting when it starts"),
    Need("VirtualMachine.Config.Annotation", VM, "write into its notes where it went"),
    Need("Global.SetCustomField", VM, "write down how it was before, for a rollback"),
    Need("Global.ManageCustomFields", ROOT, "define the custom attributes that hold it", ("attributes",)),
    Need("VirtualMachine.State.CreateSnapshot", VM, "freeze its disks for a copy while it runs", ("warm",)),
    Need("VirtualMachine.State.RemoveSnapshot", VM, "remove that snapshot again", ("warm",)),
    Need("VirtualMachine.Config.ChangeTracking", VM, "switch changed block tracking on", ("warm",)),
    Need("VirtualMachine.Config.AdvancedConfig", VM, "switch changed block tracking on for single disks", ("warm",)),
    Need("VirtualMachine.Provisioning.DiskRandomRead", VM, "ask for changed areas, and read disks through VDDK", ("warm", "nbd")),
    Need("VirtualMachine.Provisioning.GetVmFiles", VM, "read disks through VDDK", ("nbd",)),
    Need("VApp.Export", VM, "read disks as a stream (HttpNfcLease)", ("nfc",)),
    Need("Datastore.Browse", DATASTORE, "find disks on the datastore", ("https",)),
    Need("Datastore.FileManagement", DATASTORE, "read disks from the datastore", ("https",)),
    Need("Cryptographer.Access", VM, "read encrypted disks", ("encrypted",)),
)


#: What Forklift asks for (pkg/controller/provider/container/vsphere/permissions.go, commit d42511bb).
MTV_NEEDS: tuple[Need, ...] = (
    Need("VirtualMachine.State.CreateSnapshot", VM, "freeze its disks for a copy"),
    Need("VirtualMachine.State.RemoveSnapshot", VM, "remove that snapshot again"),
    Need("VirtualMachine.Interact.PowerOff", VM, "shut the guest down"),
    Need("VirtualMachine.Interact.PowerOn", VM, "start the source again where a migration fails"),
    Need("VirtualMachine.Provisioning.DiskRandomRead", VM, "read disks through VDDK"),
    Need("VirtualMachine.Provisioning.GetVmFiles", VM, "read disks through VDDK"),
    Need("VirtualMachine.Config.ChangeTracking", VM, "ask for changed areas"),
    Need("Datastore.Browse", DATASTORE, "find disks on the datastore"),
    Need("Datastore.FileManagement", DATASTORE, "read disks from the datastore"),
    Need("Cryptographer.Access", VM, "read encrypted disks", ("encrypted",)),
)
#: What Harvester's importer calls: ShutdownGuest, PowerOffVM_Task, ExportVm (pkg/source/vmware/client.go, v1.8.1).
HARVESTER_NEEDS: tuple[Need, ...] = (
    Need("VirtualMachine.Interact.PowerOff", VM, "shut the guest down"),
    Need("VApp.Export", VM, "read disks as a stream (HttpNfcLease)"),
)
#: By who moves the disks.
NEEDS_OF = {"openshift": MTV_NEEDS, "harvester": HARVESTER_NEEDS}


def needed(vm: SourceVm, wave: Wave, options: Options, why_no_files: WhyNoFiles) -> Iterator[tuple[Need, str | None]]:
    """What the migration of C(vm) needs, each with the MoRef of what it is needed on; None for the root folder. Pure."""
    ways = {disk: way_of(disk, options, why_no_files) for disk in vm.disks}
    so = {"always", options.strategy, *(way for way in ways.values() if way)}
    if vm.facts["encrypted"] or any(d.encrypted for d in vm.disks):
        so.add("encrypted")
    if not {BEFORE, STATE} <= wave.attributes:
        so.add("attributes")
    stores = sorted({d.datastore_moref for d, way in ways.items() if (way == "https" or options.imported) and d.datastore_moref})
    for need in NEEDS_OF.get(options.target, NEEDS):
        if so.isdisjoint(need.when):
            continue
        if need.on == DATASTORE:
            yield from ((need, moref) for moref in stores)
        else:
            yield need, vm.moref if need.on == VM else None


def missing(session: Session, key: str, asked: Mapping[str, Sequence[str]], privileges: Iterable[str]) -> dict[str, frozenset[str]]:
    """Which of C(privileges) this session has not, by MoRef, in one question. It has none on an object that it may not read.

    :param key: of this session, see UserSession.key.
    :param asked: MoRefs by type.
    :raises ServerError: vCenter does not tell.
    """
    manager: Any = session.content.authorizationManager
    wanted = sorted(privileges)
    entities = {moref: session.managed(kind, moref) for kind, morefs in asked.items() for moref in morefs}
    found: dict[str, frozenset[str]] = {}
    while entities:
        try:
            told = session.call(manager.HasPrivilegeOnEntities, list(entities.values()), key, wanted, step=_STEP, again=True)
        except ServerError as e:
            # the root folder, for an account of one folder: vCenter refuses the whole question for it, and names it
            unread = str(getattr(getattr(e.__cause__, "object", None), "_moId", ""))
            if e.details.get("fault") != "NoPermission" or entities.pop(unread, None) is None or len(found) >= _MOST_UNREAD:
                raise
            found[unread] = frozenset(wanted)
            continue
        found |= {str(e.entity._moId): frozenset(str(p.privId) for p in e.privAvailability or () if not p.isGranted) for e in told or ()}
        break
    return found


def _missing(session: Session, wave: Wave, asked: Mapping[str, Sequence[str]], privileges: Iterable[str]) -> dict[str, frozenset[str]]:
    """missing(), with the key of the session of now: of a session that has ended vCenter says that it has no privilege at all."""
    key, generation = wave.session_key, wave.generation
    for _attempt in range(3):
        if session.generation != generation:
            key, generation = session_key(session), session.generation
        if key is None:
            break
        lacking = missing(session, key, asked, privileges)
        if session.generation == generation:
            return lacking
    raise ServerError("vCenter does not tell which session this is, or ends it again and again.", code="session", step=_STEP)


def concerns(
    session: Session, wave: Wave, options_of: Callable[[SourceVm], Options], why_no_files: WhyNoFiles
) -> tuple[dict[str, list[Concern]], list[Concern]]:
    """What the account lacks: one concern at each VM that cannot be migrated for it, and one of the wave for each privilege.

    :returns: by MoRef of the VM, and of the wave.
    """
    manager = session.content.authorizationManager
    if manager is None or not wave.vcenter or not wave.vms:
        return {}, []  # an ESXi host has no such question
    root = str(session.content.rootFolder._moId)
    needs = {vm.moref: list(needed(vm, wave, options_of(vm), why_no_files)) for vm in wave.vms.values()}
    every = [(need, moref or root) for found_needs in needs.values() for need, moref in found_needs]
    asked = {kind: list(dict.fromkeys(moref for need, moref in every if need.on == kind)) for kind in (VM, DATASTORE, ROOT)}
    try:
        lacking = _missing(session, wave, asked, {need.privilege for need, unused in every})
    except ServerError as e:
        return {}, [found("ferry.privilege.unknown", f"vCenter does not tell what the account may do: {e.said or e.message}")]
    return _told(wave, needs, root, lacking)


def _told(
    wave: Wave, needs: Mapping[str, Sequence[tuple[Need, str | None]]], root: str, lacking: Mapping[str, frozenset[str]]
) -> tuple[dict[str, list[Concern]], list[Concern]]:
    of_vms: dict[str, list[Concern]] = {}
    of_wave: dict[Need, dict[str, None]] = {}
    for moref, wanted in needs.items():
        lost = [need for need, on in wanted if need.privilege in lacking.get(on or root, frozenset())]
        if not lost:
            continue
        said = "; ".join(f"{need.privilege} (to {need.why})" for need in dict.fromkeys(lost))
        of_vms[moref] = [found("ferry.privilege.missing", f"The account lacks {said}.")]
        for need, on in wanted:
            if need.privilege in lacking.get(on or root, frozenset()):
                of_wave.setdefault(need, {})[_name(wave, need, on)] = None
    return of_vms, [_of_wave(need, list(names)) for need, names in of_wave.items()]


def _name(wave: Wave, need: Need, moref: str | None) -> str:
    if moref is None:
        return "the root folder"
    if need.on == DATASTORE:
        return f"the datastore {wave.stores[moref].name}" if moref in wave.stores else moref
    return wave.vms[moref].name


def _of_wave(need: Need, names: Sequence[str]) -> Concern:
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return found("ferry.privilege.missing", f"The account lacks {need.privilege} (to {need.why}) on {shown}.", device=need.privilege)
