#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: glance_vmdk_upload
short_description: Send a VMDK to Glance in a form that Glance takes and Nova boots
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Glance takes monolithicSparse and streamOptimized VMDKs, each in one file. These are sent as they are. Any other disk that
    M(ferry.vmware.vmdk_info) reads, a raw one too, is converted to streamOptimized while it is sent, without a temporary file.
  - With O(hypervisor=kvm) its grain directory stands in front. Of a stream with its directory at the end, as vSphere exports it,
    Cinder makes no volume, so such a one is converted, too. A disk that compresses to more than an eighth of the free memory, or than
    1 GiB, is read twice in part for this.
  - The image gets the properties by which Nova chooses disk controller, network card and firmware, in the family of the
    hypervisor. Values that Nova does not know, or that contradict each other, are an error before anything is sent.
  - That Glance takes an image does not mean that Nova boots it. O(hypervisor=vmware) boots V(streamOptimized) and
    V(monolithicSparse) only; a flat disk goes in as raw alone, which that driver refuses. RV(bootable) and RV(reasons) tell.
  - An image of the same name with the same content is left, and what differs beside its content is mended.
  - An upload that was cut is begun again under the same image ID.
options:
  name:
    description: Name of the image. With O(state=absent) it may be an ID.
    type: str
    required: true
  src:
    description:
      - The disk, a VMDK (its descriptor, where it has several files), raw or qcow2 file on the target.
      - With O(import_method=web-download), the address from which Glance fetches it.
      - Needed with O(state=present).
    type: str
  hypervisor:
    description: What boots the image, which decides the family of properties.
    type: str
    choices: [kvm, vmware]
    default: kvm
  convert:
    description: V(never) sends the file as it is or not at all.
    type: str
    choices: [auto, never]
    default: auto
  adapter_type:
    description: Controller of the disk. Absent, the one that the VMDK names.
    type: str
    choices: [ide, buslogic, lsilogic, lsisas1068, pvscsi]
  disktype:
    description:
      - The form that should be sent, a value of C(vmware_disktype). Absent, that of the file where it will do, or
        V(streamOptimized).
      - V(sparse) needs less processor time and more bytes. V(preallocated) is an error. Glance takes flat data as raw only, which
        Nova's VMware driver refuses.
    type: str
    choices: [sparse, preallocated, streamOptimized]
  compression_level:
    description:
      - Of a disk that is converted to V(streamOptimized), from 1 (fast, the default) to 9 (small).
      - Against V(1), V(6) sends almost a tenth less and takes four times the processor time. It pays where the way to Glance is slow.
    type: int
  guest_id:
    description:
      - Guest ID of the VM in vSphere, such as V(rhel9_64Guest). It gives C(os_type), C(os_distro) and C(os_version), and with
        O(hypervisor=vmware) C(vmware_ostype).
    type: str
  firmware:
    description: Firmware of the VM. It gives C(hw_firmware_type), and with V(efi) under KVM C(hw_machine_type).
    type: str
    choices: [bios, efi]
  secure_boot:
    description: Whether the VM boots with secure boot; it gives C(os_secure_boot).
    type: bool
  nic_type:
    description: Type of the VM's network card, such as V(vmxnet3). It gives C(hw_vif_model).
    type: str
  hardware:
    description:
      - With V(source), controller and card are those of the VM as far as the hypervisor has them. V(virtio) is for guests that
        have the drivers.
    type: str
    choices: [source, virtio]
    default: source
  properties:
    description: Further properties, which win over the module's own. An empty value leaves one out.
    type: dict
  visibility:
    description: Who sees the image. Absent, it is left to Glance, or V(shared) where O(members) are given.
    type: str
    choices: [private, shared, community, public]
  min_disk:
    description: GiB of disk that a server needs. Absent, a new image gets the disk's capacity, rounded up.
    type: int
  min_ram:
    description: MiB of memory that a server needs.
    type: int
  protected:
    description: Whether the image cannot be deleted.
    type: bool
  tags:
    description: Tags of the image, all of them.
    type: list
    elements: str
  members:
    description: IDs of the projects that the image is shared with, all of them.
    type: list
    elements: str
  import_method:
    description:
      - Absent, the data is sent to the image. V(glance-direct) sends it to the staging area and imports it from there, so that
        import plugins see it. With V(web-download) Glance fetches O(src) itself; an image once fetched from an address is
        not fetched again.
    type: str
    choices: [glance-direct, web-download]
  stores:
    description:
      - Stores that the image should be in, where Glance has several. Several are filled by one import, where Glance has
        C(glance-direct), else by C(copy-image).
      - An image that is there already is copied to those it lacks. Glance lets only administrators do that.
    type: list
    elements: str
  timeout:
    description: Seconds that an import may take.
    type: int
    default: 3600
  state:
    description: Whether the image should be there.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.long_task
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
    details: An image with the same name and other content is an error, since Glance never changes an image's data.
