# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: importer_prerequisites
short_description: Everything that stands in the way of a wave for MTV or Harvester's importer, from all that was asked
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Puts together what was found at the source and in the cluster, without asking anyone.
options:
  _input:
    description:
      - C(errors) of P(ferry.vmware.mtv_objects#filter) or P(ferry.vmware.harvester_objects#filter), C(objects) of theirs, C(checked)
        (what M(ferry.vmware.vm_precheck) returned), C(definitions) (CustomResourceDefinitions), C(classes) (names of storage classes),
        C(attachments) (C(namespace/name)), C(machines) (VirtualMachines of the target namespace), C(plan) (as it is), C(names)
        (that the VMs get), C(reach) (C(rows) of M(ferry.vmware.port_check)), C(versions) (ClusterServiceVersions), C(no_image)
        (whether there is certainly no image of VDDK) and C(ignore) (ids).
      - What could not be read is null, which is a warning.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell what stands in the way
  ansible.builtin.debug:
    msg: "{{ ({'errors': made.errors, 'checked': checked} | ferry.vmware.importer_prerequisites).errors }}"
"""

RETURN = r"""
_value:
  description:
    - C(errors), C(warnings) and C(notes), sentences; C(rows), each with C(id), C(category), C(who), C(said) and C(advice); C(ignored), the ids of
      C(ignore) that were found.
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import prerequisites


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"importer_prerequisites": prerequisites.gathered}
