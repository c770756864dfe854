#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_cbt_changed_areas
short_description: The areas of a VM's disks that have changed since a changeId, or that are allocated
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Finds the VM and its disks, takes a snapshot where none is named, asks C(QueryChangedDiskAreas) until each disk is covered to
    its end, and removes the snapshot again, also when something fails.
  - vSphere may answer in parts. All of them are asked for, and each is checked before it is believed. An answer that does not move
    forward, or areas that are empty, overlap, descend or lie outside the disk, are errors.
  - RV(disks[].change_id) is the changeId of the state in the snapshot. Give it as O(change_id) the next time, to get what has changed in
    between.
options:
  vm:
    description:
      - The VM, given by name, inventory path (V(/DC0/vm/folder/name), or only its end), instance UUID, BIOS UUID or MoRef.
    type: str
    required: true
  disk:
    description:
      - The disk, by label (C(Hard disk 1)), key (V(2000)), UUID or place (C(scsi0:0)).
      - Without this option all disks of the VM.
    type: str
  snapshot:
    description:
      - A snapshot that is there, by name or MoRef. It is never removed.
      - Without this option one is taken, without the VM's memory, and removed again.
    type: str
  keep_snapshot:
    description:
      - Keep the snapshot that was taken, for whoever is to read the areas' bytes. It is then yours to remove, by
        RV(snapshot.moref).
    type: bool
    default: false
  quiesce:
    description:
      - Whether the guest's file systems are frozen for the moment of a snapshot that is taken. Areas do not need that; the bytes of
        a kept snapshot may.
      - V(auto) does without where the guest cannot, which RV(snapshot.remark) then says. V(required) fails then.
      - It needs VMware Tools. In Windows they use VSS, so that applications write out what they have, too; elsewhere file systems are
        frozen, and scripts of the guest's own can do more.
    type: str
    choices: [auto, required, never]
    default: never
  change_id:
    description:
      - Areas that have changed since this changeId, which belongs to one disk. Where the VM has several, name the disk in O(disk), or give
        a dictionary of changeIds by disk.
      - V(*) asks for the areas that are allocated. That is a hint, good on VMFS where tracking was enabled while the VM had no
        snapshots. Elsewhere it may fail, or answer one area of the whole disk.
    type: raw
    default: "*"
  start_offset:
    description:
      - Byte at which to begin.
    type: int
    default: 0
  dest:
    description:
      - File on the machine that runs the module, to which the areas are written, for disks with more than fit into a result. It is put in
        place whole, with mode 0600.
      - With several disks each gets a file of its own, with the disk's key before the extension (C(areas.jsonl) becomes
        C(areas-2000.jsonl)). RV(disks[].dest) has the name.
    type: path
  dest_format:
    description:
      - V(jsonl) has a line C({"start":0,"length":65536}) for each area.
      - V(extentlist) has a line C(0 65536) for each, as nbdkit's extentlist filter reads it. There, what is not listed is a hole that reads
        as zeroes. That is right for the areas of V(*), and wrong for those that have changed since a changeId unless whoever copies leaves
        holes of the target alone; see the guide.
    type: str
    choices: [jsonl, extentlist]
    default: jsonl
  timeout:
    description:
      - Seconds for the removal of the snapshot and the consolidation of the disks.
    type: int
    default: 3600
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
attributes:
  check_mode:
    support: full
    details:
      - Takes no snapshot and writes no file. With O(snapshot) it asks all the same, since asking changes nothing.
      - Without O(snapshot) it says in RV(would) what it would do; the areas are not known then.
  diff_mode:
    support: none
    details: What may change are a file of areas and a snapshot.
  idempotency:
    support: partial
    details: Asking changes nothing. A task with O(keep_snapshot=true) and no O(snapshot) takes a snapshot each time.
notes:
  - Changed block tracking must be on; see M(ferry.vmware.vm_cbt).
  - Needs the privileges C(VirtualMachine.State.CreateSnapshot), C(VirtualMachine.State.RemoveSnapshot) and
    C(VirtualMachine.Provisioning.DiskRandomRead).
  - A snapshot that a killed run of this module or of M(ferry.vmware.vm_cbt) has left is found by its tag and removed. One that was left by
    another machine is removed an hour after it was taken.
seealso:
  - module: ferry.vmware.vm_cbt
  - module: ferry.vmware.vm_disk_copy
  - ref: The guide about changed areas <ansible_collections.ferry.vmware.docsite.changed_areas>
    description: What the areas are good for.
