# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: vcloud
short_description: The inventory of vCloud Director, VMs by organization and vDC and vApp
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes every VM of a vApp a host of the group C(vms), of C(org_NAME) for its organization, C(vdc_NAME) for its vDC and C(vapp_NAME)
    for its vApp.
  - Where several organizations have a vDC of one name, or several vDCs a vApp of one name, each has a group of its own as well,
    C(vdc_ORG_NAME) and C(vapp_VDC_NAME).
  - Asks for a few attributes of all VMs in pages as large as the server gives, so that ten thousand VMs take a few seconds.
  - Nothing connects to these hosts. Plays over them run with C(gather_facts=false) and name the VM to modules by C(ferry_href) or
    C(ferry_id).
  - The configuration file's name ends in C(vcloud.yml) or C(vcloud.yaml).
  - Every host has the variables C(ferry_name), C(ferry_href), C(ferry_id), C(ferry_moref), C(ferry_vapp), C(ferry_vdc), C(ferry_org),
    C(ferry_status), C(ferry_datastore) (the name of the datastore that it lives on), C(ferry_vcenter) and C(ferry_is_template).
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [ferry.vmware.vcloud]
  name:
    description:
      - Only VMs called so. An asterisk stands for anything.
    type: str
  org:
    description:
      - Only VMs of this organization.
    type: str
  vdc:
    description:
      - Only VMs of the vDCs of this name.
    type: str
  datastore:
    description:
      - Only VMs that live on the datastores of this name.
    type: str
  hostnames:
    description:
      - What a VM is called in the inventory, Jinja expressions over its variables. The first that gives a name is taken.
      - Where several hosts would have one name, all of these get the UUID in their href added, with a warning.
    type: list
    elements: str
    default: [ferry_name]
  filters:
    description:
      - Jinja expressions over a VM's variables. Only VMs for which all of them are true are taken.
    type: list
    elements: str
    default: []
  include_templates:
    description: Whether the VMs of vApp templates are hosts as well, then of the group C(templates) besides.
    type: bool
    default: false
extends_documentation_fragment:
  - ferry.vmware.vcloud.plugin
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
"""

EXAMPLES = r"""
# prod.vcloud.yml: the connection comes from VCD_HOST, VCD_USER, VCD_PASSWORD, VCD_ORG, VCD_CA_PATH
plugin: ferry.vmware.vcloud

---
# the running VMs of one organization, by datastore
plugin: ferry.vmware.vcloud
hostname: vcd.example.com
username: administrator
password: "{{ lookup('ansible.builtin.file', '/run/secrets/vcd') }}"
auth_org: System
ca_path: /etc/ssl/vcd-ca.pem
org: acme
filters:
  - ferry_status == 'POWERED_ON'
keyed_groups:
  - key: ferry_datastore
    prefix: datastore
groups:
  databases: ferry_name is match('db')
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ferry-vmware
cache_timeout: 600
"""

from typing import Any

from ansible.errors import AnsibleParserError

from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client, situation
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud.entities import uuid_of
from ansible_collections.ferry.vmware.plugins.plugin_utils.inventory import InventoryBase, protect, unique_names

CONNECTION = ("hostname", "username", "password", "port", "validate_certs", "ca_path", "auth_org", "token", "api_version")
QUESTION = ("name", "org", "vdc", "datastore")
#: Groups that are there before any of ours: a host of that name would give its variables to them.
RESERVED = frozenset(("all", "ungrouped", "vms", "templates"))
ENDINGS = ("vcloud.yml", "vcloud.yaml")

Row = dict[str, Any]


def variables_of(row: Row) -> dict[str, Any]:
    """The ferry_* variables of a VM."""
    plain = {
        f"ferry_{name}": row[name] for name in ("name", "href", "id", "moref", "vapp", "vdc", "org", "status", "vcenter", "is_template")
    }
    return {**plain, "ferry_datastore": row["datastore"]["name"]}


def groups_of(rows: list[Row]) -> list[list[str]]:
    """The groups, before they are made proper names, of each of C(rows)."""
    homes: dict[str, set[str]] = {}
    for row in rows:
        homes.setdefault(f"vdc {row['vdc']}", set()).add(row["org"])
        homes.setdefault(f"vapp {row['vapp']}", set()).add(f"{row['org']} {row['vdc']}")
    found = []
    for row in rows:
        groups = [f"org_{row['org']}", f"vdc_{row['vdc']}"]
        if len(homes[f"vdc {row['vdc']}"]) > 1:
            groups.append(f"vdc_{row['org']}_{row['vdc']}")
        if row["vapp"]:
            groups.append(f"vapp_{row['vapp']}")
            if len(homes[f"vapp {row['vapp']}"]) > 1:
                groups.append(f"vapp_{row['vdc']}_{row['vapp']}")
        found.append(groups)
    return found


class InventoryModule(InventoryBase):
    NAME = "ferry.vmware.vcloud"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._groups: dict[str, str] = {}
        self._read_config_data(path)
        params = self._templated(CONNECTION, ("hostname", "username", "password", "token"))
        wanted = {name: self.get_option(name) for name in QUESTION}
        whom = [params[name] for name in ("hostname", "port", "username", "auth_org", "api_version")]

        def read() -> list[Row]:
            with client.administrator(params) as session:
                return situation.vm_rows(session, **wanted)

        try:
            self._populate(self._through_cache(path, cache, [wanted, *whom], read))
        except FerryError as e:
            raise AnsibleParserError(f"{path}: {e}") from e

    def _populate(self, rows: list[Row]) -> None:
        filters, hostnames, strict = self.get_option("filters"), self.get_option("hostnames"), self.get_option("strict")
        templates = self.get_option("include_templates")
        rows = [row for row in rows if templates or not row["is_template"]]
        chosen: list[tuple[str, Row, dict[str, Any], list[str]]] = []
        for row, groups in zip(rows, groups_of(rows), strict=True):
            variables = protect(variables_of(row))
            if filters and not self._passes(filters, variables, strict):
                continue
            name = row["name"]
            if hostnames != ["ferry_name"]:
                name = self._hostname(hostnames, variables, strict) or name
            chosen.append((name, row, variables, groups))
        names, shared = unique_names([(name, uuid_of(row["href"])) for name, row, *_rest in chosen], RESERVED)
        self._tell_shared(shared, "the UUID in their href")
        self.inventory.add_group("vms")
        if templates:
            self.inventory.add_group("templates")
        for name, (_wanted, row, variables, groups) in zip(names, chosen, strict=True):
            self._add(name, row, variables, groups, strict)

    def _add(self, name: str, row: Row, variables: dict[str, Any], groups: list[str], strict: bool) -> None:
        compose, composed, keyed = self.get_option("compose"), self.get_option("groups"), self.get_option("keyed_groups")
        inventory = self.inventory
        inventory.add_host(name, group="vms")
        if row["is_template"]:
            inventory.add_child("templates", name)
        host = inventory.get_host(name)
        for key, value in variables.items():
            host.set_variable(key, value)
        for group in groups:
            if group not in self._groups:
                self._groups[group] = inventory.add_group(self._sanitize_group_name(group))
            inventory.add_child(self._groups[group], name)
        if compose or composed or keyed:
            self._set_composite_vars(compose, variables, name, strict=strict)
            # what compose has set is read back from the host, and only then: that is slow
            self._add_host_to_composed_groups(composed, variables, name, strict=strict, fetch_hostvars=bool(compose))
            self._add_host_to_keyed_groups(keyed, variables, name, strict=strict, fetch_hostvars=bool(compose))
