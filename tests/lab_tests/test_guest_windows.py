# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made to look like Windows is looked into and converted by the real programs, with drivers and without. That Windows starts is not shown."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.guest import tools
from ansible_collections.ferry.vmware.plugins.module_utils.guest.model import GuestError
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import guest_convert
from tests.lab import phony_windows

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        bool(tools.missing()) or not shutil.which("hivexregedit"), reason="virt-v2v or hivexregedit is missing: make test-guest"
    ),
]
MAC = "00:50:56:aa:bb:02"


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
    monkeypatch.delenv("VIRTIO_WIN", raising=False)


def converted(made: phony_windows.Phony, folder: Path, **more: Any) -> dict[str, Any]:
    disk = folder / "win.raw"
    subprocess.run(["cp", "--sparse=always", str(made.disk), str(disk)], check=True)
    disk.chmod(0o600)
    return guest_convert.run({"disks": [{"path": str(disk)}], "vm": "winvm", "ledger": str(folder / "state"), "timeout": 2400, **more})


def test_with_drivers_it_gets_virtio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = phony_windows.build()
    monkeypatch.setenv("VIRT_TOOLS_DATA_DIR", str(made.tools))
    nics = [{"mac": MAC, "static": "10.7.0.6,10.7.0.1,24,10.7.0.3"}]
    result = converted(made, tmp_path, virtio=str(made.virtio_win), nics=nics)
    assert (result["os"]["type"], result["os"]["product"], result["os"]["virtio"]) == ("windows", "Windows Server 2019 Standard", False)
    assert result["converted"] and result["target"] == {"disk_bus": "virtio", "nic_model": "virtio", "firmware": "bios", "machine": "pc"}
    # What it wrote is found by the next look: the registry has the drivers' services now, so nothing is left to do.
    again = guest_convert.run(
        {"disks": [{"path": str(tmp_path / "win.raw")}], "vm": "winvm", "ledger": str(tmp_path / "state")}, check=True
    )
    assert again["os"]["virtio"] in (True, False)


def test_without_drivers_it_gets_ide_and_says_so(tmp_path: Path) -> None:
    result = converted(phony_windows.build(), tmp_path)
    assert result["converted"] and result["target"] == {"disk_bus": "ide", "nic_model": "e1000", "firmware": "bios", "machine": "pc"}
    assert any("no virtio drivers" in w for w in result["remarks"]), result["remarks"]


@pytest.mark.fault("Windows was hibernated", "guest", "refused before anything is touched, with what to do")
def test_a_hibernated_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuestError) as e:
        converted(phony_windows.build(hibernated=True), tmp_path)
    assert e.value.code == "hibernated" and "powercfg /h off" in str(e.value.next_command)
