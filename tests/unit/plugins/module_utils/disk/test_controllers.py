# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of controllers, also against the enums of an installed Nova."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import controllers
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("ide", "ide"),
        ("lsiLogic", "lsilogic"),
        ("lsiLogicsas", "lsisas1068"),
        ("paraVirtual", "pvscsi"),
        ("legacyESX", "lsilogic"),
        ("BusLogic", "buslogic"),
    ],
)
def test_spellings(name: str, want: str) -> None:
    assert controllers.by_name(name).name == want


def test_device_classes() -> None:
    assert controllers.by_device_class("vim.vm.device.ParaVirtualSCSIController") is controllers.by_name("pvscsi")
    assert controllers.by_device_class("VirtualAHCIController") is controllers.by_name("sata")
    assert controllers.by_device_class("VirtualFloppy") is None


def test_unknown() -> None:
    with pytest.raises(BadInput):
        controllers.by_name("floppy")


def test_what_a_vmdk_can_name() -> None:
    assert controllers.VMDK_ADAPTERS == ("ide", "buslogic", "lsilogic", "lsisas1068", "pvscsi")


def words(source: str, name: str) -> set[str]:
    """The quoted words in class C(name) of C(source)."""
    block = re.search(rf"^class {name}\b.*?(?=^\S)", source, re.M | re.S)
    assert block, name
    return set(re.findall(r"['\"]([\w-]+)['\"]", block.group()))


def test_nova_knows_them(top: Path) -> None:
    found = [p for parent in top.parents for p in parent.glob("venv-openstack/lib/python3*/site-packages/nova/objects/fields.py")]
    if not found:
        pytest.skip("Nova is not installed here")
    source = found[0].read_text()
    buses, models = words(source, "DiskBus"), words(source, "SCSIModel")
    constants = (found[0].parents[1] / "virt" / "vmwareapi" / "constants.py").read_text()
    adapters = set(re.findall(r"^(?:DEFAULT_)?ADAPTER_TYPE\w* = \"(\w+)\"", constants, re.M))
    for c in controllers.CONTROLLERS:
        assert c.hw_disk_bus in buses
        assert c.hw_scsi_model is None or c.hw_scsi_model in models
        assert c.vmware_adaptertype is None or c.vmware_adaptertype in adapters
