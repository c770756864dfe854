#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_image_properties
short_description: Give an image made from a server the controller properties that the server has
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - An image made from a server may lack the properties that say its disk controller, network card and firmware, or have those
    that the server was once made with. A server from such an image does not find its disks.
  - The properties are taken from the volume that the server boots from, whose snapshot the image names, or else from the server.
    They are set on the image, and read back.
options:
  image:
    description: Name or ID of the image.
    type: str
  server:
    description: Name or ID of the server. Without O(image), all images that were made from it are meant.
    type: str
  source_volume:
    description:
      - ID of the volume that has the properties, for an image that says neither its server nor its snapshot, such as one that
        Cinder made from a volume.
    type: str
  properties:
    description: Further properties, which win. An empty value leaves one out.
    type: dict
    default: {}
  hypervisor:
    description: What runs servers from the image; the properties are checked for it.
    type: str
    choices: [kvm, vmware]
    default: kvm
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
  - module: ferry.vmware.server_bus_check
  - module: ferry.vmware.volume_image_properties
"""

EXAMPLES = r"""
- name: A snapshot of the server
  ansible.builtin.command: openstack --os-cloud mycloud server image create --wait --name web01-before-update web01
  changed_when: true

- name: Servers from it get the same controller
  ferry.vmware.snapshot_image_properties:
    cloud: mycloud
    image: web01-before-update
"""

RETURN = r"""
images:
  description: One entry per image.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Its ID.
      type: str
    name:
      description: Its name.
      type: str
    source:
      description: ID of the volume or server that the properties are from.
      type: str
    properties:
      description: The properties that it has now.
      type: dict
    changed:
      description: Whether any had to be set.
      type: bool
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import snapshot_images
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec


def main() -> None:
    spec = {
        **connection_spec(),
        "image": {"type": "str"},
        "server": {"type": "str"},
        "source_volume": {"type": "str"},
        "properties": {"type": "dict", "default": {}},
        "hypervisor": {"type": "str", "choices": ["kvm", "vmware"], "default": "kvm"},
    }
    edge.run(spec, lambda call: snapshot_images.run(call.params, check=call.check), required_one_of=[("image", "server")])


if __name__ == "__main__":
    main()
