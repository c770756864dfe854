# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: vcenter
short_description: The inventory of a vCenter, VMs and ESXi hosts and datastores
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes every VM a host of the group C(vms), every ESXi host one of C(esxi_hosts), every datastore one of C(datastores).
  - Reads all of it with one question to vCenter, and only the properties that are asked for, so that a thousand VMs take
    little longer than none.
  - Nothing connects to these hosts. Plays over them run with C(gather_facts=false), delegated to the conversion host, and
    name the VM to modules by C(ferry_moref) or C(ferry_instance_uuid).
  - The configuration file's name ends in C(vcenter.yml), C(vcenter.yaml), C(ferry.yml) or C(ferry.yaml).
  - Every host has the variables C(ferry_name), C(ferry_moref) and C(ferry_path). Each variable more costs time on every host,
    so what a group says already (the kind, the vCenter) is none.
  - "A VM has C(ferry_instance_uuid), and the properties that were asked for, as vSphere nests them: V(config.guestId) is
    C(config.guestId). The property V(name) is C(ferry_name), since a variable cannot be called so."
  - "An ESXi host has C(ferry_connection), C(ferry_maintenance), C(ferry_power), C(ferry_cluster), C(ferry_version),
    C(ferry_build), C(ferry_cpu_mhz), C(ferry_cpu_used_mhz), C(ferry_cpu_load_percent), C(ferry_memory_mb),
    C(ferry_memory_used_mb) and C(ferry_memory_load_percent)."
  - "A datastore has C(ferry_capacity), C(ferry_free) and C(ferry_uncommitted) in bytes, C(ferry_used_percent),
    C(ferry_accessible), C(ferry_maintenance), C(ferry_shared), C(ferry_type) and C(ferry_url)."
  - A VM or an ESXi host that is registered (M(ferry.vmware.machine_register)) has C(ferry_definition) and C(ferry_group) as well, and is in
    the group of that name.
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [ferry.vmware.vcenter]
  properties:
    description:
      - Properties of the VMs, as paths of the vSphere API down to the leaf, V(config.hardware.numCPU) for example. The shorter
        the list, the faster.
      - A path that stops above a leaf (V(config)) is possible, and slow.
    type: list
    elements: str
    default:
      - config.guestId
      - config.hardware.memoryMB
      - config.hardware.numCPU
      - guest.hostName
      - runtime.powerState
  hostnames:
    description:
      - What a VM is called in the inventory, Jinja expressions over its variables. The first that gives a name is taken.
      - Where several hosts would have one name, all of these get their MoRef added (C(web01_vm-42)), with a warning. The same holds
        for a VM that is called like an ESXi host or a datastore.
    type: list
    elements: str
    default: [ferry_name]
  filters:
    description:
      - Jinja expressions over a VM's variables. Only VMs for which all of them are true are taken.
    type: list
    elements: str
    default: []
  folders:
    description:
      - Inventory paths, V(/DC0/vm/wave1) for example. Only VMs in or below one of them are taken.
    type: list
    elements: str
    default: []
  group_by:
    description:
      - Groups of VMs to make without any template, which is faster than C(keyed_groups).
      - V(power) makes C(power_on) and so on, V(host) makes C(host_NAME), V(cluster), V(datastore), V(datacenter) and V(folder) likewise.
        V(folder) has the path of the folder (C(folder_DC0_vm_wave1)).
    type: list
    elements: str
    choices: [cluster, datacenter, datastore, folder, host, power]
    default: []
  include_templates:
    description: Whether templates are hosts as well.
    type: bool
    default: false
  with_esxi_hosts:
    description: Whether ESXi hosts are read.
    type: bool
    default: true
  with_datastores:
    description: Whether datastores are read.
    type: bool
    default: true
extends_documentation_fragment:
  - ferry.vmware.vsphere.plugin
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
"""

EXAMPLES = r"""
# wave1.vcenter.yml: the connection comes from VMWARE_HOST, VMWARE_USER, VMWARE_PASSWORD, VMWARE_CA_PATH
plugin: ferry.vmware.vcenter

---
# a wave is a group
plugin: ferry.vmware.vcenter
hostname: vcenter.example.com
username: administrator@vsphere.local
password: "{{ lookup('ansible.builtin.file', '/run/secrets/vcenter') }}"
ca_path: /etc/ssl/vcenter-ca.pem
folders:
  - /DC0/vm/to-move
properties:
  - config.guestId
  - config.hardware.memoryMB
  - runtime.powerState
