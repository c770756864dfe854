#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_image_properties
short_description: Image properties, metadata and bootable flag of a Cinder volume
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Sets what M(openstack.cloud.volume) cannot on a volume that exists. A server that boots from the volume takes its disk bus,
    SCSI controller, network card and firmware from the volume's image properties.
  - What was set is read back, and it is an error where Cinder did not keep it.
options:
  volume:
    description: ID of the volume.
    type: str
    required: true
  properties:
    description: Image properties to set, for example C(hw_disk_bus), C(hw_scsi_model), C(hw_firmware_type). Others are left.
    type: dict
  image:
    description:
      - Name or ID of the image that the volume was made from. Its hardware properties and what it says of the guest are set on
        the volume, and hardware properties that the image does not have are removed. O(properties) win over them.
    type: str
  exclusive:
    description:
      - Whether those hardware properties that O(properties) does not name are removed, such as a C(vmware_adaptertype)
        beside C(hw_disk_bus).
    type: bool
    default: false
  bootable:
    description: Whether servers may boot from the volume.
    type: bool
  metadata:
    description: Metadata to set. Other keys are left.
    type: dict
  name:
    description: Name of the volume.
    type: str
  expect:
    description:
      - What the volume has to be, by its type; where it is not, that is an error, since neither can be set on a volume that exists.
    type: dict
    suboptions:
      encrypted:
        description: Whether its type encrypts it.
        type: bool
      multiattach:
        description: Whether several servers may have it at once.
        type: bool
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.openstack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
seealso:
  - module: openstack.cloud.volume
"""

EXAMPLES = r"""
- name: The volume boots by UEFI from a paravirtual SCSI controller
  ferry.vmware.volume_image_properties:
    cloud: mycloud
    volume: 8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22
    bootable: true
    properties:
      hw_disk_bus: scsi
      hw_scsi_model: vmpvscsi
      hw_firmware_type: uefi
      hw_machine_type: q35

- name: A volume made from an image has the image's controller
  ferry.vmware.volume_image_properties:
    cloud: mycloud
    volume: 8b7f9d3e-9d3e-4d55-9e0a-1f0d6c0f2a22
    image: centos
"""

RETURN = r"""
volume:
  description: The volume as it is now.
  returned: success
  type: dict
  contains:
    id:
      description: Its ID.
      type: str
    name:
      description: Its name.
      type: str
    bootable:
      description: Whether servers may boot from it.
      type: bool
    metadata:
      description: Its metadata.
      type: dict
    image_properties:
      description: Its image properties.
      type: dict
    encrypted:
      description: Whether its type encrypts it.
      type: bool
    multiattach:
      description: Whether several servers may have it at once.
      type: bool
    size:
      description: Its size in GiB.
      type: int
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import volume_properties
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        "volume": {"type": "str", "required": True},
        "properties": {"type": "dict"},
        "image": {"type": "str"},
        "exclusive": {"type": "bool", "default": False},
        "bootable": {"type": "bool"},
        "metadata": {"type": "dict"},
        "name": {"type": "str"},
        "expect": {"type": "dict", "options": {"encrypted": {"type": "bool"}, "multiattach": {"type": "bool"}}},
    }
    edge.run(spec, lambda call: volume_properties.run(call.params, check=call.check))


if __name__ == "__main__":
    main()
