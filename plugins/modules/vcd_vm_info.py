#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vcd_vm_info
short_description: List the virtual machines of vCloud Director with their datastores
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Returns the virtual machines of all vApps and vApp templates, or those that are asked for, each with the datastore that it lives on.
  - Asks for the fields that are returned and for nothing else, in pages as large as the server gives; O(name), O(datastore), O(vdc),
    O(org) and O(filter) are left to the server, so that only what fits travels.
  - Fails where the number of machines is not the one that the server tells.
options:
  name:
    description:
      - Only machines called so. An asterisk stands for anything; with one, case does not matter.
    type: str
  org:
    description:
      - Only machines of this organization, given by name or href.
    type: str
  vdc:
    description:
      - Only machines of the vDCs of this name, or of the one with this href.
    type: str
  datastore:
    description:
      - Only machines that live on the datastores of this name.
    type: str
  filter:
    description:
      - A further filter over the attributes of C(AdminVMRecord), in the query service's language (FIQL), V(numberOfCpus==4;status==POWERED_ON)
        for example, not percent-encoded.
      - API 1.5 knows C(==) and C(!=) only.
    type: str
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vcloud
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
  - module: ferry.vmware.vcd_datastore_info
  - module: ferry.vmware.vcd_relocate
  - plugin: ferry.vmware.vcloud
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: See what lives on a datastore
  ferry.vmware.vcd_vm_info:
    hostname: vcd.example.com
    username: administrator
    password: "{{ vcd_password }}"
    auth_org: System
    ca_path: /etc/ssl/vcd-ca.pem
    datastore: Production-1
  register: there

- name: Show them
  ansible.builtin.debug:
    msg: "{{ item.org }}/{{ item.vdc }}/{{ item.vapp }}/{{ item.name }}"
  loop: "{{ there.vms }}"
  loop_control:
    label: "{{ item.href }}"

- name: Find the running machines of one vDC whose name begins with db
  ferry.vmware.vcd_vm_info:
    vdc: acme-prod
    name: db*
    filter: status==POWERED_ON
"""

RETURN = r"""
vms:
  description: The machines, in the order of organization, vDC, vApp and name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The machine's name. Names repeat.
      type: str
    href:
      description: What identifies it, as the server gives it.
      type: str
      sample: https://vcd.example.com/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001
    id:
      description: The same as a urn.
      type: str
      sample: urn:vcloud:vm:1111aaaa-0000-4000-8000-000000000001
    vapp:
      description: Name of its vApp, or of its vApp template.
      type: str
    vdc:
      description: Name of the vDC.
      type: str
    org:
      description: Name of the organization.
      type: str
    status:
      description: V(POWERED_ON), V(POWERED_OFF), V(SUSPENDED) and so on, in the server's words.
      type: str
    is_template:
      description: Whether it belongs to a vApp template.
      type: bool
    datastore:
      description: The datastore that it lives on. Disks of it may be on others.
      type: dict
      contains:
        name:
          description: The datastore's name.
          type: str
    vcenter:
      description: Name of the vCenter that it runs in.
      type: str
    moref:
      description: Its MoRef in that vCenter.
      type: str
      sample: vm-191
api_version:
  description: The API version that was spoken.
  returned: success
  type: str
  sample: '38.1'
failure:
  description: What went wrong, as data. C(details) has the server's C(major) and C(minor) error codes and its C(request_id).
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import argspec, client, situation


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    with client.administrator(p) as session:
        vms = situation.vm_rows(session, name=p["name"], org=p["org"], vdc=p["vdc"], datastore=p["datastore"], where=p["filter"])
        return {"vms": vms, "api_version": session.api_version}


def main() -> None:
    spec = argspec.connection_spec(
        env_fallback,
        name={"type": "str"},
        org={"type": "str"},
        vdc={"type": "str"},
        datastore={"type": "str"},
        filter={"type": "str"},
    )
    edge.run(spec, work)


if __name__ == "__main__":
    main()
