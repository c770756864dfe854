# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: mtv_refs
short_description: How a plan of the Migration Toolkit for Virtualization names the VMs of a play
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Finds those of the VMs of a Plan that are meant, by id, by name, or by the name that they get.
positional: wanted
options:
  _input:
    description:
      - C(spec.vms) of a Plan.
    type: list
    elements: dict
    required: true
  wanted:
    description:
      - The VMs, each with C(name), and C(id) and C(target_name) where these are known.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell what to cancel
  ansible.builtin.debug:
    msg: "{{ plan.spec.vms | ferry.vmware.mtv_refs([{'name': 'web01'}]) }}"
"""

RETURN = r"""
_value:
  description:
    - Dictionaries with C(id) or C(name), for C(cancel) of a Migration.
  type: list
  elements: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import mtv


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mtv_refs": mtv.refs}
