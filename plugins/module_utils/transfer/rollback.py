# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's half of a rollback: copies that still run on this machine are ended, then the VM is what it was (vsphere/restore.py)."""

from __future__ import annotations

import contextlib
from typing import Any, Mapping

from ..vsphere import client as vsphere_client
from ..vsphere import find, restore
from . import holders
from .moment import vm_lock
from .targets import state_dir


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Bring the VM back that C(params) (the options of vm_source_restore) name. See the module for options and results."""
    folder = state_dir(params.get("ledger"))
    with contextlib.ExitStack() as stack:
        session = vsphere_client.connect(params)
        stack.callback(session.close)
        vm = find.find_vm(session, params["vm"])
        uuid = vm.instance_uuid or vm.moref
        busy = holders.holders(folder, uuid)
        if not check:
            ended = holders.end(folder, uuid, vm.name, stop=params["stop_copies"], timeout=params["timeout"])
            stack.enter_context(vm_lock(folder, {"instance_uuid": vm.instance_uuid, "moref": vm.moref}))
        else:
            ended = len({h.pid for h in busy})
        result = restore.restore(
            session, vm, power=params["power"], take_over=params["take_over"], committed=params["committed"], check=check
        )
    if ended:
        result["steps"].insert(0, f"{ended} running {'copy' if ended == 1 else 'copies'} of its disks ended")
        result["changed"] = True
    result["vm"] = {"name": vm.name, "moref": vm.moref, "instance_uuid": vm.instance_uuid, "path": vm.path}
    return result
