# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By which way a disk is read, and what takes the place of one that this machine cannot go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import MissingLibrary
from ansible_collections.ferry.vmware.plugins.module_utils.disk.nbdkit import need_plugin
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.opener import lacks_nbd
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.ways import choose
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.disks import VmDisk

PLAIN = VmDisk(
    key=2000,
    label="Hard disk 1",
    address="scsi0:0",
    controller="ParaVirtualSCSIController",
    controller_kind="scsi",
    adapter="pvscsi",
    bus=0,
    unit=0,
    capacity=1 << 30,
    path="[vsan] one/one.vmdk",
    chain=(),
    datastore="vsan",
    datastore_moref=None,
    datastore_type="vsan",
    datacenter="DC",
    backing="FlatVer2",
    uuid=None,
    thin=True,
    eager=False,
    mode="persistent",
    sharing=None,
    change_id=None,
    encrypted=False,
    rdm_mode=None,
    content_id=None,
)


def never() -> str | None:
    raise AssertionError("asked although no export would be read")


def test_a_machine_is_asked_only_where_an_export_would_be_read() -> None:
    assert choose("auto", replace(PLAIN, datastore_type="VMFS"), nbd=True, lacks=never).name == "https"
    assert choose("auto", PLAIN, nbd=False, lacks=never).name == "nfc"
    assert choose("nbd", PLAIN, nbd=True, lacks=never).name == "nbd", "who asks for it gets it, or an error"
    assert choose("auto", PLAIN, nbd=True, lacks=lambda: None) == choose("auto", PLAIN, nbd=True)
    with pytest.raises(BadInput):
        choose("https", PLAIN, nbd=True, lacks=never)


def test_without_nbdkit_a_disk_on_vsan_is_a_stream_and_the_remark_says_why() -> None:
    way = choose("auto", PLAIN, nbd=True, lacks=lambda: "The program nbdkit is needed on this machine.")
    assert (way.name, way.ranges) == ("nfc", False)
    assert way.remark is not None and "nfc" in way.remark and "nbdkit is needed" in way.remark


def test_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(folder))
    said = lacks_nbd(vddk=True)
    assert said is not None and "nbdkit" in said and "apt-get install nbdkit" in said
    nbdkit = folder / "nbdkit"
    nbdkit.write_text("#!/bin/sh\necho \"nbdkit: error: cannot open plugin 'vddk'\" >&2\nexit 1\n")
    nbdkit.chmod(0o755)
    with pytest.raises(MissingLibrary, match="plugin vddk") as e:
        need_plugin("vddk")
    assert "nbdkit-vddk-plugin" in str(e.value)
    nbdkit.write_text("#!/bin/sh\necho api_version=2\n")
    need_plugin("vddk")
