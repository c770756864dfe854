# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: harvester_source
short_description: Whether a source of Harvester's importer is ready, or what it may lack
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads the status of a VmwareSource, OpenstackSource or OvaSource. An empty one means something too.
options:
  _input:
    description:
      - The source.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell why it is not ready
  ansible.builtin.debug:
    msg: "{{ (source | ferry.vmware.harvester_source).why }}"
"""

RETURN = r"""
_value:
  description:
    - C(ready), and C(why) it is not.
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"harvester_source": harvester.source_state}
