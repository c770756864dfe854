#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_status
short_description: What a conversion host knows of migrations
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads the ledgers of the machine that it runs on, and the status files of what runs there now. No server is asked, nothing is
    changed, and copies that run are not disturbed.
  - A ledger that is damaged, or of a later version, is told in C(problems); all others are shown all the same.
options:
  ledger:
    description:
      - Folder of the state of copies on this machine, see O(ferry.vmware.vm_disk_copy#module:ledger).
      - By default C(ferry) in C(XDG_STATE_HOME), or C(~/.local/state/ferry).
    type: path
  vms:
    description:
      - Names of VMs, with wildcards, or instance UUIDs. Empty means all of them.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details: Changes nothing.
  diff_mode:
    support: none
    details: Changes nothing.
  idempotency:
    support: full
seealso:
  - module: ferry.vmware.vm_disk_copy
  - module: ferry.vmware.migration_status_report
"""

EXAMPLES = r"""
- name: What is going on
  ferry.vmware.migration_status:
    vms: ["db*"]
  delegate_to: "{{ ferry_conversion_host }}"
  register: status
"""

RETURN = r"""
migrations:
  description: One row per VM, what runs first, then what needs somebody.
  returned: success
  type: list
  elements: dict
  contains:
    vm:
      description: Its name, where the ledgers know it, else its instance UUID.
      type: str
    source:
      description: Its instance UUID. Empty for a disk that was copied from a file.
      type: str
    state:
      description:
        - V(running) and V(stopping) where a process copies it now; V(failed) where its last copy ended with an error; V(interrupted)
          where it was stopped, killed, or its machine died; V(precopied) where it is copied and the VM runs on with its changes tracked;
          V(copied) where all of it was copied; V(new) where nothing was copied yet.
        - The first one of these that one of its disks has.
      type: str
    phase:
      description: What is being done to the disk that C(state) is of, empty where nothing runs.
      type: str
    cycles:
      description: Passes over its disks so far.
      type: int
    bytes_total:
      description: Size of its disks in bytes.
      type: int
    bytes_done:
      description: Bytes of these that need nothing more in this pass.
      type: int
    rate:
      description: Bytes per second, 0 where nothing runs.
      type: float
    seconds_left:
      description: Seconds until the phase ends, null where that is not known.
      type: float
    error:
      description: What the last copy ended with, empty where it did not.
      type: str
    next_command:
      description: What to do next, empty where nothing is to be done here.
      type: str
    disks:
      description:
        - The same of each disk, with C(label), C(key), C(target), C(pass) (how it is copied), C(reason), C(bytes_zero), C(history) (its last
          copies), C(copied_at) (seconds since the epoch), C(digest), C(pid) (who copies it) and C(ledger) (the file).
      type: list
      elements: dict
tasks:
  description:
    - What runs here and keeps no ledger, such as conversions and uploads, with C(name), C(label), C(state), C(phase), C(unit), C(done),
      C(total), C(rate), C(seconds_left) and C(pid).
  returned: success
  type: list
  elements: dict
problems:
  description: What could not be read, with C(path), C(code), C(what) and C(next_command).
  returned: success
  type: list
  elements: dict
ledger:
  description: The folder that was looked at.
  returned: success
  type: str
  sample: /home/ops/.local/state/ferry
"""

from ansible_collections.ferry.vmware.plugins.module_utils import edge
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import status


def main() -> None:
    spec = {"ledger": {"type": "path"}, "vms": {"type": "list", "elements": "str", "default": []}}
    edge.run(spec, lambda call: status.read(call.params["ledger"], call.params["vms"]))


if __name__ == "__main__":
    main()
