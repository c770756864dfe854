# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: awx_present
short_description: What of a plan for an AWX is there, and what it lacks
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Compares what P(ferry.vmware.awx_objects#filter) wants with what an AWX has answered to its queries.
positional: answers, check
options:
  _input:
    description:
      - The plan.
    type: dict
    required: true
  answers:
    description:
      - For each query C(item), the query, and C(json), the answer.
    type: list
    elements: dict
    required: true
  check:
    description:
      - Whether only what can be looked at in check mode is to be done.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Know what is there
  ansible.builtin.set_fact:
    awx_setup_present: "{{ awx_setup_plan | ferry.vmware.awx_present(awx_setup_answers.results, ansible_check_mode) }}"
"""

RETURN = r"""
_value:
  description:
    - C(missing), sentences about what is named, not there, and not made by the role; C(todo), items by kind; C(blocked), with O(check) those
      that need something that is not there yet, in words; C(there), names by kind.
  type: dict
"""

from typing import Any, Callable

from ansible.utils.unsafe_proxy import wrap_var

from ansible_collections.ferry.vmware.plugins.plugin_utils.awx import present


def awx_present(plan: dict[str, Any], answers: list[dict[str, Any]], check: bool = False) -> Any:
    return wrap_var(present.compare(present.plain(plan), present.plain(answers), check))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"awx_present": awx_present}
