# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes each concern of the target's side: one change of a scene for each."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

from .precheck_scene import UUID, Scene
from .test_plan import vm

Change = Callable[[Scene], Any]
#: (id, what makes it, the disk or device that the concern names where it has to name one)
CASES: list[tuple[str, Change, str | None]] = []


def case(id_: str, about: str | None = None) -> Callable[[Change], Change]:
    def keep(change: Change) -> Change:
        CASES.append((id_, change, about))
        return change

    return keep


# -- networks ---------------------------------------------------------------------------------------------------------


@case("VMNetworksNotMapped", "NIC 1")
def vmnetworksnotmapped(s: Scene) -> None:
    s.options["network_map"] = {"db": "web"}


@case("MacConflicts", "NIC 1")
def macconflicts(s: Scene) -> None:
    s.port(mac_address="00:50:56:00:01:00")


@case("MacConflicts", "NIC 1")  # within the wave
def macconflicts_2(s: Scene) -> None:
    s.wave.append(vm(2, nics=1))
    s.wave[1]["nics"][0]["mac"] = "00:50:56:00:01:00"


@case("ferry.network.unknown", "NIC 1")
def ferry_network_unknown(s: Scene) -> None:
    s.options["network_map"] = {"*": "nowhere"}


@case("ferry.mac.invalid", "NIC 1")
def ferry_mac_invalid(s: Scene) -> None:
    s.nic["mac"] = "01:00:5e:00:00:01"


@case("ferry.address.taken", "NIC 1")
def ferry_address_taken(s: Scene) -> None:
    s.set(nics={0: {"fixed_ips": ["10.9.0.7"]}})
    s.port(fixed_ips=[{"ip_address": "10.9.0.7"}], device_owner="network:dhcp")


@case("ferry.address.invalid")
def ferry_address_invalid(s: Scene) -> None:
    s.set(nics={0: {"fixed_ips": ["10.9.0.300"]}})


@case("ferry.address.outside")
def ferry_address_outside(s: Scene) -> None:
    s.set(nics={0: {"fixed_ips": ["10.8.0.3"]}})


@case("ferry.address.reserved")
def ferry_address_reserved(s: Scene) -> None:
    s.set(nics={0: {"fixed_ips": ["10.9.0.1"]}})


@case("ferry.address.unknown")
def ferry_address_unknown(s: Scene) -> None:
    s.set(nics={0: {"keep_ip": True}})


@case("ferry.address.changes", "NIC 1")
def ferry_address_changes(s: Scene) -> None:
    s.nic["addresses"] = ["fe80::1", "169.254.1.1", "10.1.2.3"]


@case("ferry.port.policy", "NIC 1")
def ferry_port_policy(s: Scene) -> None:
    s.options["network_map"] = {"*": "theirs"}


@case("ferry.port.exists", "NIC 1")
def ferry_port_exists(s: Scene) -> None:
    s.port(name="vm1-nic0")


@case("ferry.port.unusable", "NIC 1")
def ferry_port_unusable(s: Scene) -> None:
    s.port(tags=[f"ferry_source={UUID}", "ferry_nic=4000"], device_id="other", device_owner="compute:nova")


@case("ferry.security_group.unknown")
def ferry_security_group_unknown(s: Scene) -> None:
    s.set(security_groups=["nobody"])


# -- storage ----------------------------------------------------------------------------------------------------------


@case("VMStorageNotMapped", "Hard disk 1")
def vmstoragenotmapped(s: Scene) -> None:
    s.options["storage_map"] = {"ds2": "ssd"}


@case("ferry.volume_type.unknown", "Hard disk 1")
def ferry_volume_type_unknown(s: Scene) -> None:
    s.options["storage_map"] = {"*": "gold"}


@case("ferry.volume_type.not_shared", "Hard disk 1")
def ferry_volume_type_not_shared(s: Scene) -> None:
    s.disk["sharing"] = "sharingMultiWriter"


@case("ferry.disk.elsewhere", "Hard disk 1")
def ferry_disk_elsewhere(s: Scene) -> None:
    s.disk.update(sharing="sharingMultiWriter", uuid="6000c29")
    s.options["storage_map"] = {"*": "shared"}
    s.volume(name="theirs", metadata={"ferry_shared": "6000c29", "ferry_source": "other", "ferry_vm": "db2"})


@case("ferry.disk.encrypted", "Hard disk 1")
def ferry_disk_encrypted(s: Scene) -> None:
    s.disk["encrypted"] = True


@case("ferry.disk.none")
def ferry_disk_none(s: Scene) -> None:
    s.vm["disks"] = []


@case("ferry.disk.order")
def ferry_disk_order(s: Scene) -> None:
    s.wave[0] = vm(disks=2, boot_disks=[2001])


@case("vmware.disk.capacity.invalid", "Hard disk 1")
def vmware_disk_capacity_invalid(s: Scene) -> None:
    s.disk.update(capacity=0, file="gone.vmdk")


@case("ferry.volume.exists", "Hard disk 1")
def ferry_volume_exists(s: Scene) -> None:
    s.volume()


