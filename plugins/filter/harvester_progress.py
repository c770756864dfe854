# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: harvester_progress
short_description: How far imports of Harvester's importer are
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads VirtualMachineImports, and of their images how much of each is there.
positional: images
options:
  _input:
    description:
      - The VirtualMachineImports.
    type: list
    elements: dict
    required: true
  images:
    description:
      - The VirtualMachineImages, or an empty list.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell how far they are
  ansible.builtin.debug:
    msg: "{{ (imports | ferry.vmware.harvester_progress([])).lines }}"
"""

RETURN = r"""
_value:
  description:
    - C(rows) (C(name), C(vm), C(made), C(state), C(failed), C(percent), C(reasons)), C(lines) (sentences), C(open) and C(failed) (names), and
      C(least), how many states the slowest of those that have not failed has reached, of 7.
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"harvester_progress": harvester.progress}