seealso:
  - module: ferry.vmware.vmdk_info
  - module: ferry.vmware.vmdk_convert
"""

EXAMPLES = r"""
- name: A disk as an image for KVM
  ferry.vmware.glance_vmdk_upload:
    cloud: mycloud
    name: centos
    src: /exports/centos/centos.vmdk
    adapter_type: pvscsi

- name: The same for Nova on vSphere, shared with another project
  ferry.vmware.glance_vmdk_upload:
    cloud: mycloud
    name: centos-vmware
    src: /exports/centos/centos.vmdk
    hypervisor: vmware
    properties:
      hw_video_ram: "16"
    guest_id: centos7_64Guest
    members: [5d8e1b1c2f3a4b5c8d9e0f1a2b3c4d5e]
"""

RETURN = r"""
image:
  description: The image as Glance shows it in the end. Null when it is absent or would be made.
  returned: success
  type: dict
converted_to:
  description: Form into which the disk was converted. Null when it was sent as it is.
  returned: success
  type: str
  sample: streamOptimized
bytes_sent:
  description: Bytes sent.
  returned: success
  type: int
bytes_predicted:
  description: Bytes that would be sent, for a converted disk within some 5 percent.
  returned: in check mode, when there would be an upload
  type: int
bootable:
  description: Whether Nova with O(hypervisor) boots what is sent.
  returned: when O(state=present), unless Glance fetched the image itself
  type: bool
reasons:
  description: What stands against that; that of a data disk is that it has no boot sector.
  returned: when O(state=present), unless Glance fetched the image itself
  type: list
  elements: str
sha512:
  description: SHA-512 of the form that was sent, as in the image's C(os_hash_value).
  returned: success
  type: str
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.long_task import long_task_spec
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import upload
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        **long_task_spec(),
        "name": {"type": "str", "required": True},
        "src": {"type": "str"},
        "hypervisor": {"type": "str", "choices": ["kvm", "vmware"], "default": "kvm"},
        "convert": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
        "adapter_type": {"type": "str", "choices": ["ide", "buslogic", "lsilogic", "lsisas1068", "pvscsi"]},
        "disktype": {"type": "str", "choices": ["sparse", "preallocated", "streamOptimized"]},
        "compression_level": {"type": "int"},
        "guest_id": {"type": "str"},
        "firmware": {"type": "str", "choices": ["bios", "efi"]},
        "secure_boot": {"type": "bool"},
        "nic_type": {"type": "str"},
        "hardware": {"type": "str", "choices": ["source", "virtio"], "default": "source"},
        "properties": {"type": "dict"},
        "visibility": {"type": "str", "choices": ["private", "shared", "community", "public"]},
        "min_disk": {"type": "int"},
        "min_ram": {"type": "int"},
        "protected": {"type": "bool"},
        "tags": {"type": "list", "elements": "str"},
        "members": {"type": "list", "elements": "str"},
        "import_method": {"type": "str", "choices": ["glance-direct", "web-download"]},
        "stores": {"type": "list", "elements": "str"},
        "timeout": {"type": "int", "default": 3600},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    edge.run(spec, lambda call: upload.run(call.params, check=call.check, warn=call.warn), required_if=[("state", "present", ["src"])])


if __name__ == "__main__":
    main()