@case("ferry.volume.unmet", "Hard disk 1")
def ferry_volume_unmet(s: Scene) -> None:
    s.options["storage_map"] = {"*": {"type": "ssd", "encrypted": True}}
    s.own_volume(encrypted=False)


@case("ferry.volume.unusable", "Hard disk 1")
def ferry_volume_unusable(s: Scene) -> None:
    s.own_volume(status="in-use", attachments=[{"server_id": "other"}])


@case("ferry.volume.spare")
def ferry_volume_spare(s: Scene) -> None:
    s.volume(name="old", metadata={"ferry_source": UUID, "ferry_disk": "2009"})


@case("ferry.image.refused", "Hard disk 1")
def ferry_image_refused(s: Scene) -> None:
    s.disk["file"] = "absent.vmdk"


@case("ferry.file.problem")
def ferry_file_problem(s: Scene) -> None:
    s.vm["problems"] = ["the manifest does not name disk1.vmdk"]


@case("ferry.controller.missing")
def ferry_controller_missing(s: Scene) -> None:
    s.disk["controller"] = "VirtualBusLogicController"


@case("ferry.controller.crowded")
def ferry_controller_crowded(s: Scene) -> None:
    s.wave[0] = vm(disks=2)


@case("ferry.controller.mixed")
def ferry_controller_mixed(s: Scene) -> None:
    s.wave[0] = vm(disks=2)
    s.vm["disks"][1]["controller"] = "VirtualIDEController"


@case("ferry.controller.full")
def ferry_controller_full(s: Scene) -> None:
    s.wave[0] = vm(disks=5)
    s.set(properties={"hw_disk_bus": "ide"})


# -- servers ----------------------------------------------------------------------------------------------------------


@case("VMAlreadyExists")
def vmalreadyexists(s: Scene) -> None:
    s.server()


@case("NameNotValid")
def namenotvalid(s: Scene) -> None:
    s.vm["name"] = "受注 DB"


@case("ferry.name.invalid")
def ferry_name_invalid(s: Scene) -> None:
    s.vm["name"] = "web\u200b01"


@case("ferry.name.invalid")  # Nova's pattern ends with the basic plane
def ferry_name_invalid_2(s: Scene) -> None:
    s.vm["name"] = "web\U0001f680"


@case("ferry.name.duplicate")
def ferry_name_duplicate(s: Scene) -> None:
    s.wave.append({**vm(2), "name": "vm1"})


@case("ferry.uuid.duplicate")
def ferry_uuid_duplicate(s: Scene) -> None:
    s.wave.append({**vm(2), "instance_uuid": UUID})


@case("ferry.server.ambiguous")
def ferry_server_ambiguous(s: Scene) -> None:
    s.server(metadata={"ferry_source": UUID})
    s.server(id="srv2", metadata={"ferry_source": UUID})


@case("ferry.server.there")
def ferry_server_there(s: Scene) -> None:
    s.server(metadata={"ferry_source": UUID})


@case("ferry.server.fixed")
def ferry_server_fixed(s: Scene) -> None:
    s.set(key_name="mine")
    s.server(metadata={"ferry_source": UUID}, key_name="other")


@case("ferry.zone.unknown")
def ferry_zone_unknown(s: Scene) -> None:
    s.set(availability_zone="moon")


@case("ferry.key.unknown")
def ferry_key_unknown(s: Scene) -> None:
    s.set(key_name="yours")


@case("ferry.metadata.invalid")
def ferry_metadata_invalid(s: Scene) -> None:
    s.set(metadata={"note": "x" * 300})


@case("ferry.properties.invalid")
def ferry_properties_invalid(s: Scene) -> None:
    s.set(properties={"hw_disk_bus": "floppy"})


@case("ferry.flavor.none")
def ferry_flavor_none(s: Scene) -> None:
    s.vm["cpus"] = 64


@case("ferry.cpu.topology")
def ferry_cpu_topology(s: Scene) -> None:
    s.vm.update(cpus=4, cores_per_socket=2)


@case("ferry.nic.mixed")
def ferry_nic_mixed(s: Scene) -> None:
    s.wave[0] = vm(nics=2)
    s.vm["nics"][1]["type"] = "e1000"


@case("ferry.guest.unmapped")
def ferry_guest_unmapped(s: Scene) -> None:
    s.vm["guest_id"] = "netware6Guest"


@case("ferry.firmware.changed")
def ferry_firmware_changed(s: Scene) -> None:
    s.set(properties={"hw_firmware_type": "uefi"})


@case("ferry.uefi.unsupported")
def ferry_uefi_unsupported(s: Scene) -> None:
    s.vm["firmware"] = "efi"
    s.rows["/placement/traits"]["traits"].remove("COMPUTE_FIRMWARE_UEFI")


@case("ferry.secure_boot.unsupported")
def ferry_secure_boot_unsupported(s: Scene) -> None:
    s.vm.update(firmware="efi", secure_boot=True)
    s.rows["/placement/traits"]["traits"].remove("COMPUTE_SECURITY_UEFI_SECURE_BOOT")


@case("ferry.secure_boot.unknown")
def ferry_secure_boot_unknown(s: Scene) -> None:
    s.vm.update(firmware="efi", secure_boot=True)
    s.rows["/placement/traits"] = None


