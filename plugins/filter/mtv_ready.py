# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: mtv_ready
short_description: Whether an object of the Migration Toolkit for Virtualization is ready, or what it lacks
version_added: 1.0.0
author:
  - ferry.vmware contributors (@ferry-vmware)
description:
  - Reads the conditions of a Provider, NetworkMap, StorageMap, Host, Hook or Plan. Conditions of an older generation of it do not count.
options:
  _input:
    description:
      - The object as M(kubernetes.core.k8s_info) returns it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Wait for a provider
  kubernetes.core.k8s_info:
    api_version: forklift.konveyor.io/v1beta1
    kind: Provider
    namespace: openshift-mtv
    name: vcenter
  register: provider
  until: (provider.resources | first | ferry.vmware.mtv_ready).ended
  retries: 60
  delay: 2
"""

RETURN = r"""
_value:
  description:
    - C(ready), C(blocked) (a condition that blocks), C(ended) (one of the two), C(reasons) (sentences) and C(conditions) (their types).
  type: dict
"""

from typing import Any, Callable

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import state


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mtv_ready": state.readiness}
