# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kubernetes_time
short_description: A point in time as Kubernetes wants it
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes RFC 3339 in UTC of V(now), or of a date and time (ISO 8601), which without an offset is the controller's local time.
options:
  _input:
    description:
      - The time. V(on_demand) and an empty text give an empty text.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Tell when
  ansible.builtin.debug:
    msg: "{{ '2026-11-22T02:00:00+09:00' | ferry.vmware.kubernetes_time }}" # 2026-11-21T17:00:00Z
"""

RETURN = r"""
_value:
  description:
    - The time in UTC, whole seconds.
  type: str
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import state


def kubernetes_time(text: str) -> str:
    try:
        return state.time(str(text))
    except ValueError as e:
        raise AnsibleFilterError(f"the cutover {text!r} is neither now nor a date and time like 2026-11-22T02:00:00+01:00: {e}") from e


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kubernetes_time": kubernetes_time}
