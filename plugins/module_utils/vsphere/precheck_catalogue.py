# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every kind of concern that the source's side of a precheck can have: how bad it is, what it is called, what to do about it.

Those of Forklift (MTV) have its ids: C(vmware.…) are rules about a VM (validation/policies/io/konveyor/forklift/vmware), those without
a prefix conditions of a plan (pkg/controller/plan/validation.go). Where this collection can do what Forklift cannot, the category is
milder than Forklift's under the conditions that the advice says.
"""

from __future__ import annotations

from ..concerns import CRITICAL, INFORMATION, WARNING, Concern, Kind
from ..errors import bounded

KINDS: dict[str, Kind] = {
    # the VM as such
    "VMNotFound": Kind(
        CRITICAL, "VM not found", "Correct the name, or let the account see the VM: it needs Read-only on it and on the folders above."
    ),
    "DuplicateVM": Kind(
        CRITICAL, "VM not unique", "Name each VM once, by inventory path, MoRef or instance UUID where names are not unique."
    ),
    "VMPowerStateUnsupported": Kind(
        CRITICAL, "suspended", "Resume it and shut it down from inside: what is in its suspended memory does not move."
    ),
    "GuestToolsIssue": Kind(
        CRITICAL,
        "VMware Tools not running",
        "Start VMware Tools, or shut the guest down by hand before; on_timeout: poweroff pulls its plug instead.",
        also=WARNING,
    ),
    "HostNotReady": Kind(WARNING, "host not ready", "End the host's maintenance or reconnect it, or move the VM to another host first."),
    "ferry.vm.disconnected": Kind(CRITICAL, "VM not reachable", "Reconnect its host or its storage, or register the VM again."),
    "ferry.vm.template": Kind(
        INFORMATION, "template", "Nothing, when it is copied cold. For a warm migration convert it to a VM.", also=CRITICAL
    ),
    "ferry.vm.encrypted": Kind(
        WARNING, "VM encrypted", "Decrypt it, or let the account read it (Cryptographer.Access) and copy it over NFC or VDDK."
    ),
    "vmware.vm.name.invalid": Kind(
        WARNING, "name is no DNS name", "Nothing, if the target takes any name. Else give it another name there (server_name)."
    ),
    "vmware.os.unsupported": Kind(
        WARNING,
        "guest not convertible",
        "Install the target's drivers (virtio) by hand before, or keep disks and cards as they are: nothing converts this guest.",
    ),
    "vmware.hostname.empty": Kind(
        WARNING, "guest name not known", "Nothing, if the guest does not take its name from the platform. VMware Tools would tell it."
    ),
    "vmware.hostname.default": Kind(
        WARNING, "guest has a default name", "Give the guest a name of its own: DHCP or cloud-init may rename it."
    ),
    "vmware.vm_missing_ip.detected": Kind(
        WARNING,
        "guest addresses not known",
        "Start the guest with VMware Tools once if its addresses are to be kept, or give them by hand.",
    ),
    "vmware.guestDisks.freespace": Kind(
        CRITICAL,
        "file system full",
        "Free space in the guest: a conversion needs 100 MB on / and C:, 50 MB on /boot, 10 MB elsewhere. A guest that keeps its hardware "
        "(hardware: source) is not converted, and only has to boot.",
        also=WARNING,
    ),
    "vmware.guestDisks.key.not_found": Kind(
        INFORMATION,
        "drive letter without a disk",
        "Nothing, unless volumes are to be named after drive letters; newer VMware Tools tell it.",
    ),
    "ferry.guest.hibernated": Kind(
        WARNING,
        "guest hibernated",
        "Start it, and shut it down in full (Windows: 'shutdown /s /t 0', 'powercfg /h off'): a hibernated guest is not converted.",
        also=CRITICAL,
    ),
    "ferry.guest.encrypted": Kind(
        WARNING,
        "guest encrypted",
        "Install the target's drivers in the guest before, also in its initramfs: what is encrypted (LUKS, BitLocker) cannot be converted.",
        also=CRITICAL,
    ),
    "ferry.guest.unknown": Kind(
        WARNING,
        "no system found",
        "See whether it starts; nothing converts it (ferry_guest_convert: false lands it as it is).",
        also=CRITICAL,
    ),
    "ferry.guest.virtio": Kind(
        INFORMATION,
        "no virtio drivers",
        "Nothing where it keeps its hardware. For hardware: virtio it has to be converted (ferry_guest_convert).",
    ),
    "ferry.guest.unread": Kind(
        INFORMATION, "guest not looked into", "Nothing; what its disks would have told is found when it is converted, at the latest."
    ),
    "ferry.windows.fast_startup": Kind(
        INFORMATION,
        "Windows may hibernate",
        "Switch fast startup off, or shut down with 'shutdown /s /t 0': a hibernated disk is not converted.",
    ),
    "ferry.tools.outdated": Kind(INFORMATION, "VMware Tools outdated", "Update them if quiescing or shutting down makes trouble."),
    # hardware that has no counterpart
    "vmware.passthrough_device.detected": Kind(
        CRITICAL, "passthrough device", "Take the device out of the VM; it is of this ESXi host and does not move."
    ),
    "vmware.device.sriov.detected": Kind(WARNING, "SR-IOV card", "Its port becomes an ordinary one; ask the target for SR-IOV afterwards."),
    "vmware.usb_controller.detected": Kind(WARNING, "USB controller", "Nothing, if no USB device is in use: devices do not move."),
    "vmware.tpm.detected": Kind(WARNING, "TPM", "Suspend BitLocker or have its recovery key: what the TPM holds does not move."),
    "vmware.cpu_affinity.detected": Kind(WARNING, "CPU affinity", "Set it on the target again, if it is still needed."),
    "vmware.numa_affinity.detected": Kind(WARNING, "NUMA affinity", "Set it on the target again, if it is still needed."),
    "vmware.host_affinity.detected": Kind(
        WARNING, "host affinity rule", "Make a rule of the target's for it (ferry_constraints), if it is still needed."
    ),
    "vmware.cpu_memory.hotplug.enabled": Kind(
        WARNING, "hot plug enabled", "Give the server its final size: the target resizes it stopped."
    ),
    "vmware.drs.enabled": Kind(INFORMATION, "cluster with DRS", "Nothing; the target schedules by itself."),
    "vmware.dpm.enabled": Kind(INFORMATION, "cluster with DPM", "See that DPM puts no host to sleep that the copy reads from."),
    "vmware.fault_tolerance.enabled": Kind(
        INFORMATION, "Fault Tolerance", "Turn Fault Tolerance off before: it allows no snapshot, and does not move."
    ),
    "ferry.cdrom.connected": Kind(WARNING, "CD-ROM mounted", "Disconnect it: the image does not move, and a guest may boot from it."),
    # disks
    "vmware.datastore.missing": Kind(CRITICAL, "disk on no datastore", "Detach the disk, or give it its datastore back."),
    "vmware.disk.capacity.invalid": Kind(CRITICAL, "disk without a size", "Detach or repair the disk."),
    "vmware.disk.rdm.detected": Kind(
        WARNING,
        "raw device mapping",
        "Copy the LUN by other means or convert it to a VMDK (Storage vMotion of a virtual mode RDM); in physical mode it cannot be read.",
    ),
    "vmware.disk_mode.independent": Kind(
        WARNING, "independent disk", "Set it to dependent (VM off): no snapshot holds it, so it can only be copied while the VM is off."
    ),
    "vmware.disk.shared.detected": Kind(
        WARNING, "shared disk", "Move all VMs that share it in one wave, powered off, and map the disk to a type with multiattach."
    ),
    "vmware.disk.count.exceeds.limit": Kind(WARNING, "very many disks", "Check how many disks a server may have on the target."),
    "vmware.disk_serial.truncated": Kind(
        INFORMATION, "disk serials change", "See that the guest does not find disks by /dev/disk/by-id: disk.EnableUUID is on."
    ),
    "ferry.datastore.inaccessible": Kind(CRITICAL, "datastore not accessible", "Bring the datastore back before the wave."),
    "ferry.transport.none": Kind(
        CRITICAL, "no way to read the disk", "Allow another transport (transports), or move the disk to a VMFS or NFS datastore."
    ),
    "ferry.transport.no_delta": Kind(
        CRITICAL,
        "changes cannot be read",
        "Use VDDK (role vddk; transports with nbd), migrate it cold, or move the disk to a VMFS or NFS datastore.",
    ),
    "ferry.transport.stream": Kind(
        INFORMATION, "read as one stream", "Plan for the whole disk: an interrupted copy reads the stream from its beginning again."
    ),
    "ferry.transport.vddk": Kind(INFORMATION, "needs VDDK", "See that VDDK is set up on the conversion hosts (role vddk)."),
    # snapshots and change tracking
    "vmware.snapshot.detected": Kind(INFORMATION, "has snapshots", "Remove those that nobody needs: only the present state is copied."),
    "vmware.consolidation_needed": Kind(
        WARNING, "consolidation needed", "Consolidate its disks (vSphere Client: Snapshots) before the wave."
    ),
    "VMHasSnapshots": Kind(
        CRITICAL,
        "snapshots, not tracked",
        "Delete its snapshots: change tracking begins only without any. Where its disks are tracked already they only slow it down.",
        also=WARNING,
    ),
    "ferry.snapshots.limit": Kind(
        CRITICAL, "too many snapshots", "Delete some: with change tracking vSphere takes 28, and a chain has 32 at most.", also=WARNING
    ),
    "vmware.changed_block_tracking.disabled": Kind(
        WARNING, "change tracking off", "Nothing: the first precopy switches it on. It takes effect with a snapshot of a moment."
    ),
    "vmware.changed_block_tracking.disk.disabled": Kind(
        WARNING, "disk not tracked", "Nothing, if it can be tracked: the first precopy switches it on."
    ),
    "VMMissingChangedBlockTracking": Kind(
        WARNING,
        "not all disks tracked",
        "Nothing, where it can be switched on: the first precopy does. Else remove what stands in the way, or migrate it cold.",
        also=CRITICAL,
    ),
    "ferry.cbt.unsupported": Kind(
        CRITICAL, "tracking not possible", "Migrate it cold, or remove what stands in the way (virtual hardware below 7, Fault Tolerance)."
    ),
    "ferry.cbt.untrackable": Kind(
        CRITICAL, "disk cannot be tracked", "Migrate the VM cold, or change the disk: dependent mode, not shared, no physical RDM."
    ),
    "ferry.cbt.bad_build": Kind(
        WARNING, "tracking of this build errs", "Patch the host or move the VM: until then every cycle reads and compares the whole disk."
    ),
    # the wave
    "VMNetworksNotMapped": Kind(CRITICAL, "network not mapped", "Add the network (or '*' for all others) to network_map."),
    "VMStorageNotMapped": Kind(CRITICAL, "datastore not mapped", "Add the datastore (or '*' for all others) to storage_map."),
    "VMConsolidationNeeded": Kind(WARNING, "VMs to consolidate", "See vmware.consolidation_needed."),
    "RDMDiskWarning": Kind(WARNING, "VMs with RDMs", "See vmware.disk.rdm.detected."),
    "IndependentDiskWarning": Kind(WARNING, "VMs with independent disks", "See vmware.disk_mode.independent."),
    "VMMissingGuestIPs": Kind(WARNING, "VMs without known addresses", "See vmware.vm_missing_ip.detected."),
    "InvalidDiskSizes": Kind(CRITICAL, "VMs with disks without a size", "See vmware.disk.capacity.invalid."),
    "ferry.datastore.headroom": Kind(
        WARNING,
        "little space for snapshots",
        "Free space on the datastore, move VMs away, or make smaller waves: a full datastore stops its VMs.",
        also=CRITICAL,
    ),
    "ferry.nfc.memory": Kind(
        WARNING,
        "many streams from one host",
        "Spread the VMs over hosts, run fewer at a time, or raise maxMemory of hostd's NFC service to 1000000000.",
    ),
    "ferry.clock.skew": Kind(
        WARNING,
        "clocks differ",
        "Set the time of vCenter, its hosts and the conversion host by NTP: ages of snapshots and certificates are told by it.",
    ),
    "ferry.clock.host": Kind(
        INFORMATION, "host without a time server", "Give the host a time server: its certificate and its logs depend on it."
    ),
    "ferry.tls.unverified": Kind(
        WARNING,
        "certificate not verified",
        "Give vCenter's CA in ca_path instead of validate_certs: false: anybody in between could read all disks.",
    ),
    "ferry.tls.expires": Kind(WARNING, "certificate expires soon", "Renew vCenter's certificate before the wave.", also=CRITICAL),
    "ferry.server.esxi": Kind(
        WARNING, "ESXi without vCenter", "Use its vCenter: without one there are no custom attributes, and a rollback knows nothing."
    ),
    "ferry.privilege.missing": Kind(
        CRITICAL,
        "privilege missing",
        "Give the account a role with this privilege on the objects that are named, propagated to their children.",
    ),
    "ferry.privilege.unknown": Kind(
        WARNING, "privileges not known", "Let the account read the VMs and datastores, then check again; vCenter would not tell."
    ),
}

#: What MTV knows of a plan that repeats what was found at VMs: told once for the wave, by the VMs' concern.
OF_THE_WAVE = {
    "vmware.consolidation_needed": "VMConsolidationNeeded",
    "vmware.disk.rdm.detected": "RDMDiskWarning",
    "vmware.disk_mode.independent": "IndependentDiskWarning",
    "vmware.vm_missing_ip.detected": "VMMissingGuestIPs",
    "vmware.disk.capacity.invalid": "InvalidDiskSizes",
}

#: Characters of an assessment: names come from outside.
LONGEST = 1000


def found(kind: str, assessment: str, *, disk: str | None = None, device: str | None = None, category: str | None = None) -> Concern:
    """A concern of the catalogue's C(kind).

    :param category: where it is not the kind's usual one: the other that the catalogue allows.
    """
    known = KINDS[kind]
    if category not in (None, known.category, known.also):
        raise ValueError(f"{kind} is never {category}")
    return Concern(
        kind,
        category or known.category,
        known.label,
        bounded(assessment, LONGEST),
        known.advice,
        disk=None if disk is None else bounded(disk, 200),
        device=None if device is None else bounded(device, 200),
    )
