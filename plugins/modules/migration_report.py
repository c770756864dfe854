#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_report
short_description: Tell how a migration went
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Prints a table of all VMs and disks, and writes it as a page that needs no network and as JSON.
  - Everything happens on the controller; nothing runs on the target.
  - The page is one file without a script; it can be read in light and dark, on a phone and on paper. Above some 2.6 MB it gets leaner, machine
    by machine; the JSON file always has everything.
  - Where the folder O(html)C(.d) lies beside the page, in which M(ferry.vmware.migration_phase) and the long tasks have written what each VM
    did and when, the page shows that too, with a timeline and the throughput. The results enter that folder, so that a later run over some of
    the VMs still shows the whole wave (the group that C(ferry_wave) names).
options:
  results:
    description:
      - One entry per VM, as the role P(ferry.vmware.migrate#role) keeps it in C(migrate_result).
      - Further keys of an entry and of its disks are taken over into the JSON file as they are.
      - Either this or O(slices) is required.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the VM.
        type: str
        required: true
      state:
        description:
          - What was done. V(precopied) means that it runs on and most of it has been copied, V(mended) that the VM had been migrated before and
            something altered since was put right, V(rolled_back) that it was brought back to its source.
        type: str
        choices: [migrated, precopied, mended, rolled_back, unchanged, failed]
        required: true
      source_uuid:
        description: Instance UUID of the VM at its source.
        type: str
      server:
        description: The server that it has become, with C(id) and C(name).
        type: dict
      seconds:
        description: Time that the VM took, in seconds.
        type: float
      disks:
        description:
          - One entry per disk, with C(label), C(capacity), C(bytes_read), C(bytes_written), C(bytes_skipped), C(bytes_resumed),
            C(seconds), C(digest), C(volume_id), C(verified) and C(repaired), as M(ferry.vmware.vm_disk_copy) returns them.
        type: list
        elements: dict
      cycles:
        description: The cycles of a VM that was copied while it ran, as M(ferry.vmware.vm_precopy) returns them.
        type: list
        elements: dict
      downtime:
        description:
          - How long the VM was away, in seconds, as C(seconds); of one that moved warm also C(shutdown), C(copy), C(predicted), C(budget),
            C(changed_bytes), C(outside_checked) and C(outside_wrong).
        type: dict
      concerns:
        description: What a check before has found, as M(ferry.vmware.vm_precheck) returns it.
        type: list
        elements: dict
      drift:
        description: What differed from what was agreed, a text or a dictionary each.
        type: list
        elements: raw
      errors:
        description: What went wrong, a text each, or a dictionary as the modules return it in C(failure).
        type: list
        elements: raw
  slices:
    description:
      - Reports to make one of, instead of O(results), paths on the controller. Each is a JSON file that this module has written, the folder
        C(.d) beside a page, or a folder with such files and folders.
      - Of a VM that is in several, the last word counts. A run that found it V(unchanged) does not hide the one that moved it.
      - What cannot be read is a warning.
    type: list
    elements: path
  title:
    description: What stands above the report.
    type: str
    default: Migration report
  concerns:
    description: What a check before has found of the wave as a whole, as M(ferry.vmware.vm_precheck) returns it in C(wave_concerns).
    type: list
    elements: dict
  language:
    description: Language of the page. What servers and modules have said stays as it is.
    type: str
    choices: [en, ja]
    default: en
  html:
    description:
      - The page to write, a path on the controller. Missing folders are made.
      - Where it cannot be written there is a warning, not a failure, since the VMs have moved.
    type: path
  json:
    description:
      - The JSON file to write, a path on the controller. Missing folders are made.
    type: path
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode the table is shown and no file is written.
  diff_mode:
    support: N/A
    details:
      - The report tells of changes and is none.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false), though the files are written anew. They carry the time of the run and are not part of
        what a playbook is to bring about.
seealso:
  - module: ferry.vmware.vm_disk_copy
  - module: ferry.vmware.migration_phase
"""

EXAMPLES = r"""
- name: Tell how the wave went
  ferry.vmware.migration_report:
    title: Wave 3, databases
    results: "{{ ansible_play_hosts_all | map('extract', hostvars, 'migrate_result') | list }}"
    html: reports/wave3.html
    json: reports/wave3.json
  run_once: true
  delegate_to: localhost

- name: Make one report of those of the slices
  ferry.vmware.migration_report:
    title: Wave 3, databases
    slices: [/srv/reports/wave3]
    html: /srv/reports/wave3.html
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
totals:
  description: Sums over all VMs.
  returned: success
  type: dict
  contains:
    vms:
      description: Number of VMs.
      type: int
    disks:
      description: Number of disks.
      type: int
    capacity:
      description: Size of all disks in bytes.
      type: int
    bytes_read:
      description: Bytes read from the source.
      type: int
    bytes_written:
      description: Bytes written to the target.
      type: int
    bytes_skipped:
      description: Bytes that needed no writing.
      type: int
    bytes_resumed:
      description: Bytes that an earlier run had written.
      type: int
    seconds:
      description: Sum of the times of all disks, in seconds.
      type: float
    repaired:
      description: Chunks that verification found different and wrote again.
      type: int
    states:
      description: Number of VMs by state.
      type: dict
  sample:
    vms: 2
    disks: 3
    capacity: 3221225472
    bytes_read: 1288490188
    bytes_written: 1181116006
    bytes_skipped: 2040109466
    bytes_resumed: 0
    seconds: 21.4
    repaired: 0
    states: {migrated: 2, precopied: 0, mended: 0, rolled_back: 0, unchanged: 0, failed: 0}
unfinished:
  description: Names of the VMs that were begun and of which none of O(slices) has a last word.
  returned: when O(slices) was given
  type: list
  elements: str
  sample: []
failed_vms:
  description: Names of the VMs that failed.
  returned: success
  type: list
  elements: str
  sample: []
html:
  description: The page that was written.
  returned: when O(html) was given and could be written
  type: str
  sample: /home/ops/reports/wave3.html
json:
  description: The JSON file that was written.
  returned: when O(json) was given and could be written
  type: str
  sample: /home/ops/reports/wave3.json
"""
