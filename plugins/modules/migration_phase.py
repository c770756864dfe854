#!/usr/bin/python
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_phase
short_description: Tell the live report what a VM is at
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Notes in the folder beside a report which phase the task's host is in, or how it ended, and writes the page again when it is time to.
  - The roles of this collection call it. It is of use in task files of your own that take long.
  - Does nothing unless the variable C(ferry_report) names a page. C(ferry_report_interval) is the least time between two pages in seconds
    (5 by default), C(ferry_report_language) is V(en) or V(ja), and C(ferry_report_title) stands above the page.
  - Everything happens on the controller. Where nothing can be written there is one warning, and the play goes on.
options:
  phase:
    description:
      - What begins, ends or has failed. A phase that begins ends the one before.
      - With O(state=end) and O(state=failed) it may be left out; then it is the phase that lasts, whichever it is.
    type: str
    choices: [precheck, plan, prepare, precopy, copy, cutover, verify, convert, land, ready, note]
  state:
    description: Whether it begins, has ended or has failed.
    type: str
    choices: [begin, end, failed]
    default: begin
  result:
    description: How the VM ended, as O(ferry.vmware.migration_report#module:results) has it. With it O(phase) and O(state) are not needed.
    type: dict
extends_documentation_fragment:
  - ferry.vmware.attributes
attributes:
  check_mode:
    support: full
    details:
      - Does nothing in check mode.
  diff_mode:
    support: N/A
    details:
      - It changes nothing that is migrated.
  idempotency:
    support: full
    details:
      - Always returns C(changed=false). The same phase again does not begin anew.
seealso:
  - module: ferry.vmware.migration_report
"""

EXAMPLES = r"""
- name: Show that the application is being tried
  ferry.vmware.migration_phase:
    phase: ready
"""

RETURN = r"""
# Nothing but changed, which is always false.
"""
