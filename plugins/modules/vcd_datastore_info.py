#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vcd_datastore_info
short_description: List the datastores of vCloud Director with their space
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Returns the datastores that vCloud Director knows, of all vCenters, with their capacity, what is written, what is provisioned
    and what vCloud Director has allocated.
  - Datastores that were deleted from vCenter, which vCloud Director keeps a record of, are left out.
options:
  name:
    description:
      - Only datastores called so. An asterisk stands for anything; with one, case does not matter.
    type: str
  datastore:
    description:
      - Only this one, given by name, href, urn (V(urn:vcloud:datastore:...)) or MoRef (V(datastore-42)). It is an error where there is
        none, or more than one.
    type: str
  org:
    description:
      - Only datastores on which machines of this organization live.
    type: str
  vdc:
    description:
      - Only datastores on which machines of the vDCs of this name live.
    type: str
  filter:
    description:
      - A further filter over the attributes of C(DatastoreRecord), in the query service's language (FIQL), V(isEnabled==true;storageMB=ge=1000000)
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
  - module: ferry.vmware.vcd_vm_info
  - module: ferry.vmware.vcd_relocate
"""

EXAMPLES = r"""
- name: Look for room
  ferry.vmware.vcd_datastore_info:
    hostname: vcd.example.com
    username: administrator@system
    password: "{{ vcd_password }}"
    ca_path: /etc/ssl/vcd-ca.pem
    name: Production-*
  register: stores

- name: Show what is free on each
  ansible.builtin.debug:
    msg: "{{ item.vcenter }}/{{ item.name }}: {{ item.total_mb - item.used_mb }} of {{ item.total_mb }} MB free"
  loop: "{{ stores.datastores | selectattr('enabled') }}"
  loop_control:
    label: "{{ item.href }}"
"""

RETURN = r"""
datastores:
  description: The datastores, in the order of their names and vCenters.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The datastore's name. Names repeat across vCenters.
      type: str
    href:
      description: What identifies it, as the server gives it.
      type: str
      sample: https://vcd.example.com/api/admin/extension/datastore/2222bbbb-0000-4000-8000-000000000002
    id:
      description: The same as a urn.
      type: str
      sample: urn:vcloud:datastore:2222bbbb-0000-4000-8000-000000000002
    moref:
      description: Its MoRef in its vCenter.
      type: str
      sample: datastore-42
    vcenter:
      description: Name of its vCenter.
      type: str
    enabled:
      description: Whether vCloud Director may put machines on it.
      type: bool
    total_mb:
      description: Its capacity, in MiB.
      type: int
    used_mb:
      description: What is written on it, in MiB.
      type: int
    provisioned_mb:
      description: What would be written were every thin disk full, in MiB. May be more than the capacity.
      type: int
    requested_mb:
      description: vCloud Director's own allocation, shadow VMs left out, in MiB.
      type: int
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
        stores = situation.datastore_rows(session, name=p["name"], datastore=p["datastore"], org=p["org"], vdc=p["vdc"], where=p["filter"])
        return {"datastores": stores, "api_version": session.api_version}


def main() -> None:
    spec = argspec.connection_spec(
        env_fallback,
        name={"type": "str"},
        datastore={"type": "str"},
        org={"type": "str"},
        vdc={"type": "str"},
        filter={"type": "str"},
    )
    edge.run(spec, work)


if __name__ == "__main__":
    main()
