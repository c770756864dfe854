# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: mtv_progress
short_description: How far a migration of the Migration Toolkit for Virtualization is, VM by VM
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads a Plan and its Migration. Reasons of failed steps and tasks are dug out of the pipelines.
positional: migration
options:
  _input:
    description:
      - The Plan.
    type: dict
    required: true
  migration:
    description:
      - The Migration.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell how far it is
  ansible.builtin.debug:
    msg: "{{ (plan | ferry.vmware.mtv_progress(migration)).lines }}"
"""

RETURN = r"""
_value:
  description:
    - C(state) (V(pending), V(running), V(precopied), V(blocked), V(succeeded), V(failed) or V(canceled)), C(ended), C(reasons), C(started),
      C(completed), C(lines) (sentences, one a VM) and C(vms).
    - Each of C(vms) has C(name), C(id), C(state), C(step), C(done) and C(total) in bytes, C(precopies), C(disks) and C(reasons).
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import state


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mtv_progress": state.migration}
