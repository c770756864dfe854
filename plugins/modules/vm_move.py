#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_move
short_description: Move a VM to another host or datastore, in the gentlest way that works
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Moves a VM, or single disks of it, inside one vCenter. Every way has one O(method).
  - Makes all checks first and reports every one of them in RV(checks), also when one has failed. Where the server has its own checks
    (C(CheckRelocate_Task), C(QueryVMotionCompatibilityEx_Task)), these are asked too.
  - Without O(host), all hosts of the VM's datacenter (or of O(cluster)) are judged, and the best of those that fit is taken. They are in
    RV(candidates), each with the reasons why it does not fit.
  - Power state, network cards and their order and MAC addresses, notes, custom attributes, resource pool and folder survive. What the API
    loses is put back, see RV(put_back).
  - When a move fails or takes too long, the VM is read again, and the error says where it is. A run that was killed is continued by the next.
    A move that is under way is waited for, and a VM that was shut down for its move is booted.
options:
  vm:
    description:
      - The VM, given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
      - With O(method=failover) also a VM that a killed run has left unregistered.
    type: str
    required: true
  method:
    description:
      - V(hot) moves a running VM to another host while it runs. Without O(datastore), that host needs all of the VM's datastores.
      - V(cold) does the same with a VM that is powered off or suspended.
      - V(storage) moves the VM's files to O(datastore), or only O(disks), and leaves the VM on its host, running or not.
      - V(move) shuts the VM down, takes its disks and configuration to a datastore of the other host (a local one first, unless O(datastore)
        says which), and boots it there. A VM that is off stays off.
      - V(failover) registers the VM on a healthy host from shared storage, when its host is dead, and boots it. It is refused where the
        host may be alive, and where vSphere HA protects the cluster.
      - V(auto) takes the gentlest that works, and RV(methods) says why the others do not. It never takes V(failover).
    type: str
    choices: [auto, hot, cold, storage, move, failover]
    default: auto
  host:
    description:
      - The ESXi host to move to, by name, C(cluster/name), inventory path or MoRef.
    type: str
  datastore:
    description:
      - The datastore for the VM's files, or for O(disks), by name or MoRef.
    type: str
  disks:
    description:
      - Disks that are moved alone, each by label (C(Hard disk 1)), key (V(2000)), UUID or place (C(scsi0:0)). All others stay.
    type: list
    elements: str
    default: []
  format:
    description:
      - The format that the disks get. By default each keeps its own.
    type: str
    choices: [thin, thick, eagerZeroedThick]
  pool:
    description:
      - The resource pool to be in, by name, path or MoRef. By default the present one, and in another cluster the one of the same path, else
        the cluster's own.
    type: str
  cluster:
    description:
      - The cluster to be in, by name or MoRef. With O(host), the cluster in which that host is looked for.
    type: str
  folder:
    description:
      - The folder to be in, by inventory path (V(/DC0/vm/prod)), by its part below C(vm) (V(prod)) or MoRef. By default the present one.
    type: str
  network_map:
    description:
      - Networks on the target by those that the VM is in now, both by name. A network that is not named is looked for by its name.
    type: dict
    default: {}
  constraints:
    description:
      - Which VMs belong together, apart, or on which hosts, as M(ferry.vmware.vm_placement) has them. The rules of the clusters count as well.
    type: list
    elements: dict
    default: []
  shutdown_timeout:
    description: Seconds that the guest has to shut down with O(method=move).
    type: int
    default: 600
  on_timeout:
    description:
      - What to do when the guest has not shut down within O(shutdown_timeout), or cannot be asked to.
      - V(fail) leaves it running where it is, V(poweroff) powers it off.
    type: str
    choices: [fail, poweroff]
    default: fail
  timeout:
    description: Seconds for the relocation itself. After that it is canceled.
    type: int
    default: 3600
  reserve_percent:
    description: Part of a datastore that has to stay free.
    type: float
    default: 5
  fenced:
    description:
      - With O(method=failover), what came out of cutting the dead host off from power (fencing, by Redfish or IPMI).
      - V(false) refuses the failover. Without this option nothing is known of it, and the lock on the VM's files is the last guard.
    type: bool
  state_dir:
    description:
      - With O(method=failover), the folder on this machine in which everything that vCenter alone knows of the VM is kept until it is put
        back. It must outlive the run. By default C(~/.local/state/ferry/failover).
    type: path
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotency:
    support: partial
    details: Without O(host), O(cluster) and O(datastore) the VM is to leave its host, each time.
notes:
  - Needs the privileges C(Resource.HotMigrate), C(Resource.ColdMigrate), C(Resource.AssignVMToPool), C(Datastore.AllocateSpace) and
    C(VirtualMachine.Config.*); for V(move) also C(Global.ManageCustomFields) and C(Global.SetCustomField), since the custom attribute
    C(ferry.move) says of a VM that is off for its move that it has to be booted; for V(failover)
    C(VirtualMachine.Inventory.Register) and C(VirtualMachine.Inventory.Unregister).
seealso:
  - module: ferry.vmware.vm_placement
"""

EXAMPLES = r"""
- name: Away from this host, the best way there is
  ferry.vmware.vm_move:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    vm: web01
    host: esx2.example.com