filters:
  - config.hardware.memoryMB <= 65536
groups:
  wave1: ferry_path is match('/DC0/vm/to-move/wave1/')
  windows: "'windows' in config.guestId"
keyed_groups:
  - key: config.guestId
    prefix: guest
group_by:
  - host
  - power
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ferry-vmware
cache_timeout: 600
"""

from typing import Any

from ansible.errors import AnsibleParserError

from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import listing
from ansible_collections.ferry.vmware.plugins.plugin_utils.inventory import InventoryBase, protect, unique_names

GROUPS = {"vm": "vms", "esxi_host": "esxi_hosts", "datastore": "datastores"}
#: Groups that are there before any of ours: a host of that name would give its variables to them.
RESERVED = frozenset(("all", "ungrouped", *GROUPS.values()))
ENDINGS = ("vcenter.yml", "vcenter.yaml", "ferry.yml", "ferry.yaml")


class InventoryModule(InventoryBase):
    NAME = "ferry.vmware.vcenter"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            self._populate(self._records(path, cache))
        except FerryError as e:
            raise AnsibleParserError(f"{path}: {e}") from e

    def _connection(self) -> dict[str, Any]:
        """The connection options, templates resolved. They are used here and kept nowhere."""
        names = ("hostname", "username", "password", "port", "validate_certs", "ca_path")
        return self._templated(names, ("hostname", "username", "password"))

    def _records(self, path: str, cache: bool) -> list[dict[str, Any]]:
        """The records, from the cache where it has them."""
        wanted = {
            "properties": [p for p in dict.fromkeys(self.get_option("properties")) if p != "name"],
            "group_by": sorted(set(self.get_option("group_by"))),
            "include_templates": self.get_option("include_templates"),
            "folders": self.get_option("folders"),
            "with_esxi_hosts": self.get_option("with_esxi_hosts"),
            "with_datastores": self.get_option("with_datastores"),
        }
        params = self._connection()
        return self._through_cache(
            path, cache, [wanted, params["hostname"], params["port"], params["username"]], lambda: self._read(params, wanted)
        )

    def _read(self, params: dict[str, Any], wanted: dict[str, Any]) -> list[dict[str, Any]]:
        return listing.read(params, **wanted)

    def _populate(self, records: list[dict[str, Any]]) -> None:
        filters, hostnames = self.get_option("filters"), self.get_option("hostnames")
        strict = self.get_option("strict")
        chosen: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        for record in records:
            variables = protect({**record["props"], **record["vars"]})
            name = record["name"]
            if record["kind"] == "vm":
                if filters and not self._passes(filters, variables, strict):
                    continue
                if hostnames != ["ferry_name"]:
                    name = self._hostname(hostnames, variables, strict) or name
            chosen.append((name, record, variables))
        names, shared = unique_names([(name, record["moref"]) for name, record, _variables in chosen], RESERVED)
        self._tell_shared(shared, "the MoRef")
        self._add(list(zip(names, chosen, strict=True)), strict)

    def _add(self, hosts: list[tuple[str, tuple[str, dict[str, Any], dict[str, Any]]]], strict: bool) -> None:
        compose, groups, keyed = self.get_option("compose"), self.get_option("groups"), self.get_option("keyed_groups")
        inventory = self.inventory
        for group in ("vms", *(g for g, o in (("esxi_hosts", "with_esxi_hosts"), ("datastores", "with_datastores")) if self.get_option(o))):
            inventory.add_group(group)
        safe: dict[tuple[str, str], str] = {}
        for name, (_wanted, record, variables) in hosts:
            inventory.add_host(name, group=GROUPS[record["kind"]])
            host = inventory.get_host(name)
            for key, value in variables.items():
                host.set_variable(key, value)
            for by, values in record["groups"].items():
                for value in values:
                    if not by and value in RESERVED:
                        continue
                    if (by, value) not in safe:
                        safe[by, value] = inventory.add_group(self._sanitize_group_name(f"{by}_{value}" if by else value))
                    inventory.add_child(safe[by, value], name)
            if record["kind"] == "vm" and (compose or groups or keyed):
                self._set_composite_vars(compose, variables, name, strict=strict)
                # what compose has set is read back from the host, and only then: that is slow
                self._add_host_to_composed_groups(groups, variables, name, strict=strict, fetch_hostvars=bool(compose))
                self._add_host_to_keyed_groups(keyed, variables, name, strict=strict, fetch_hostvars=bool(compose))
