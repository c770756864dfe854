# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a concern means where an importer moves the disks: Forklift (MTV, target openshift) or Harvester's vm-import-controller.

One row for every id that a precheck can have. The label is Forklift's own where it has the id, so that its console and our list can be
laid side by side: validation/policies/io/konveyor/forklift/vmware/\\*.rego and pkg/controller/plan/validation.go, commit d42511bb. What
Harvester's importer does: pkg/source/vmware/client.go and pkg/controllers/migration/virtualmachine.go, v1.8.1.
"""

from __future__ import annotations

from typing import NamedTuple

from ..concerns import CRITICAL, INFORMATION, WARNING, Concern, Kind
from ..errors import bounded
from .precheck_catalogue import KINDS, LONGEST

OPENSHIFT, HARVESTER = "openshift", "harvester"
IMPORTERS = (OPENSHIFT, HARVESTER)


class Row(NamedTuple):
    """C(label): both sides' word for it. C(openshift), C(harvester): the category there, None where it does not matter there.

    C(mtv): what to do, where that differs from the source's own advice; C(importer): for Harvester, where it differs from that.
    """

    label: str
    openshift: str | None
    harvester: str | None
    mtv: str = ""
    importer: str = ""


#: Kinds that only importers have.
OWN: dict[str, Kind] = {
    "TargetNameNotValid": Kind(
        WARNING, "Target VM name is not valid", "Give the name that the VM is to get: ferry_target_name.", also=CRITICAL
    ),
    "VMMultiplePodNetworkMappings": Kind(
        CRITICAL,
        "VM has more than one interface mapped to the pod network",
        "Map all but one of its networks to a network attachment, or to ignored.",
    ),
    "NetMapPreservingIPsOnPodNetwork": Kind(
        WARNING,
        "Static IPs are not preserved on the pod network",
        "Map the network to a network attachment, or let the guest take what it gets (preserveStaticIPs: false in ferry_mtv_plan).",
    ),
    "VDDKInitImageUnavailable": Kind(
        WARNING,
        "VDDK image is required for warm migration",
        "Make one (ferry.vmware.vddk_image) and say it in ferry_mtv_source.vddk_image, unless the operator has one for the whole cluster.",
    ),
    "WarmMigrationNotReady": Kind(
        CRITICAL, "Warm migration is not supported", "Harvester's importer only copies VMs that are shut down: ferry_strategy: cold."
    ),
    "ferry.harvester.cpus": Kind(
        WARNING,
        "Number of vCPUs comes out wrong",
        "Let the role mend it afterwards (ferry_harvester_mend: true), or make it one core a socket at the source before.",
    ),
    "ferry.harvester.memory": Kind(
        INFORMATION, "Memory comes out 4.6 % smaller", "Let the role mend it afterwards (ferry_harvester_mend: true): MiB are taken for MB."
    ),
    "ferry.harvester.drivers": Kind(
        WARNING,
        "Windows gets other hardware",
        "Install the virtio drivers in the guest before: the importer converts no guest, and vmxnet cards become virtio.",
    ),
    "ferry.harvester.storage": Kind(
        CRITICAL, "Disks would have several storage classes", "Map all datastores of the VM to one storage class: an import has one."
    ),
}

_ONCE = "Switch it on before (ferry.vmware.vm_cbt): MTV does not."

ROWS: dict[str, Row] = {
    "VMNotFound": Row("VM not found", CRITICAL, CRITICAL),
    "DuplicateVM": Row("Duplicate VM", CRITICAL, CRITICAL),
    "TargetNameNotValid": Row(
        OWN["TargetNameNotValid"].label, WARNING, CRITICAL, importer="Rename it at the source: there is no other way."
    ),
    "VMPowerStateUnsupported": Row("VM power state is incompatible", CRITICAL, CRITICAL),
    "GuestToolsIssue": Row(
        "VMware Tools issues detected",
        CRITICAL,
        CRITICAL,
        "Start VMware Tools, or shut the guest down before.",
        "Start VMware Tools, or shut the guest down before; with ferry_on_timeout: poweroff the importer pulls its plug.",
    ),
    "HostNotReady": Row("VM host is in maintenance mode", WARNING, WARNING),
    "ferry.vm.disconnected": Row("VM is not connected", CRITICAL, CRITICAL),
    "ferry.vm.template": Row("VM is a template", CRITICAL, INFORMATION, "Convert it to a VM, or clone one from it.", "Nothing."),
    "ferry.vm.encrypted": Row(
        "VM is encrypted",
        WARNING,
        CRITICAL,
        "Shut it down by hand before, and see that the account may decrypt (Cryptographer.Access); or decrypt it.",
        "Decrypt it: vSphere exports no encrypted VM.",
    ),
    "vmware.vm.name.invalid": Row(
        "Invalid VM Name", WARNING, None, "Nothing, if it may get another name; else say which: ferry_target_name."
    ),
    "vmware.os.unsupported": Row("Unsupported operating system detected", WARNING, None),
    "vmware.hostname.empty": Row("Empty Host Name", WARNING, None),
    "vmware.hostname.default": Row("Default Host Name", WARNING, None),
    "vmware.vm_missing_ip.detected": Row("VM is missing IP addresses", WARNING, None),
    "vmware.guestDisks.freespace": Row(
        "Insufficient free space for conversion",
        CRITICAL,
        None,
        "Free space in the guest: a conversion needs 100 MB on / and C:, 50 MB on /boot, 10 MB elsewhere.",
    ),
    "vmware.guestDisks.key.not_found": Row("Missing disk key mapping", INFORMATION, None),
    "ferry.windows.fast_startup": Row("Windows may hibernate", INFORMATION, INFORMATION),
    "ferry.guest.hibernated": Row(
        "Guest is hibernated",
        CRITICAL,
        WARNING,
        "Start it, and shut it down in full (Windows: 'shutdown /s /t 0', 'powercfg /h off'): a hibernated guest is not converted.",
    ),
    "ferry.guest.encrypted": Row(
        "Guest's file systems are encrypted",
        WARNING,
        WARNING,
        "Give MTV the keys (luks or nbdeClevis in ferry_mtv_vm): without them it cannot convert the guest.",
        "Install the virtio drivers in the guest before, also in its initramfs.",
    ),
    "ferry.guest.unknown": Row(
        "No operating system found",
        CRITICAL,
        WARNING,
        "See whether it starts; MTV copies it as it is with skipGuestConversion: true in ferry_mtv_plan.",
        "See whether it starts.",
    ),
    "ferry.guest.virtio": Row(
        "Guest has no virtio drivers",
        None,
        WARNING,
        importer="Install the virtio drivers in the guest before: the importer converts no guest.",
    ),
    "ferry.guest.unread": Row("Guest was not looked into", INFORMATION, INFORMATION),
    "ferry.tools.outdated": Row("VMware Tools outdated", INFORMATION, INFORMATION),
    "vmware.passthrough_device.detected": Row("Passthrough device detected", CRITICAL, WARNING),
    "vmware.device.sriov.detected": Row(
        "SR-IOV passthrough adapter configuration detected",
        WARNING,
        WARNING,
        importer="Replace the card by a vmxnet3 one before: the importer drops it.",
    ),
    "vmware.usb_controller.detected": Row("USB controller detected", WARNING, WARNING),
    "vmware.tpm.detected": Row("TPM detected", WARNING, WARNING),
    "vmware.cpu_affinity.detected": Row("CPU affinity detected", WARNING, WARNING),
    "vmware.numa_affinity.detected": Row("NUMA node affinity detected", WARNING, WARNING),
    "vmware.host_affinity.detected": Row(
        "VM-Host affinity detected", WARNING, WARNING, "Give the VM an affinity of KubeVirt's afterwards, if it is still needed."
    ),
    "vmware.cpu_memory.hotplug.enabled": Row("CPU/Memory hotplug detected", WARNING, WARNING),
    "vmware.drs.enabled": Row("VM running in a DRS-enabled cluster", INFORMATION, None),
    "vmware.dpm.enabled": Row("vSphere DPM detected", INFORMATION, INFORMATION),
    "vmware.fault_tolerance.enabled": Row("Fault tolerance", INFORMATION, INFORMATION),
    "ferry.cdrom.connected": Row("CD-ROM mounted", WARNING, WARNING),
    "vmware.datastore.missing": Row("Disk is not located on a datastore", CRITICAL, CRITICAL),
    "vmware.disk.capacity.invalid": Row("Disk has an invalid capacity", CRITICAL, CRITICAL),
    "vmware.disk.rdm.detected": Row(
        "Raw Device Mapped disk detected",
        WARNING,
        WARNING,
        "Convert it to a VMDK (Storage vMotion of a virtual mode RDM), or use a storage map with an offload plugin: VDDK does not read it.",
        "Convert it to a VMDK (Storage vMotion of a virtual mode RDM): one in physical mode is in no export.",
    ),
    "vmware.disk_mode.independent": Row(
        "Independent disk detected", WARNING, None, "Set it to dependent (VM off), or use a storage map with an offload plugin."
    ),
    "vmware.disk.shared.detected": Row(
        "Shared disk detected", WARNING, WARNING, "Shut all VMs that share it down, and see afterwards that each has the disk."
    ),
    "vmware.disk.count.exceeds.limit": Row("VM has more disks than the limit", WARNING, WARNING),
    "vmware.disk_serial.truncated": Row("Disk serial numbers may be truncated", INFORMATION, INFORMATION),
    "ferry.datastore.inaccessible": Row("Datastore not accessible", CRITICAL, CRITICAL),
    # how this collection would read disks, and how far it trusts tracking
    "ferry.transport.none": Row("no way to read the disk", None, None),
    "ferry.transport.no_delta": Row("changes cannot be read", None, None),
    "ferry.transport.stream": Row("read as one stream", None, None),
    "ferry.transport.vddk": Row("needs VDDK", None, None),
    "vmware.snapshot.detected": Row("VM snapshot detected", INFORMATION, INFORMATION),
    "vmware.consolidation_needed": Row("Snapshot consolidation required", WARNING, WARNING),
    "VMHasSnapshots": Row(
        "VM has pre-existing snapshots", CRITICAL, None, "Delete its snapshots, or migrate it cold: MTV migrates none of them warm."
    ),
    "ferry.snapshots.limit": Row("Too many snapshots", WARNING, None),
    "vmware.changed_block_tracking.disabled": Row("Changed Block Tracking (CBT) not enabled", WARNING, None, _ONCE),
    "vmware.changed_block_tracking.disk.disabled": Row("Disk does not have CBT enabled", WARNING, None, _ONCE),
    "VMMissingChangedBlockTracking": Row("Changed Block Tracking (CBT) has not been enabled", CRITICAL, None, _ONCE),
    "ferry.cbt.unsupported": Row("Changes cannot be tracked", CRITICAL, None),
    "ferry.cbt.untrackable": Row("Disk cannot be tracked", CRITICAL, None),
    "ferry.cbt.bad_build": Row(
        "Tracking of this ESXi build errs",
        WARNING,
        None,
        "Patch the host or migrate cold: MTV copies what tracking says, and compares nothing.",
    ),
    "VMNetworksNotMapped": Row("VM has unmapped networks", CRITICAL, CRITICAL),
    "VMStorageNotMapped": Row("VM has unmapped storage", CRITICAL, CRITICAL),
    "VMMultiplePodNetworkMappings": Row(OWN["VMMultiplePodNetworkMappings"].label, CRITICAL, None),
    "NetMapPreservingIPsOnPodNetwork": Row(OWN["NetMapPreservingIPsOnPodNetwork"].label, WARNING, None),
    "VDDKInitImageUnavailable": Row(OWN["VDDKInitImageUnavailable"].label, WARNING, None),
    "WarmMigrationNotReady": Row(OWN["WarmMigrationNotReady"].label, None, CRITICAL),
    "VMConsolidationNeeded": Row("VM has snapshots that require consolidation", WARNING, WARNING),
    "RDMDiskWarning": Row("VM has RDM disks", WARNING, WARNING),
    "IndependentDiskWarning": Row("VM has independent disks", WARNING, None),
    "VMMissingGuestIPs": Row("VM is missing IP addresses", WARNING, None),
    "InvalidDiskSizes": Row("VM has disks with invalid sizes", CRITICAL, CRITICAL),
    "ferry.datastore.headroom": Row("Little space for snapshots", WARNING, None),
    "ferry.nfc.memory": Row(
        "More VMs from one ESXi host than its NFC service takes",
        WARNING,
        WARNING,
        "Migrate fewer of them at once, or raise maxMemory of hostd's NFC service to 1000000000 and restart hostd.",
    ),
    "ferry.clock.skew": Row("Clocks differ", WARNING, INFORMATION),
    "ferry.clock.host": Row("ESXi host without a time server", INFORMATION, INFORMATION),
    "ferry.tls.unverified": Row(
        "Certificate is not verified",
        WARNING,
        WARNING,
        "Give vCenter's CA in ca_path: it goes to the cluster in the Secret, and is verified there.",
    ),
    "ferry.tls.expires": Row("Certificate expires soon", WARNING, WARNING),
    "ferry.server.esxi": Row("ESXi without vCenter", INFORMATION, INFORMATION, "Say ferry_mtv_source.sdk_endpoint: esxi.", "Nothing."),
    "ferry.privilege.missing": Row("Missing vSphere privileges", CRITICAL, CRITICAL),
    "ferry.privilege.unknown": Row("vSphere privileges not known", WARNING, WARNING),
    "ferry.harvester.cpus": Row(OWN["ferry.harvester.cpus"].label, None, WARNING),
    "ferry.harvester.memory": Row(OWN["ferry.harvester.memory"].label, None, INFORMATION),
    "ferry.harvester.drivers": Row(OWN["ferry.harvester.drivers"].label, None, WARNING),
    "ferry.harvester.storage": Row(OWN["ferry.harvester.storage"].label, None, CRITICAL),
}

#: What the source's own side says with its second category keeps that one here too: who is asked decides, not who asks.
_MILDER = {
    ("GuestToolsIssue", HARVESTER),
    ("ferry.tls.expires", OPENSHIFT),
    ("ferry.tls.expires", HARVESTER),
    ("ferry.datastore.headroom", OPENSHIFT),
}


def advice_of(kind: str, target: str) -> str:
    """What to do about C(kind) where C(target)'s importer moves the VM."""
    row = ROWS[kind]
    mine = row.mtv if target == OPENSHIFT else (row.importer or row.mtv)
    return mine or (OWN.get(kind) or KINDS[kind]).advice


def translated(concern: Concern, target: str) -> Concern | None:
    """What a concern of the source means for C(target); None where it means nothing there."""
    row = ROWS[concern.id]
    category = row.openshift if target == OPENSHIFT else row.harvester
    if category is None:
        return None
    if (concern.id, target) in _MILDER and concern.category != KINDS[concern.id].category:
        category = concern.category
    return Concern(
        concern.id, category, row.label, concern.assessment, advice_of(concern.id, target), disk=concern.disk, device=concern.device
    )


def own(kind: str, target: str, assessment: str, *, device: str | None = None, category: str | None = None) -> Concern:
    """A concern that only importers have. C(category): where it is not the target's usual one."""
    row = ROWS[kind]
    usual = row.openshift if target == OPENSHIFT else row.harvester
    return Concern(
        kind,
        category or usual or OWN[kind].category,
        row.label,
        bounded(assessment, LONGEST),
        advice_of(kind, target),
        device=None if device is None else bounded(device, 200),
    )
