# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a precheck finds at a VM's disks: where they are, how they can be read, snapshots and change tracking. Pure functions."""

from __future__ import annotations

from typing import Callable, Iterator, Mapping

from ..concerns import CRITICAL, WARNING, Concern
from . import builds, cbt
from .disks import VmDisk
from .precheck_catalogue import found
from .precheck_options import Options
from .precheck_read import SourceVm, Wave
from .precheck_vm import fault_tolerant
from .snapshots import MOST_TRACKED

#: Forklift's limit of disks (disk_count.rego).
MOST_DISKS = 165
#: Most snapshots in one chain (Broadcom KB 318825, "Best practices for using VMware snapshots in the vSphere environment").
MOST_IN_CHAIN = 32
#: Lowest virtual hardware with change tracking (Broadcom KB 320557).
_TRACKED_HARDWARE = 7

#: Why a disk's files do not give its bytes, None where they do; transfer/ways.py knows.
WhyNoFiles = Callable[[VmDisk], "str | None"]


def way_of(disk: VmDisk, options: Options, why_no_files: WhyNoFiles) -> str | None:
    """By which of the allowed transports C(disk) is read; None: by none of them. VDDK is taken where files give nothing."""
    files = why_no_files(disk) is None
    if files and "https" in options.transports:
        return "https"
    if disk.rdm_mode == "physicalMode":
        return None
    return next((way for way in ("nbd", "nfc") if way in options.transports), None)


def concerns_of(vm: SourceVm, wave: Wave, options: Options, why_no_files: WhyNoFiles, shared: Mapping[str, list[str]]) -> Iterator[Concern]:
    """Everything about the disks of C(vm).

    :param shared: names of the wave's VMs by the path of a disk.
    """
    if len(vm.disks) > MOST_DISKS:
        yield found("vmware.disk.count.exceeds.limit", f"It has {len(vm.disks)} disks; some targets take {MOST_DISKS} at most.")
    for disk in vm.disks:
        yield from _disk(vm, disk, wave, shared)
        if not options.imported:
            yield from _way(disk, options, why_no_files)
    yield from _snapshots(vm, options)
    if options.warm:
        yield from _tracking(vm, wave, options)


def _disk(vm: SourceVm, disk: VmDisk, wave: Wave, shared: Mapping[str, list[str]]) -> Iterator[Concern]:
    label = disk.label
    if disk.datastore_moref is None and not disk.datastore:
        yield found("vmware.datastore.missing", f"{label} is on no datastore.", disk=label)
    if disk.capacity <= 0:
        yield found("vmware.disk.capacity.invalid", f"{label} has {disk.capacity} bytes.", disk=label)
    if disk.rdm_mode is not None:
        yield found("vmware.disk.rdm.detected", f"{label} is a raw device mapping ({disk.rdm_mode}).", disk=label)
    if (disk.mode or "").startswith("independent"):
        yield found("vmware.disk_mode.independent", f"{label} is {disk.mode}.", disk=label)
    others = [name for name in shared.get(disk.path, ()) if name != vm.name]
    if disk.sharing == "sharingMultiWriter" or disk.bus_sharing or others:
        how = disk.sharing if disk.sharing == "sharingMultiWriter" else disk.bus_sharing
        said = f"with {', '.join(others)}" if others else f"({how})"
        yield found("vmware.disk.shared.detected", f"{label} is shared {said}.", disk=label)
    store = wave.stores.get(disk.datastore_moref or "")
    if store is not None and (not store.accessible or store.maintenance != "normal"):
        state = "not accessible" if not store.accessible else f"in maintenance ({store.maintenance})"
        yield found("ferry.datastore.inaccessible", f"The datastore {store.name} is {state}.", disk=label, device=store.name)


