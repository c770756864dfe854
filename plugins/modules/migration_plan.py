#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_plan
short_description: Tell beforehand how a migration will go
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes the plan of a wave out of what was read on both sides. It has the disks with what is to be read of them, transports, volumes, ports,
    flavors, quotas before and after, the time of each phase, the downtime of each VM, the end of the wave, and all concerns.
  - Prints it as a table, and writes it as a page that needs no network and as JSON.
  - Holds the wave to a plan that was saved, with O(hold_to).
  - Everything happens on the controller. Nothing is asked of a server, and nothing is changed.
  - The role P(ferry.vmware.plan#role) reads what is needed and calls this.
options:
  hosts:
    description: Inventory names of the VMs, in the order in which they shall go.
    type: list
    elements: str
    required: true
  facts:
    description: Their facts, as M(ferry.vmware.vm_info) returns them, in the order of O(hosts).
    type: list
    elements: dict
    required: true
  entries:
    description: Their entries of RV(ferry.vmware.landing_plan#module:vms), in the order of O(hosts).
    type: list
    elements: dict
    required: true
  terms:
    description:
      - What was asked for with each, in the order of O(hosts). Used are C(conversion_host), C(strategy), C(phases), C(transport), C(vddk),
        C(verify), C(throughput) (bytes per second that were stated), C(landing_seconds), C(shutdown_seconds), C(downtime_budget),
        C(outside_sample), C(interval), C(min_cycles) and C(cutover_at).
    type: list
    elements: dict
    required: true
  machines:
    description: What M(ferry.vmware.copy_info) returned, by conversion host.
    type: dict
    default: {}
  usage:
    description: What M(ferry.vmware.vm_disk_usage) returned.
    type: dict
    default: {}
  precheck:
    description: What M(ferry.vmware.vm_precheck) returned.
    type: dict
    default: {}
  landing:
    description: What M(ferry.vmware.landing_plan) returned.
    type: dict
    default: {}
  forks:
    description: VMs at once, by default the forks of Ansible.
    type: int
  title:
    description: What stands above the plan.
    type: str
    default: Migration plan
  html:
    description:
      - The page to write, a path on the controller. Missing folders are made.
      - Where it cannot be written there is a warning, not a failure.
    type: path
  json:
    description:
      - The file to write, a path on the controller. Missing folders are made. O(hold_to) takes it later.
    type: path
  hold_to:
    description:
      - A plan that was saved with O(json). What differs is returned in RV(drift).
      - It is an error where it is damaged, of another version or of another vCenter, whatever O(on_drift) says.
      - It counts as too old where a file of the inventory was changed after it was made.
    type: path
  on_drift:
    description: Whether differences, and a plan that is too old, fail the task or are said only.
    type: str
    choices: [stop, warn]
    default: stop
  part:
    description:
      - Whether O(hosts) are a part of the planned wave only, such as a slice of a job in AWX. VMs that are not among them are not missed then.
    type: bool
    default: false
  language:
    description: Language of the page.
    type: str
    choices: [en, ja]
    default: en
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details:
      - The files are written in check mode, too. They are what a plan is made for, and no part of what a playbook is to bring about.
  diff_mode:
    support: N/A
    details:
      - Changes nothing at any time.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false), though the files are written anew with the time of the run.
seealso:
  - module: ferry.vmware.landing_plan
  - module: ferry.vmware.vm_precheck
  - module: ferry.vmware.migration_report
"""

EXAMPLES = r"""
- name: Plan with what was read before
  ferry.vmware.migration_plan:
    title: Wave 3, databases
    hosts: "{{ ansible_play_hosts_all }}"
    facts: "{{ source.vms }}"
    entries: "{{ landing.vms }}"
    terms: "{{ ansible_play_hosts_all | map('extract', hostvars, 'migrate_terms') | list }}"
    landing: "{{ landing }}"
    html: plans/wave3.html
    json: plans/wave3.json
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
plan:
  description:
    - The plan, as it stands in the file. Sizes are in bytes, times in seconds.
    - C(vms) has for each VM C(disks) (with C(reads), the bytes that are to be read, and C(changed_basis), what C(changed) rests on), C(volumes),
      C(ports), C(flavor), C(phases) (C(name), C(seconds), C(bytes), C(basis), C(begins)), C(begins) and C(ends), C(downtime_seconds) and
      C(concerns).
    - A C(basis) is V(measured), V(stated) or V(guess).
  returned: success
  type: dict
  sample: {version: 1, made: "2026-11-21T20:00:00+09:00", title: Wave 3, wave: [db01], vms: [], quotas: [], totals: {}, concerns: []}
totals:
  description: Sums over the wave, with C(seconds) (to its end; null where a read budget never lets it end) and C(downtime) (the longest).
  returned: success
  type: dict
drift:
  description: In what the wave differs from O(hold_to), each with C(vm), C(field), C(was), C(now) and C(text).
  returned: success
  type: list
  elements: dict
html:
  description: The page that was written.
  returned: when O(html) was given and could be written
  type: str
  sample: /home/ops/plans/wave3.html
json:
  description: The file that was written.
  returned: when O(json) was given and could be written
  type: str
  sample: /home/ops/plans/wave3.json
failure:
  description: What went wrong, as data.
  returned: failure
  type: dict
"""