- name: One disk to a faster datastore
  ferry.vmware.vm_move:
    vm: db01
    method: storage
    disks: [Hard disk 2]
    datastore: nvme-01
    format: eagerZeroedThick

- name: Between two hosts that share nothing
  ferry.vmware.vm_move:
    vm: VM-02
    method: move
    host: esx2.example.com
    shutdown_timeout: 900
    on_timeout: poweroff

- name: Its host is dead, and was powered off by Redfish
  ferry.vmware.vm_move:
    vm: VM-02
    method: failover
    fenced: true
"""

RETURN = r"""
method:
  description: The way that was (or in check mode would be) taken. V(none) where the VM is there already.
  type: str
  returned: always
  sample: hot
why:
  description: Why that one, in words.
  type: str
  returned: always
before:
  description: Where and what the VM was.
  type: dict
  returned: always
  contains: &where
    name:
      description: Its name.
      type: str
    moref:
      description: Its MoRef. A failover gives it another one.
      type: str
    instance_uuid:
      description: Its instance UUID.
      type: str
    host:
      description: Its host.
      type: str
    cluster:
      description: The host's cluster.
      type: str
    power:
      description: V(on), V(off) or V(suspended).
      type: str
    vmx_path:
      description: The configuration file.
      type: str
    folder:
      description: Inventory path of its folder.
      type: str
    pool:
      description: MoRef of its resource pool.
      type: str
    datastores:
      description: The datastores of its files.
      type: list
      elements: str
    disks:
      description: Key, label, path, datastore and format of each disk.
      type: list
      elements: dict
    nics:
      description: Label, MAC address and network of each network card, in their order.
      type: list
      elements: dict
    annotation:
      description: Its notes.
      type: str
    attributes:
      description: Its custom attributes.
      type: dict
after:
  description: The same afterwards, or in check mode as far as it can be told.
  type: dict
  returned: always
  contains: *where
checks:
  description: Every check that was made.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: Which one.
      type: str
      sample: datastore.space
    passed:
      description: Whether it passed. One that has not forbids the move.
      type: bool
    detail:
      description: What was found.
      type: str
    skipped:
      description: True where the server does not have this check, so that nothing was found.
      type: bool
candidates:
  description: The hosts that were thought of, the best first.
  type: list
  elements: dict
  returned: always
  contains:
    host:
      description: The host.
      type: str
    fits:
      description: Whether the VM can go there.
      type: bool
    reasons:
      description: Why not.
      type: list
      elements: str
methods:
  description: The methods that were thought of, with C(method), C(fits) and C(reasons).
  type: list
  elements: dict
  returned: always
mb:
  description: MiB that are (or would be) written.
  type: int
  returned: always
put_back:
  description: What the server had lost and was put back, for example V(folder).
  type: list
  elements: str
  returned: always
record:
  description: With O(method=failover), the file in which everything that vCenter alone knew of the VM is kept.
  type: str
  returned: with failover
failure:
  description: What went wrong, as data. Its C(left) says where the VM is.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import (
    argspec,
    client,
    failover,
    find,
    move,
    move_plan,
    move_rules,
    steady,
)


def wish_of(p: dict[str, Any]) -> move_plan.Wish:
    return move_plan.Wish(
        method=p["method"],
        host=p["host"],
        datastore=p["datastore"],
        disks=tuple(p["disks"] or ()),
        format=p["format"],
        pool=p["pool"],
        cluster=p["cluster"],
        folder=p["folder"],
        network_map={str(k): str(v) for k, v in (p["network_map"] or {}).items()},
        shutdown_timeout=float(p["shutdown_timeout"]),
        on_timeout=p["on_timeout"],
        timeout=float(p["timeout"]),
        reserve_percent=float(p["reserve_percent"]),
    )


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    wish, forbids = wish_of(p), move_rules.forbids_of(p["constraints"])
    with steady.ending_tidily(), client.connect(p) as session:
        move.need_vcenter(session)
        if wish.method == "failover":
            options = failover.Options(state_dir=p["state_dir"], fenced=p["fenced"])
            result = failover.one(session, p["vm"], wish, options, check=call.check, forbids=forbids, told=call.warn)
        else:
            vm = find.find_vm(session, p["vm"])
            result = move.move(session, vm, wish, check=call.check, forbids=forbids, told=call.warn)
    if call.diff:
        result["diff"] = {"before": result["before"], "after": result["after"]}
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            vm={"type": "str", "required": True},
            method={"type": "str", "choices": list(move_plan.METHODS), "default": "auto"},
            host={"type": "str"},
            datastore={"type": "str"},
            disks={"type": "list", "elements": "str", "default": []},
            format={"type": "str", "choices": list(move_plan.FORMATS)},
            pool={"type": "str"},
            cluster={"type": "str"},
            folder={"type": "str"},
            network_map={"type": "dict", "default": {}},
            constraints={"type": "list", "elements": "dict", "default": []},
            shutdown_timeout={"type": "int", "default": 600},
            on_timeout={"type": "str", "choices": ["fail", "poweroff"], "default": "fail"},
            timeout={"type": "int", "default": 3600},
            reserve_percent={"type": "float", "default": 5},
            fenced={"type": "bool"},
            state_dir={"type": "path"},
        ),
        work,
    )


if __name__ == "__main__":
    main()