@case("ferry.secure_boot.lost")
def ferry_secure_boot_lost(s: Scene) -> None:
    s.vm.update(firmware="efi", secure_boot=True)
    s.set(properties={"os_secure_boot": ""})


@case("ferry.tpm.unsupported")
def ferry_tpm_unsupported(s: Scene) -> None:
    s.vm["vtpm"] = True
    s.set(flavor="tpm")
    s.rows["/placement/traits"]["traits"].remove("COMPUTE_SECURITY_TPM_2_0")


@case("ferry.tpm.lost")
def ferry_tpm_lost(s: Scene) -> None:
    s.vm["vtpm"] = True


# -- the wave ---------------------------------------------------------------------------------------------------------

for what, limits in (("instances", {"maxTotalInstances": 0}), ("cores", {"maxTotalCores": 0}), ("ram", {"maxTotalRAMSize": 511})):
    case("ferry.quota.exceeded", what)(partial(Scene.absolute, **limits))


@case("ferry.quota.exceeded", "gigabytes")
def ferry_quota_exceeded(s: Scene) -> None:
    s.rows["/block-storage/os-quota-sets"]["quota_set"]["gigabytes"]["limit"] = 0


@case("ferry.quota.exceeded", "volumes_ssd")
def ferry_quota_exceeded_2(s: Scene) -> None:
    s.rows["/block-storage/os-quota-sets"]["quota_set"]["volumes_ssd"] = {"limit": 3, "in_use": 3, "reserved": 0}


@case("ferry.quota.exceeded", "snapshots")
def ferry_quota_exceeded_3(s: Scene) -> None:
    s.set(rehearsal="snapshot")
    s.rows["/block-storage/os-quota-sets"]["quota_set"]["snapshots"] = {"limit": 0, "in_use": 0, "reserved": 0}


@case("ferry.quota.exceeded", "port")
def ferry_quota_exceeded_4(s: Scene) -> None:
    s.rows["/network/v2.0/quotas"]["quota"]["port"]["limit"] = 2


@case("ferry.quota.exceeded", "image_count_total")
def ferry_quota_exceeded_5(s: Scene) -> None:
    s.disk["file"] = "absent.vmdk"
    s.rows["/image/info/usage"]["usage"]["image_count_total"]["limit"] = 1


@case("ferry.quota.exceeded", "server_groups")
def ferry_quota_exceeded_6(s: Scene) -> None:
    s.set(constraints=[{"kind": "EQ", "vms": ["vm1"]}])
    s.absolute(maxServerGroups=0)


@case("ferry.quota.exceeded", "server_group_members")
def ferry_quota_exceeded_7(s: Scene) -> None:
    s.set(constraints=[{"kind": "EQ", "vms": ["vm1"]}])
    s.absolute(maxServerGroupMembers=0)


@case("ferry.quota.per_volume")
def ferry_quota_per_volume(s: Scene) -> None:
    s.disk["capacity"] = 51 << 30


@case("ferry.quota.unknown", "Cinder")
def ferry_quota_unknown(s: Scene) -> None:
    s.rows["/block-storage/os-quota-sets"] = None


@case("ferry.constraint.invalid")
def ferry_constraint_invalid(s: Scene) -> None:
    s.set(constraints=[{"kind": "beside", "vms": ["vm1"]}])


@case("ferry.constraint.conflict")
def ferry_constraint_conflict(s: Scene) -> None:
    s.set(constraints=[{"kind": "EQ", "vms": ["vm1"]}, {"kind": "NE", "vms": ["vm1"]}])


@case("ferry.constraint.ignored")
def ferry_constraint_ignored(s: Scene) -> None:
    s.set(constraints=[{"kind": "pin", "vms": ["vm1"], "hosts": ["esx1"]}])


@case("ferry.constraint.elsewhere")
def ferry_constraint_elsewhere(s: Scene) -> None:
    s.set(constraints=[{"kind": "EQ", "vms": ["vm1", "vm9"]}])


@case("ferry.server_group.policy")
def ferry_server_group_policy(s: Scene) -> None:
    s.set(constraints=[{"kind": "EQ", "name": "a", "vms": ["vm1"]}])
    s.add("/compute/os-server-groups", id="sg", name="ferry:a", policy="anti-affinity", members=[])


@case("ferry.server_group.outside")
def ferry_server_group_outside(s: Scene) -> None:
    s.set(constraints=[{"kind": "EQ", "name": "a", "vms": ["vm1"]}])
    s.add("/compute/os-server-groups", id="sg", name="ferry:a", policy="affinity", members=[])
    s.server(metadata={"ferry_source": UUID})


@case("ferry.option.invalid")
def ferry_option_invalid(s: Scene) -> None:
    s.vm["options"] = {"flavour": "small"}


@case("ferry.option.invalid")
def ferry_option_invalid_2(s: Scene) -> None:
    s.set(nics={"7": {"mac": None}})


@case("ferry.target.unreadable")
def ferry_target_unreadable(s: Scene) -> None:
    s.rows["/compute/flavors/detail"] = None
