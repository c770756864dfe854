# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose rehearsal it is, and whether it may still be going on."""

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.transfer.rehearse import busy_with
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import snapshot_tag


def dead() -> str:
    with subprocess.Popen(["sleep", "600"]) as process:
        name = snapshot_tag.process_name(process.pid)
        process.kill()
    return str(name)


OURS = str(snapshot_tag.process_name(os.getpid()))


@pytest.mark.parametrize(
    ("owner", "busy"),
    [
        (f"{OURS} other host", True),
        (f"{OURS} db01 在庫", False),  # the very one
        (f"{dead()} other host", False),
        (f"elsewhere:{OURS.partition(':')[2]} other host", True),
        ("elsewhere:what is this", True),
        ("", False),  # one that says nothing
    ],
    ids=["another VM's", "the very one", "of a process that is over", "of another machine", "unreadable", "silent"],
)
def test_owners(owner: str, busy: bool) -> None:
    known = {"ferry_rehearsal": "x", **({"ferry_rehearsal_by": owner} if owner else {})}
    found = {"servers": [], "volumes": [{"id": "1", "metadata": known}, {"id": "2", "metadata": None}], "ports": [{"id": "3"}]}
    params = {"owner": f"{OURS} db01 在庫", "again": False}
    assert busy_with(found, params) == (owner if busy else None)
    assert busy_with(found, {**params, "again": True}) is None


def test_a_process_that_is_over_has_no_name() -> None:
    name = dead()
    assert snapshot_tag.runs(name) is False and snapshot_tag.runs(OURS) is True
    assert snapshot_tag.process_name(2**22 + 1) is None
