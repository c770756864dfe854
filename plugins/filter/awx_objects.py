# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: awx_objects
short_description: What shall be in an AWX, by the settings of the role awx_setup
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Makes of the settings of the role P(ferry.vmware.awx_setup#role) everything that it makes, as arguments for the modules of C(awx.awx), and
    tells all that is wrong with the settings. Asks no AWX.
options:
  _input:
    description:
      - The settings, by the names of the role's variables without C(awx_setup_).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Plan what AWX shall have
  ansible.builtin.set_fact:
    awx_setup_plan: "{{ awx_setup_settings | ferry.vmware.awx_objects }}"
"""

RETURN = r"""
_value:
  description:
    - C(items), C(nodes) and C(grants), each with C(kind), C(name), C(args) and C(needs); C(playbooks) that the project must have; C(fields)
      that are written, by kind; C(queries), what to ask an AWX for it; C(errors), sentences.
  type: dict
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible.utils.unsafe_proxy import wrap_var

from ansible_collections.ferry.vmware.plugins.plugin_utils.awx import objects, present


def awx_objects(settings: dict[str, Any]) -> Any:
    """Nothing of it is a template any more: the injectors are AWX's to render."""
    try:
        found = objects.plan(present.plain(settings))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise AnsibleFilterError(f"the settings of awx_setup cannot be read: {type(e).__name__}: {e}") from e
    return wrap_var({**found, "queries": present.queries(found)})


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"awx_objects": awx_objects}
