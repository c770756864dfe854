#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: doctor_report
short_description: Tell what the doctor has found
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Prints what M(ferry.vmware.doctor_read) and M(ferry.vmware.vm_precheck) have found, and writes it as a page that needs no network and as JSON.
  - Everything happens on the controller; nothing runs on the target.
options:
  looked:
    description:
      - Results of M(ferry.vmware.doctor_read), one per conversion host, each with its name as C(conversion_host). VMs, hosts and datastores are
        those of the first.
    type: list
    elements: dict
    required: true
  checked:
    description: The result of M(ferry.vmware.vm_precheck) for the same VMs.
    type: dict
  pilot:
    description: How the VM that was rehearsed fared, with C(name), C(passed), C(said), C(seconds) and C(disks).
    type: dict
  title:
    description: What stands above all.
    type: str
    default: A look at vCenter
  html:
    description: Where the page is written. A folder that cannot be written is a warning.
    type: path
  json:
    description: Where the findings are written as JSON.
    type: path
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details:
      - Prints, and writes no file.
  diff_mode:
    support: N/A
    details:
      - Changes nothing but its own files.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false), though the files are written anew. They carry the time of the run and are not part of
        what a playbook is to bring about.
seealso:
  - module: ferry.vmware.doctor_read
  - module: ferry.vmware.vm_precheck
"""

EXAMPLES = r"""
- name: Look at all VMs
  ferry.vmware.doctor_read:
  register: looked

- name: Tell what was found
  ferry.vmware.doctor_report:
    looked:
      - "{{ looked | combine({'conversion_host': 'localhost'}) }}"
    html: doctor.html
    json: doctor.json
"""

RETURN = r"""
totals:
  description:
    - What was found in figures. C(vms), C(capacity) (bytes), C(cold), C(warm) and C(none) (how many VMs have a way), C(critical), C(privileges),
      C(lacking), C(speeds) (bytes per second by way) and C(reading_seconds).
  returned: success
  type: dict
verdicts:
  description: The same in sentences.
  returned: success
  type: list
  elements: str
html:
  description: The page that was written.
  returned: when it was
  type: str
json:
  description: The JSON file that was written.
  returned: when it was
  type: str
"""