def _way(disk: VmDisk, options: Options, why_no_files: WhyNoFiles) -> Iterator[Concern]:
    """The table of the design, section 1: by range from files, by range through VDDK, or as one stream."""
    why = why_no_files(disk)
    way = way_of(disk, options, why_no_files)
    reason = f": {why}" if why else ""
    if way is None:
        yield found(
            "ferry.transport.none", f"{disk.label} can be read by none of {', '.join(options.transports)}{reason}.", disk=disk.label
        )
    elif way == "nfc" and options.warm:
        yield found("ferry.transport.no_delta", f"{disk.label} can only be read as a whole{reason}.", disk=disk.label)
    elif way == "nfc":
        yield found("ferry.transport.stream", f"{disk.label} is read as one stream over NFC{reason}.", disk=disk.label)
    elif way == "nbd":
        yield found("ferry.transport.vddk", f"{disk.label} is read through VDDK{reason}.", disk=disk.label)


def _snapshots(vm: SourceVm, options: Options) -> Iterator[Concern]:
    theirs = vm.foreign_snapshots
    names = ", ".join(s.name for s in theirs[:5]) + (f" and {len(theirs) - 5} more" if len(theirs) > 5 else "")
    if theirs:
        yield found("vmware.snapshot.detected", f"It has {len(theirs)} snapshots: {names}.")
    if vm.facts["consolidation_needed"]:
        yield found("vmware.consolidation_needed", "Its disks wait for consolidation.")
    deepest = max((len(d.chain) for d in vm.disks), default=0)
    if len(theirs) >= MOST_TRACKED or deepest >= MOST_IN_CHAIN:
        yield found(
            "ferry.snapshots.limit",
            f"It has {len(theirs)} snapshots and chains of up to {deepest} files.",
            category=None if options.warm else WARNING,
        )


def _no_tracking(vm: SourceVm) -> str | None:
    """Why vSphere cannot track the VM at all."""
    facts = vm.tracking
    if facts.hardware is not None and facts.hardware < _TRACKED_HARDWARE:
        return f"its virtual hardware is version {facts.hardware}; tracking needs {_TRACKED_HARDWARE}"
    if fault_tolerant(vm):
        return "it has Fault Tolerance, which allows no snapshots"
    return "its host does not track changes" if facts.supported is False else None


def tracked(vm: SourceVm, disk: VmDisk) -> bool:
    """Whether changes of C(disk) are tracked now: configured and in effect (a changeId is there)."""
    return vm.tracking.configured(disk) and disk.change_id is not None


def _tracking(vm: SourceVm, wave: Wave, options: Options) -> Iterator[Concern]:
    facts = vm.tracking
    barred = _no_tracking(vm)
    if barred:
        yield found("ferry.cbt.unsupported", f"Changes cannot be tracked: {barred}.")
    if not facts.enabled:
        yield found("vmware.changed_block_tracking.disabled", "Changed block tracking is off.")
    missing = []
    for disk in vm.disks:
        why = cbt.untrackable(disk, facts)
        if why:
            yield found("ferry.cbt.untrackable", f"{disk.label}: {why}.", disk=disk.label)
        elif not tracked(vm, disk):
            missing.append(disk.label)
            state = "switched on, but not yet in effect" if facts.configured(disk) else "off"
            yield found("vmware.changed_block_tracking.disk.disabled", f"Tracking of {disk.label} is {state}.", disk=disk.label)
        host = wave.host_of(vm)
        bad = builds.bad_build(host.build if host else None, disk.capacity, options.distrusted_builds)
        if bad:
            yield found("ferry.cbt.bad_build", f"{disk.label}: {bad}.", disk=disk.label, device=host.name if host else None)
    snapshots = vm.foreign_snapshots
    if missing:
        yield found(
            "VMMissingChangedBlockTracking",
            f"Not tracked yet: {', '.join(missing)}.",
            category=CRITICAL if barred or snapshots else None,
        )
    if snapshots:
        yield found(
            "VMHasSnapshots",
            f"It has {len(snapshots)} snapshots, and {'not all of its disks are' if missing else 'its disks are'} tracked.",
            category=None if missing else WARNING,
        )
