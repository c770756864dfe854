#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_source_state
short_description: Power, note and custom attributes of a VM that is being migrated
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Takes the steps that a migration takes on its source, and gives them back. Each is reversible, and the old values are in
    RV(before).
  - Shuts the guest down cleanly through VMware Tools, with a timeout and a choice of what to do then, and says in
    RV(power_method) and RV(power_reason) what was done.
  - Keeps a block of text of its own in the VM's notes (annotation), all other text stays. A change by somebody else in the
    same moment is noticed and kept.
  - Power comes first, then the network cards, the custom attributes, the note.
  - With O(network=disconnected) or O(remember) what is found (power, network cards, change tracking) is written down before anything is
    changed, in the custom attribute C(ferry.before) of the VM. M(ferry.vmware.vm_source_restore) brings the VM back by it.
options:
  vm:
    description:
      - The VM, given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
    type: str
    required: true
  power:
    description:
      - The power state to reach.
      - V(shutdown) asks the guest to shut down and waits. It does nothing to a VM that is powered off, and refuses a suspended one,
        whose disks lack what is in its memory.
      - V(off) powers off at once, as pulling the plug does. A suspended VM loses its memory by that.
      - V(on) powers on, for a rollback.
    type: str
    choices: [unchanged, shutdown, "off", "on"]
    default: unchanged
  shutdown_timeout:
    description:
      - Seconds that the guest has to shut down with O(power=shutdown).
    type: int
    default: 600
  on_timeout:
    description:
      - What to do when the guest has not shut down within O(shutdown_timeout), or cannot be asked to because VMware Tools are
        not running in it.
      - V(fail) leaves it powered on and fails.
      - V(poweroff) powers it off, with a warning. Without VMware Tools that is done at once.
    type: str
    choices: [fail, poweroff]
    default: fail
  network:
    description:
      - V(disconnected) takes all network cards off the network, now and for the next power on, so that a VM that is started by
        mistake cannot take an address that has moved.
    type: str
    choices: [unchanged, disconnected]
    default: unchanged
  remember:
    description:
      - Whether what is found is written down although nothing of it is changed here; before another module changes it.
    type: bool
    default: false
  refuse_states:
    description:
      - Values of the custom attribute C(ferry.state) with which the module fails and changes nothing.
    type: list
    elements: str
    default: []
  note:
    description:
      - Text of our block in the VM's notes.
      - An empty text removes the block. Without this option it is left as it is.
    type: str
  attributes:
    description:
      - Custom attributes to set, for example C(ferry.state). An attribute that is not defined in this vCenter is defined
        for virtual machines, which needs the privilege C(Global.Manage custom attributes).
      - An empty value clears the attribute of this VM. Attributes that are not named are left as they are.
    type: dict
    default: {}
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.vm_source_restore
  - module: vmware.vmware.vm_powerstate
    description: Power states of VMs in general.
"""

EXAMPLES = r"""
- name: Shut the source down, at most 15 minutes, else fail
  ferry.vmware.vm_source_state:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    vm: web01
    power: shutdown
    shutdown_timeout: 900

- name: Note where the VM went
  ferry.vmware.vm_source_state:
    vm: "{{ ferry_moref }}"
    note: |
      Migrated to the OpenStack project web on 2026-11-21.
    attributes:
      ferry.state: migrated

- name: Shut it down and keep it off the network
  ferry.vmware.vm_source_state:
    vm: "{{ ferry_moref }}"
    power: shutdown
    network: disconnected
"""

RETURN = r"""
vm:
  description: The VM.
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef.
      type: str
    instance_uuid:
      description: vCenter's UUID of it.
      type: str
    path:
      description: Its inventory path.
      type: str
before:
  description: The state that was found.
  returned: always
  type: dict
  contains: &state
    power:
      description: V(on), V(off) or V(suspended).
      type: str
    note:
      description: Text of our block in the notes, null where there is none.
      type: str
    annotation:
      description: The whole notes.
      type: str
    attributes:
      description: The custom attributes that were asked for, empty where they have no value.
      type: dict
    nics:
      description:
        - The network cards, each with C(key), C(label), C(connected) and C(start_connected). Only with O(network=disconnected) or O(remember).
      type: list
      elements: dict
after:
  description: The state that was reached, or in check mode would be.
  returned: always
  type: dict
  contains: *state
power_method:
  description:
    - How the power state was reached.
    - V(none), V(shutdown) (the guest shut down), V(poweroff) or V(poweron).
  returned: success
  type: str
power_reason:
  description: Why that way, in words.
  returned: success
  type: str
  sample: the guest shut down in 42 seconds
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import argspec, client, find, source_state


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    wanted = source_state.Wanted(
        power=p["power"],
        shutdown_timeout=p["shutdown_timeout"],
        on_timeout=p["on_timeout"],
        note=p["note"],
        network=p["network"],
        remember=p["remember"],
        refuse_states=tuple(p["refuse_states"] or ()),
        attributes={name: "" if value is None else str(value) for name, value in (p["attributes"] or {}).items()},
    )
    with client.connect(p) as session:
        vm = find.find_vm(session, p["vm"])
        result = source_state.apply(session, vm, wanted, check=call.check)
    if result["power_method"] == "poweroff" and p["power"] == "shutdown":
        call.warn(f"{vm.name}: {result['power_reason']}")
    result["vm"] = {"name": vm.name, "moref": vm.moref, "instance_uuid": vm.instance_uuid, "path": vm.path}
    if call.diff:
        result["diff"] = {"before": result["before"], "after": result["after"]}
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            vm={"type": "str", "required": True},
            power={"type": "str", "choices": ["unchanged", "shutdown", "off", "on"], "default": "unchanged"},
            shutdown_timeout={"type": "int", "default": 600},
            on_timeout={"type": "str", "choices": ["fail", "poweroff"], "default": "fail"},
            network={"type": "str", "choices": ["unchanged", "disconnected"], "default": "unchanged"},
            remember={"type": "bool", "default": False},
            refuse_states={"type": "list", "elements": "str", "default": []},
            note={"type": "str"},
            attributes={"type": "dict", "default": {}},
        ),
        work,
    )


if __name__ == "__main__":
    main()
