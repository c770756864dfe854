#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_precopy
short_description: Copy a running virtual machine in cycles until the rest fits a downtime
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Runs M(ferry.vmware.vm_disk_copy) again and again while the guest works. The first cycle copies the disks, each further one
    what has changed since the snapshot before.
  - After each cycle it tells how fast the disks change, how fast they are copied, and which downtime a cutover would take now.
    It ends when that is within O(downtime_budget), at a set time, after so many cycles, or when it is clear that more cycles
    will not help; then it says which budget, churn or speed would do.
  - Killed at any moment, the same task goes on inside the disk. Each cycle removes its snapshot.
  - Changed block tracking must be on (M(ferry.vmware.vm_cbt)); without it each cycle compares everything.
options:
  vm:
    description: The VM, given by name, inventory path, instance UUID, BIOS UUID or MoRef.
    type: str
    required: true
  disks:
    description: What goes where, as O(ferry.vmware.vm_disk_copy#module:disks) has it.
    type: list
    elements: dict
    required: true
  downtime_budget:
    description: Seconds for which the machine may be away, from the order to shut down to its answer at the new place.
    type: float
    default: 300
  shutdown_seconds:
    description: Seconds to reckon with for the guest's shutdown. It goes on writing meanwhile.
    type: float
    default: 30
  landing_seconds:
    description: Seconds to reckon with from the last byte to the machine's answer at the new place.
    type: float
    default: 0
  outside_sample:
    description: Percent of the disks that the cutover will compare outside the changed areas; it counts as downtime.
    type: float
    default: 1
  verify_first:
    description:
      - What is read back and compared in the first cycle of a run, C(none), C(sample) or C(full). By default O(verify).
      - It costs no downtime there.
    type: str
  verify_whole:
    description: Whether the cutover will read the whole target back (C(verify=full)); it counts as downtime.
    type: bool
    default: false
  interval:
    description:
      - Seconds between two cycles, for the sake of the source.
      - Not waited for where a pause would make a delta larger that is to become smaller.
    type: float
    default: 60
  until:
    description:
      - Date and time (ISO 8601) at which the cycles end, whatever is predicted. Without an offset it is the controller's local time.
    type: str
  keep_on:
    description: Go on until O(until) also when the rest fits already, so that it is small then. The task ends at that time.
    type: bool
    default: false
  max_cycles:
    description: Cycles at most in this run.
    type: int
    default: 100
  min_cycles:
    description: Cycles at least after the full copy, before the rest may be found to fit.
    type: int
    default: 1
  diverging_after:
    description: Cycles with a known rate of change after which it may be said that this will not converge.
    type: int
    default: 3
  on_diverging:
    description: Whether to stop then (the task does not fail, see RV(outcome)), or to go on in the hope of a quieter hour.
    type: str
    choices: [stop, go_on]
    default: stop
  max_failures:
    description: Failed cycles in a row that are tried again. The first cycle and what cannot be helped by trying fail at once.
    type: int
    default: 2
  quiesce:
    description: See O(ferry.vmware.vm_disk_copy#module:quiesce).
    type: str
  transport:
    description: See O(ferry.vmware.vm_disk_copy#module:transport).
    type: str
  vddk:
    description: See O(ferry.vmware.vm_disk_copy#module:vddk).
    type: dict
  nbd_tls_certificates:
    description: See O(ferry.vmware.vm_disk_copy#module:nbd_tls_certificates).
    type: path
  bad_builds:
    description: See O(ferry.vmware.vm_disk_copy#module:bad_builds).
    type: list
    elements: str
  budget:
    description: Read budgets, see O(ferry.vmware.vm_disk_copy#module:budget).
    type: dict
  workers:
    description: See O(ferry.vmware.vm_disk_copy#module:workers).
    type: int
  chunk_size:
    description: See O(ferry.vmware.vm_disk_copy#module:chunk_size).
    type: int
  verify:
    description: See O(ferry.vmware.vm_disk_copy#module:verify).
    type: str
  ledger:
    description: See O(ferry.vmware.vm_disk_copy#module:ledger).
    type: path
  patience:
    description: See O(ferry.vmware.vm_disk_copy#module:patience).
    type: int
  root_helper:
    description: See O(ferry.vmware.vm_disk_copy#module:root_helper).
    type: str
  attach:
    description: See O(ferry.vmware.vm_disk_copy#module:attach).
    type: str
  instance:
    description: See O(ferry.vmware.vm_disk_copy#module:instance).
    type: str
  take_over:
    description: See O(ferry.vmware.vm_disk_copy#module:take_over).
    type: bool
extends_documentation_fragment:
  - ferry.vmware.attributes
  - ferry.vmware.vsphere
  - ferry.vmware.openstack
  - ferry.vmware.long_task
attributes:
  check_mode:
    support: full
    details: Says what the first cycle would copy, and what ends the cycles.
  diff_mode:
    support: none
    details: What changes are bytes.
  idempotency:
    support: partial
    details: A guest that writes changes its disks between two runs. One that does not leaves nothing to do.
seealso:
  - module: ferry.vmware.vm_disk_copy
  - module: ferry.vmware.vm_cbt
"""

EXAMPLES = r"""
- name: Copy while it runs, until ten minutes of downtime are enough
  ferry.vmware.vm_precopy:
    vm: db01
    cloud: prod
    downtime_budget: 600
    shutdown_seconds: 120
    disks:
      - disk: Hard disk 1
        dest:
          volume: 6f1a6a3e-3a5c-4a8e-9a55-1f1a0a6f8c11
  register: precopy

- name: Keep the copy warm until the window begins
  ferry.vmware.vm_precopy:
    vm: db01
    until: "2026-11-22T02:00:00+09:00"
    keep_on: true
    interval: 900
    disks:
      - dest:
          path: /srv/images/db01.raw
"""

RETURN = r"""
outcome:
  description:
    - V(fits) (the rest fits the budget), V(time), V(cycles), V(diverging) (more cycles will not help), or in check mode V(planned).
  returned: success
  type: str
reason:
  description: The same in a sentence, with its figures.
  returned: success
  type: str
  sample: a downtime of about 41 s is predicted, 60 s are allowed
cycles:
  description: One entry per cycle of this run, also when a later one failed.
  returned: always
  type: list
  elements: dict
  contains:
    cycle:
      description: Its number in this run.
      type: int
    time:
      description: When it began (UTC).
      type: str
    mode:
      description: V(full), V(incremental), or V(compare) where tracking could not be trusted.
      type: str
    changed_bytes:
      description: Bytes that had changed since the snapshot before.
      type: int
    bytes_read:
      description: Bytes read from the source.
      type: int
    bytes_written:
      description: Bytes written to the targets.
      type: int
    since:
      description: Seconds since the snapshot before. Null in the first cycle of a run.
      type: float
    copy_seconds:
      description: Seconds in which the slowest disk was copied and verified.
      type: float
    seconds:
      description: Seconds for all of it.
      type: float
    churn:
      description: Bytes per second that changed.
      type: int
    throughput:
      description: Bytes per second that were copied.
      type: int
    predicted_downtime:
      description: Seconds that a cutover right after it would take.
      type: float
    disks:
      description: What was done for each disk.
      type: list
      elements: dict
forecast:
  description: What the last cycle led to.
  returned: success
  type: dict
  contains:
    churn:
      description: Bytes per second, the higher of the last cycle and the recent mean.
      type: int
    throughput:
      description: Bytes per second, the lower of the two.
      type: int
    fixed:
      description: Seconds of a cycle in which nothing is copied.
      type: float
    delta:
      description: Bytes of the last delta.
      type: int
    downtime:
      description: Seconds of downtime, were it now.
      type: float
    limit:
      description: Seconds of downtime that more cycles without pauses would come to. Null where there is no limit or it is not known.
      type: float
    diverges:
      description: Whether the guest changes its disks faster than they are copied.
      type: bool
    needs_budget:
      description: With RV(outcome=diverging), the seconds that would do.
      type: float
    needs_churn:
      description: With RV(outcome=diverging), the churn in bytes per second that would do.
      type: int
    needs_throughput:
      description: With RV(outcome=diverging), the throughput in bytes per second that would do.
      type: int
totals:
  description: What all cycles of this run did for each disk, with C(key), C(bytes_read), C(bytes_written), C(repaired), C(seconds).
  returned: always
  type: list
  elements: dict
remarks:
  description: What M(ferry.vmware.vm_disk_copy) remarked, such as a snapshot that a killed run had left.
  returned: always
  type: list
  elements: str
failures:
  description: Cycles that failed and were tried again.
  returned: always
  type: int
disks:
  description: The disks of the last cycle, as M(ferry.vmware.vm_disk_copy) returned them.
  returned: success
  type: list
  elements: dict
failure:
  description: What went wrong, as data.
  type: dict
  returned: failure
"""
