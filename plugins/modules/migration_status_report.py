#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_status_report
short_description: Show the state of migrations
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Prints what M(ferry.vmware.migration_status) found on all conversion hosts as one table, and writes it as JSON.
  - Everything happens on the controller; nothing runs on the target.
options:
  results:
    description:
      - What M(ferry.vmware.migration_status) returned, the C(results) of a loop over conversion hosts. The C(item) of each is the host.
      - A host that failed, or could not be reached, is shown as such.
    type: list
    elements: dict
    required: true
  json:
    description:
      - The JSON file to write, a path on the controller. Missing folders are made.
      - Where it cannot be written there is a warning, not a failure.
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
      - It tells of changes and is none.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false), though the file is written anew.
seealso:
  - module: ferry.vmware.migration_status
"""

EXAMPLES = r"""
- name: Ask the conversion hosts
  ferry.vmware.migration_status:
  delegate_to: "{{ item }}"
  loop: "{{ groups['conversion_hosts'] }}"
  register: found

- name: Show what they said
  ferry.vmware.migration_status_report:
    results: "{{ found.results }}"
    json: reports/status.json
"""

RETURN = r"""
migrations:
  description: The rows of all hosts, each with its C(host), as M(ferry.vmware.migration_status) returns them.
  returned: success
  type: list
  elements: dict
problems:
  description: What could not be read, each with its C(host). A host that did not answer is one.
  returned: success
  type: list
  elements: dict
tasks:
  description: What runs and keeps no ledger, each with its C(host).
  returned: success
  type: list
  elements: dict
states:
  description: Number of VMs by state.
  returned: success
  type: dict
  sample: {running: 2, failed: 1}
json:
  description: The JSON file that was written.
  returned: when O(json) was given and could be written
  type: str
  sample: /home/ops/reports/status.json
"""
