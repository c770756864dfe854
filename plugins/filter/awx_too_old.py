# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: awx_too_old
short_description: Fields that an AWX does not know
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - An AWX takes fields that it does not know without a word, and drops them. Its answers to C(OPTIONS) say which ones it knows.
positional: answers
options:
  _input:
    description:
      - Fields by kind, the C(fields) of P(ferry.vmware.awx_objects#filter).
    type: dict
    required: true
  answers:
    description:
      - For each kind C(item), the kind, C(status) and C(json), the answer.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse an AWX that is too old
  ansible.builtin.fail:
    msg: "{{ awx_setup_plan.fields | ferry.vmware.awx_too_old(awx_setup_options.results) | join(', ') }}"
  when: awx_setup_plan.fields | ferry.vmware.awx_too_old(awx_setup_options.results) | length > 0
"""

RETURN = r"""
_value:
  description:
    - Sentences, none where it knows all of them.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.awx import present


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"awx_too_old": present.too_old}
