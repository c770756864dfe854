#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: glance_vmdk_upload
short_description: Send a VMDK to Glance in a form that Glance takes and Nova boots
version_added: 0.1.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Glance takes monolithicSparse and streamOptimized VMDKs, each in one file. These are sent as they are. Any other disk that
    M(ferry.vmware.vmdk_info) reads, a raw one too, is converted to streamOptimized while it is sent, without a temporary file.
  - The image gets the properties by which Nova chooses the disk controller.
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
    description: Value of C(vmware_disktype), where it should be another than that of the form which is sent.
    type: str
    choices: [sparse, preallocated, streamOptimized]
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
        import plugins see it. With V(web-download) Glance fetches O(src) itself.
    type: str
    choices: [glance-direct, web-download]
  stores:
    description: Stores that the image should be in, where Glance has several.
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
      vmware_ostype: centos7_64Guest
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
    edge.run(spec, lambda call: upload.run(call.params, check=call.check), required_if=[("state", "present", ["src"])])


if __name__ == "__main__":
    main()
