#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_info
short_description: Tell what a migration has to know of virtual machines
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Returns hardware, disks with their files and chains, network cards in their order, firmware, power, tools and
    placement of virtual machines.
  - Asks vCenter a fixed number of questions, however many machines there are.
options:
  vms:
    description:
      - The VMs, each given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
      - Every one that is unknown or ambiguous is listed in one error.
      - Without it, all VMs that are not templates are told of.
    type: list
    elements: str
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
    details:
      - Changes nothing at any time.
  diff_mode:
    support: N/A
    details:
      - Changes nothing at any time.
  idempotency:
    support: full
seealso:
  - plugin: ferry.vmware.vcenter
    plugin_type: inventory
  - module: ferry.vmware.vm_source_state
"""

EXAMPLES = r"""
- name: Look at the VMs of a wave
  ferry.vmware.vm_info:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    ca_path: /etc/ssl/vcenter-ca.pem
    vms:
      - web01
      - /DC0/vm/databases/db01
  register: wave

- name: Show the files of their disks
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.disks | map(attribute='path') | join(', ') }}"
  loop: "{{ wave.vms }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
vms:
  description: The VMs, in the order asked for (without O(vms) in the order of their paths).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The VM's name.
      type: str
    moref:
      description: Its MoRef, unique within this vCenter.
      type: str
      sample: vm-42
    instance_uuid:
      description: vCenter's UUID of the VM.
      type: str
    bios_uuid:
      description: The UUID that the guest sees. Clones may share it.
      type: str
    path:
      description: The inventory path. Slash, backslash and percent inside of names are escaped as vSphere does.
      type: str
      sample: /DC0/vm/databases/db01
    folder:
      description: The path without the name.
      type: str
    datacenter:
      description: The path of the datacenter, without a leading slash.
      type: str
    power:
      description: V(on), V(off) or V(suspended).
      type: str
    connection:
      description: Whether the host knows the VM, V(connected) if all is well.
      type: str
    guest_id:
      description: vSphere's identifier of the guest operating system, as configured.
      type: str
      sample: debian12_64Guest
    guest_full_name:
      description: The same for people.
      type: str
    guest_hostname:
      description: What the guest calls itself, where VMware Tools tell.
      type: str
    firmware:
      description: V(bios) or V(efi).
      type: str
    secure_boot:
      description: Whether EFI secure boot is on.
      type: bool
    boot_disks:
      description: Keys of the disks in the configured boot order, empty where none is configured.
      type: list
      elements: int
    vtpm:
      description: Whether it has a virtual TPM.
      type: bool
    cpus:
      description: Number of virtual processors.
      type: int
    cores_per_socket:
      description: How many of them make up a socket.
      type: int
    memory_mb:
      description: Memory in MiB.
      type: int
    hw_version:
      description: Version of the virtual hardware.
      type: str
      sample: vmx-19
    template:
      description: Whether it is a template.
      type: bool
    annotation:
      description: The notes of the VM.
      type: str
    tools_running:
      description: Whether VMware Tools are running, in vSphere's words (V(guestToolsRunning)).
      type: str
    tools_version:
      description: Whether they are current, in vSphere's words.
      type: str
    host:
      description: The ESXi host it is on.
      type: str
    host_moref:
      description: MoRef of that host.
      type: str
    cluster:
      description: The cluster of that host, null for a standalone host.
      type: str
    datastores:
      description: Names of all datastores that it uses.
      type: list
      elements: str
    vmx_path:
      description: Datastore path of its configuration file.
      type: str
    encrypted:
      description: Whether the VM is encrypted.
      type: bool
    change_tracking:
      description: Whether changed-block tracking is on.
      type: bool
    consolidation_needed:
      description: Whether disks wait for consolidation.
      type: bool
    snapshots:
      description: Number of its snapshots.
      type: int
    custom_attributes:
      description: Custom attributes that have a value.
      type: dict
    disks:
      description: Its disks, in the order of controller kind (IDE, SCSI, SATA, NVMe), bus and unit.
      type: list
      elements: dict
      contains:
        key:
          description: The device key.
          type: int
        label:
          description: The label, in English.
          type: str
          sample: Hard disk 1
        address:
          description: Controller, bus and unit.
          type: str
          sample: scsi0:0
        controller:
          description: The controller's class in the vSphere API.
          type: str
          sample: ParaVirtualSCSIController
        controller_kind:
          description: V(scsi), V(ide), V(sata), V(nvme) or V(unknown).
          type: str
        adapter:
          description: The controller's model (V(ide), V(buslogic), V(lsilogic), V(lsisas1068), V(pvscsi), V(sata) or V(nvme)), null for others.
          type: str
          sample: pvscsi
        bus:
          description: Number of the controller's bus.
          type: int
        unit:
          description: Number of the disk on that bus.
          type: int
        capacity:
          description: Size of the disk in bytes.
          type: int
        path:
          description: Datastore path of the descriptor that the VM runs on.
          type: str
          sample: "[datastore1] db01/db01.vmdk"
        chain:
          description: The same from the running one down to the base, more than one where there are snapshots.
          type: list
          elements: str
        datastore:
          description: Name of the datastore.
          type: str
        datastore_moref:
          description: MoRef of the datastore.
          type: str
        datastore_type:
          description: VMFS, NFS, vsan and so on.
          type: str
        datacenter:
          description: Path of the datacenter, for dcPath in datastore URLs.
          type: str
        backing:
          description: Kind of the backing (V(FlatVer2), V(SeSparse), V(RawDiskMappingVer1) and so on).
          type: str
        uuid:
          description: UUID of the disk.
          type: str
        thin:
          description: Whether it is thin provisioned, null where the backing does not say.
          type: bool
        eager:
          description: Whether it was zeroed eagerly, null where the backing does not say.
          type: bool
        mode:
          description: The disk mode (V(persistent), V(independent_persistent) and so on).
          type: str
        sharing:
          description: V(sharingMultiWriter) where several VMs may write.
          type: str
        bus_sharing:
          description: V(virtualSharing) or V(physicalSharing) where its controller's bus is shared with other VMs.
          type: str
        change_id:
          description: The current changeId. Only that of a snapshot's config is good for changed areas.
          type: str
        encrypted:
          description: Whether the disk is encrypted.
          type: bool
        rdm_mode:
          description: V(physicalMode) or V(virtualMode) of a raw device mapping.
          type: str
        content_id:
          description: The content identifier (CID).
          type: str
    nics:
      description: Its network cards, in vSphere's order.
      type: list
      elements: dict
      contains:
        key:
          description: The device key.
          type: int
        label:
          description: The label, in English.
          type: str
          sample: Network adapter 1
        mac:
          description: MAC address in lower case.
          type: str
        type:
          description: V(vmxnet3), V(e1000e), V(e1000) and so on.
          type: str
        network:
          description: Name of the network or port group.
          type: str
        network_moref:
          description: MoRef of the network.
          type: str
        portgroup:
          description: Key of the distributed port group.
          type: str
        connected:
          description: Whether it is connected now.
          type: bool
        start_connected:
          description: Whether it is connected when the VM is powered on.
          type: bool
        addresses:
          description: IP addresses that VMware Tools tell.
          type: list
          elements: str
        slot:
          description: Its PCI slot number, after which systemd names it in the guest (C(ens192)); none where vSphere does not tell.
          type: int
failure:
  description: What went wrong, as data. C(details.unknown) and C(details.ambiguous) list VMs.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, guest


def work(call: edge.Call) -> dict[str, Any]:
    with client.connect(call.params) as session:
        return {"vms": guest.facts_of(session, call.params["vms"])}


def main() -> None:
    edge.run(argspec.connection_spec(env_fallback, vms={"type": "list", "elements": "str"}), work)


if __name__ == "__main__":
    main()