"""

EXAMPLES = r"""
- name: What is allocated on the first disk
  ferry.vmware.vm_cbt_changed_areas:
    hostname: vcenter.example.com
    username: administrator@vsphere.local
    password: "{{ vcenter_password }}"
    vm: db01
    disk: Hard disk 1
  register: full

- name: What has changed since then
  ferry.vmware.vm_cbt_changed_areas:
    vm: db01
    disk: Hard disk 1
    change_id: "{{ full.disks[0].change_id }}"

- name: The changes of two disks, as files
  ferry.vmware.vm_cbt_changed_areas:
    vm: db01
    change_id:
      Hard disk 1: 52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81
      scsi0:1: 52 18 2a 7f 5e 3c 11 a0-95 1a 0f 4d 27 66 c8 31/12
    dest: /var/lib/backup/db01.jsonl
"""

RETURN = r"""
snapshot:
  description: The snapshot that was asked about. Null in check mode where one would have been taken.
  type: dict
  returned: success
  contains:
    moref:
      description: Its MoRef. It is gone unless V(kept) is true.
      type: str
    name:
      description: Its name.
      type: str
    created:
      description: When it was taken, by the server's clock.
      type: str
    quiesced:
      description: Whether the guest was quiesced.
      type: bool
    remark:
      description: What to know of how it was taken, or null.
      type: str
    taken:
      description: Whether this task took it.
      type: bool
    kept:
      description: Whether it is still there.
      type: bool
disks:
  description: One entry for each disk.
  type: list
  elements: dict
  returned: success
  contains:
    key:
      description: Key of the disk.
      type: int
      sample: 2000
    label:
      description: Its label.
      type: str
      sample: Hard disk 1
    capacity:
      description: Its size in the snapshot, in bytes.
      type: int
    change_id:
      description: The changeId of its state in the snapshot, for the next question. Null in check mode where no snapshot was named.
      type: str
      sample: 52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/82
    start_offset:
      description: Byte at which the question began.
      type: int
    length:
      description: Bytes from there to the end of the disk.
      type: int
    areas:
      description: The areas, ascending. Left out where there are more than 10,000; O(dest) has them all.
      type: list
      elements: dict
      returned: with at most 10,000 areas
      contains:
        start:
          description: First byte.
          type: int
        length:
          description: Bytes.
          type: int
    area_count:
      description: Number of areas.
      type: int
    changed_bytes:
      description: Bytes in all areas.
      type: int
    dest:
      description: The file that has the areas.
      type: str
      returned: with O(dest), not in check mode
removed_snapshots:
  description: Names of snapshots that a killed run had left, and that were (or in check mode would be) removed.
  type: list
  elements: str
  returned: success
would:
  description: What would be done.
  type: str
  returned: in check mode, without O(snapshot)
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
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""

from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import area_query, argspec, client, find, steady


def work(call: edge.Call) -> dict[str, Any]:
    p = call.params
    query = area_query.Query(
        disk=p["disk"],
        snapshot=p["snapshot"],
        keep_snapshot=p["keep_snapshot"],
        quiesce=p["quiesce"],
        change_id=p["change_id"] if isinstance(p["change_id"], dict) else str(p["change_id"]),
        start=p["start_offset"],
        dest=p["dest"],
        form=p["dest_format"],
        timeout=float(p["timeout"]),
    )
    with steady.ending_tidily(), client.connect(p) as session:
        vm = find.find_vm(session, p["vm"])
        result = area_query.run(session, vm, query, check=call.check)
    result["vm"] = {"name": vm.name, "moref": vm.moref, "instance_uuid": vm.instance_uuid, "path": vm.path}
    for row in result["disks"]:
        if row["area_count"] > area_query.MOST_SHOWN and not query.dest:
            call.warn(f"{vm.name}, {row['label']}: {row['area_count']} areas are not in the result; give dest to have them in a file.")
    if result["snapshot"] and result["snapshot"]["remark"]:
        call.warn(f"{vm.name}: {result['snapshot']['remark']}")
    return result


def main() -> None:
    edge.run(
        argspec.connection_spec(
            env_fallback,
            vm={"type": "str", "required": True},
            disk={"type": "str"},
            snapshot={"type": "str"},
            keep_snapshot={"type": "bool", "default": False},
            quiesce={"type": "str", "choices": ["auto", "required", "never"], "default": "never"},
            change_id={"type": "raw", "default": "*"},
            start_offset={"type": "int", "default": 0},
            dest={"type": "path"},
            dest_format={"type": "str", "choices": ["jsonl", "extentlist"], "default": "jsonl"},
            timeout={"type": "int", "default": 3600},
        ),
        work,
    )


if __name__ == "__main__":
    main()
