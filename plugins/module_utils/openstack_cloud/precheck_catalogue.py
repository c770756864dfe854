# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every kind of concern that the target's side of a precheck can have: how bad it is, what it is called, what to do about it.

MTV's own names are kept where it has one; those without a prefix are conditions of its plans (Forklift, pkg/controller/plan/validation.go).
"""

from __future__ import annotations

from ..concerns import CRITICAL, INFORMATION, WARNING, Kind

KINDS: dict[str, Kind] = {
    # networks
    "VMNetworksNotMapped": Kind(
        CRITICAL, "network not mapped", "Add the network (or '*' for all others) to network_map; null leaves the card out."
    ),
    "MacConflicts": Kind(
        CRITICAL,
        "MAC in use",
        "Remove the port that has it, or let Neutron choose one: keep_mac: false, or mac: null for the card in nics.",
    ),
    "ferry.network.unknown": Kind(
        CRITICAL, "no such network", "Correct network_map, or give the network's ID; create it, or have it shared."
    ),
    "ferry.mac.invalid": Kind(CRITICAL, "MAC not valid", "Give another mac for the card in nics, or mac: null."),
    "ferry.address.taken": Kind(
        CRITICAL, "address in use", "Free the address (delete the port that has it), or give other fixed_ips for the card in nics."
    ),
    "ferry.address.invalid": Kind(CRITICAL, "no IP address", "Correct fixed_ips of the card in nics."),
    "ferry.address.outside": Kind(
        CRITICAL, "address in no subnet", "Add the subnet to the network, map to another network, or do not keep the address (keep_ip)."
    ),
    "ferry.address.reserved": Kind(CRITICAL, "address reserved", "Give other fixed_ips for the card in nics; the gateway's cannot be had."),
    "ferry.address.unknown": Kind(
        CRITICAL, "address not known", "Start the guest with VMware Tools once, or give fixed_ips for the card in nics."
    ),
    "ferry.address.changes": Kind(
        INFORMATION,
        "address changes",
        "A guest with a static address stays silent behind another port: keep_ip keeps it, fixed_ips in nics gives it, DHCP needs neither.",
    ),
    "ferry.port.policy": Kind(
        CRITICAL,
        "MAC or address not allowed",
        "Use a network of the project, let an administrator land the wave, use keep_mac: false, or port_policy: trust where the cloud allows it.",
    ),
    "ferry.port.exists": Kind(CRITICAL, "port name taken", "Rename or delete that port, or set port_name."),
    "ferry.port.unusable": Kind(CRITICAL, "port not usable", "Free or delete the port that is there, then check again."),
    "ferry.security_group.unknown": Kind(
        CRITICAL, "no such security group", "Correct security_groups, or create the group in this project."
    ),
    # storage
    "VMStorageNotMapped": Kind(
        CRITICAL, "datastore not mapped", "Add the datastore (or '*' for all others) to storage_map; null is the cloud's default type."
    ),
    "ferry.volume_type.unknown": Kind(CRITICAL, "no such volume type", "Correct storage_map, or have the type opened for the project."),
    "ferry.volume_type.not_shared": Kind(
        CRITICAL, "type without multiattach", "Map the disk to a type with multiattach, or say shared: false for a copy of its own."
    ),
    "ferry.disk.elsewhere": Kind(
        CRITICAL,
        "shared disk is there already",
        "Leave it out and attach that volume afterwards, or say shared: false for a copy of its own.",
    ),
    "ferry.disk.encrypted": Kind(
        WARNING,
        "encryption not kept by itself",
        "Map the disk to an encrypted type, and say encrypted: true in storage_map to have it checked.",
    ),
    "ferry.disk.none": Kind(CRITICAL, "no disks", "Leave the VM out of the wave: there is nothing to copy."),
    "ferry.disk.order": Kind(
        INFORMATION, "disk order changes", "See that the guest mounts by UUID or label, not by names such as /dev/sdb."
    ),
    "vmware.disk.capacity.invalid": Kind(
        CRITICAL, "disk without a size", "Repair the disk at the source; its file or its facts tell no size."
    ),
    "ferry.volume.exists": Kind(CRITICAL, "volume name taken", "Rename or delete that volume, or set volume_name."),
    "ferry.volume.unmet": Kind(
        CRITICAL, "volume of another kind", "Delete that volume, so that the next run makes it of the type now mapped."
    ),
    "ferry.volume.unusable": Kind(CRITICAL, "volume not usable", "Detach or delete the volume that is there, then check again."),
    "ferry.volume.spare": Kind(WARNING, "volume without a disk", "Delete the volume if the disk was removed from the VM on purpose."),
    "ferry.image.refused": Kind(
        CRITICAL,
        "Glance refuses the image",
        "Convert the file (ferry.vmware.vmdk_convert), or have the format allowed in Glance (disk_formats).",
    ),
    "ferry.file.problem": Kind(WARNING, "file with a problem", "Look at what is said of the file before it is imported."),
    "ferry.controller.missing": Kind(
        WARNING, "controller not emulated", "Install the guest's virtio drivers and use hardware: virtio, or set hw_disk_bus."
    ),
    "ferry.controller.crowded": Kind(
        WARNING,
        "controller takes fewer disks",
        "See that the guest has an AHCI driver, or use hardware: virtio with its drivers installed.",
    ),
    "ferry.controller.mixed": Kind(WARNING, "several controllers", "See that the guest has the root disk's driver for all of its disks."),
    "ferry.controller.full": Kind(
        CRITICAL, "too many disks for IDE", "Set hw_disk_bus in properties to one that its guest has a driver for."
    ),
    # servers
    "VMAlreadyExists": Kind(CRITICAL, "server name taken", "Rename or delete that server, or set server_name for this VM."),
    "NameNotValid": Kind(
        WARNING, "host name changes", "Set server_name, or the host name inside the guest where it takes it from metadata."
    ),
    "ferry.name.invalid": Kind(CRITICAL, "name not valid", "Set server_name for this VM to one that Nova takes."),
    "ferry.name.duplicate": Kind(
        CRITICAL, "name used twice", "Set server_name, volume_name or port_name so that names differ ({moref} does)."
    ),
    "ferry.uuid.duplicate": Kind(
        CRITICAL, "instance UUID used twice", "Move one of them alone, or give one another instance UUID in vCenter."
    ),
    "ferry.server.ambiguous": Kind(
        CRITICAL, "several servers of one VM", "Delete the servers that are not wanted; one may be tagged with its UUID."
    ),
    "ferry.server.there": Kind(INFORMATION, "landed already", "Nothing; a run compares and mends what was altered."),
    "ferry.server.fixed": Kind(WARNING, "not changed any more", "Delete the server (its volumes stay) and run again, if it must be so."),
    "ferry.zone.unknown": Kind(CRITICAL, "no such availability zone", "Correct availability_zone."),
    "ferry.key.unknown": Kind(CRITICAL, "no such key pair", "Correct key_name, or import the key pair for this user."),
    "ferry.metadata.invalid": Kind(CRITICAL, "metadata not valid", "Shorten metadata, or give fewer entries."),
    "ferry.properties.invalid": Kind(CRITICAL, "image properties not valid", "Correct properties; Nova would refuse or misread them."),
    "ferry.flavor.none": Kind(CRITICAL, "no flavor fits", "Create a flavor that is large enough, or name one in flavor."),
    "ferry.cpu.topology": Kind(
        WARNING, "sockets and cores change", "Choose a flavor with hw:cpu_* of this kind where licences depend on it."
    ),
    "ferry.nic.mixed": Kind(WARNING, "several card models", "See that the guest has the first card's driver for all of them."),
    "ferry.guest.unmapped": Kind(
        WARNING, "guest not known", "Set os_type and os_distro in properties, and see that the guest has the drivers it will need."
    ),
    "ferry.firmware.changed": Kind(WARNING, "other firmware", "Take hw_firmware_type out of properties: the guest boots with what it has."),
    "ferry.uefi.unsupported": Kind(CRITICAL, "no UEFI on the target", "Have OVMF installed on the compute hosts."),
    "ferry.secure_boot.unsupported": Kind(
        CRITICAL, "no secure boot on the target", "Have it enabled on compute hosts, or say os_secure_boot: '' in properties to go without."
    ),
    "ferry.secure_boot.unknown": Kind(
        INFORMATION, "secure boot not known", "Ask an administrator whether compute hosts have COMPUTE_SECURITY_UEFI_SECURE_BOOT."
    ),
    "ferry.secure_boot.lost": Kind(WARNING, "secure boot is not kept", "Keep it (properties: os_secure_boot), or go without knowingly."),
    "ferry.tpm.unsupported": Kind(
        CRITICAL, "no TPM on the target", "Have swtpm enabled on compute hosts, or take the TPM out of flavor and properties."
    ),
    "ferry.tpm.lost": Kind(
        WARNING,
        "TPM is not kept",
        "What the TPM holds does not move: suspend BitLocker, or have its recovery key; a flavor with hw:tpm_version gives a new TPM.",
    ),
    # the wave
    "ferry.quota.exceeded": Kind(CRITICAL, "quota exceeded", "Have the quota raised, or move fewer VMs in this wave."),
    "ferry.quota.per_volume": Kind(CRITICAL, "disk larger than allowed", "Have per_volume_gigabytes raised."),
    "ferry.quota.unknown": Kind(
        INFORMATION, "quota not known", "Ask an administrator; the service will refuse by itself what is too much."
    ),
    "ferry.constraint.invalid": Kind(CRITICAL, "constraint not valid", "Correct it in constraints (ferry_constraints)."),
    "ferry.constraint.conflict": Kind(
        CRITICAL, "two server groups for one server", "Merge the constraints, or say required: false for one."
    ),
    "ferry.constraint.ignored": Kind(
        WARNING, "constraint not kept", "Nothing, if it is meant for ESXi only; else see that it is kept by other means."
    ),
    "ferry.constraint.elsewhere": Kind(INFORMATION, "constraint beyond the wave", "Nothing; the next wave uses the same server group."),
    "ferry.server_group.policy": Kind(CRITICAL, "server group of another policy", "Name the constraint otherwise, or delete the group."),
    "ferry.server_group.outside": Kind(
        WARNING, "server outside its group", "Delete the server (its volumes stay) and run again, if it must be in it."
    ),
    "ferry.option.invalid": Kind(CRITICAL, "option not valid", "Correct the option that is named."),
    "ferry.target.unreadable": Kind(
        CRITICAL, "target cannot be read", "See that the account may read it and that the service answers; check again."
    ),
    "ferry.target.other": Kind(CRITICAL, "cannot land", "See what is said."),
}
