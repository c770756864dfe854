# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options of everything that plans where VMs go; the twin spec is SPEC in module_utils/vsphere/drain.py."""

    DOCUMENTATION = r"""
options:
  constraints:
    description:
      - Where VMs may run, a list of mappings. C(kind) is V(together) (or V(EQ)), V(apart) (V(NE)), V(pin), V(avoid) or V(hold); C(vms)
        names VMs, C(group) all VMs registered in groups (M(ferry.vmware.machine_register)), C(hosts) the hosts of V(pin) and V(avoid),
        C(name) the constraint. C(required=false) makes it a wish.
      - The rules and groups of the clusters are respected as well.
    type: list
    elements: dict
    default: []
  reserve_percent:
    description: What stays free of the memory and the CPU of each host, and of each datastore that files are copied to.
    type: float
    default: 10
  memory_overcommit:
    description:
      - How many times a host's memory the running VMs may have together.
      - Memory counts as configured, not as used at the moment.
    type: float
    default: 1
  copy_files:
    description: Whether files may be copied to another datastore where a host does not reach that of a VM.
    type: bool
    default: true
  per_host:
    description: Moves from or to a host at the same time.
    type: int
    default: 4
  per_datastore:
    description: Copies of files from or to a datastore at the same time.
    type: int
    default: 2
  timeout:
    description: Seconds for each move.
    type: int
    default: 3600
"""
