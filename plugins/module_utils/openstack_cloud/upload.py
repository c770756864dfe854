# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The work of the module glance_vmdk_upload: log in, show progress, hand over to Upload."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping

from ..disk.progress import Progress, progress_from
from ..errors import FerryError
from .client import connect
from .glance import Upload


def run(params: Mapping[str, Any], *, check: bool = False, warn: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """See the module for parameters and results. C(warn) gets what stands against booting what is sent."""
    result = _run(params, check)
    if result.get("bootable") is False:
        for reason in result["reasons"]:
            # That a data disk does not boot is no surprise.
            if not reason.startswith("no boot sector"):
                warn(f"Nova with hypervisor {params['hypervisor']} does not boot this image: {reason}")
    return result


def _run(params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    conn = connect(params)
    label = os.path.basename(str(params.get("src") or params["name"]))
    try:
        if check or params["state"] == "absent":
            return Upload(conn, params, lambda phase, done, total: None, check=check).run()
        with progress_from(params, name=params["name"]) as progress:
            progress.install_signals()
            result = Upload(conn, params, _hook(progress, label)).run()
            progress.finish(label, why=None if result["changed"] else "there already")
            return result
    except FerryError as e:
        e.add(disk=label)
        raise
    finally:
        conn.close()


def _hook(progress: Progress, label: str) -> Any:
    def hook(phase: str, done: int, total: int) -> None:
        progress.check()
        if total:
            progress.update(label, phase, done, total)

    return hook
