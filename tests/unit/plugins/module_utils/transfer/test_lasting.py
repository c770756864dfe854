# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a ledger's folder outlasts the job, by tables of mounts as containers have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy, lasting

RUNNER = {lasting.RUNNER_VARIABLE: "/runner/artifacts/4711"}
#: podman as AWX calls it: the job's folder and what the administrator exposes are bind mounts.
PODMAN = """\
1 0 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b
2 1 8:1 /tmp/awx_1 /runner rw,relatime - ext4 /dev/vda rw
3 1 8:1 /var/lib/ferry /var/lib/ferry rw,relatime - ext4 /dev/vda rw
4 1 0:60 / /tmp rw,nosuid - tmpfs tmpfs rw
5 2 8:1 /srv /runner/my\\040share rw - ext4 /dev/vda rw
6 1 0:61 / /nfs rw shared:1 master:2 - nfs4 filer:/export rw
"""
MACHINE = "1 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n2 1 0:23 / /dev/shm rw - tmpfs tmpfs rw\n"


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("/home/runner/.local/state/ferry", "overlay at /"),
        ("/var/lib/ferryx", "overlay at /"),
        ("/tmp/ferry", "tmpfs at /tmp"),
        ("/runner/ferry", "the job's own folder"),
        ("/runner/my", "the job's own folder"),
        ("/runner/my share/ferry", ""),
        ("/var/lib/ferry", ""),
        ("/var/lib/ferry/a", ""),
        ("/nfs/ferry", ""),
    ],
)
def test_in_an_execution_environment(folder: str, said: str) -> None:
    found = lasting.why_not(folder, RUNNER, PODMAN)
    assert said in found and bool(found) is bool(said)
    assert lasting.why_not(folder, {}, PODMAN) == "", "nobody said that it is one"
    assert lasting.why_not(folder, {**RUNNER, lasting.ANYWAY_VARIABLE: "1"}, PODMAN) == ""


@pytest.mark.parametrize("folder", ["/home/ops/.local/state/ferry", "/tmp/x", "/"])
def test_a_machine_that_lasts(folder: str) -> None:
    """ansible-runner without a container."""
    assert lasting.why_not(folder, {lasting.RUNNER_VARIABLE: "/home/ops/demo/artifacts/1"}, MACHINE) == ""


@pytest.mark.parametrize("table", ["", "\n", "nonsense", "1 2 3", "1 0 0:1 / / rw - ", "\\", "1 0 0:1 / /a\\9 rw - ext4 x rw"])
def test_tables_that_say_nothing(table: str) -> None:
    assert lasting.why_not("/var/lib/ferry", RUNNER, table) == ""


@pytest.mark.fault(
    "a copy in an execution environment whose ledger would be thrown away with the job",
    where="controller",
    ends="refused before anything is touched, with both ways out",
)
def test_a_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lasting.RUNNER_VARIABLE, "/runner/artifacts/4711")
    monkeypatch.setattr(lasting, "mount_of", lambda path, table: ("/", "overlay"))
    params = {
        "source": str(tmp_path / "a.vmdk"),
        "disks": [{"dest": {"path": str(tmp_path / "b.raw")}}],
        "ledger": str(tmp_path / "ledger"),
    }
    with pytest.raises(BadInput) as e:
        disk_copy.run(params, check=True)
    assert e.value.code == "not_lasting" and "conversion_hosts" in str(e.value) and "ferry_ledger" in str(e.value)
    assert not (tmp_path / "ledger").exists()
