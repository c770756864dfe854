# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The choice of what the lab's Nova runs servers on, without starting anything; and the guest's parts."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.lab import cpio
from tests.lab.common import LabError
from tests.lab.openstack import OpenStack, libvirt
from tests.lab.openstack.layout import Layout

from . import libvirt_lab


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A venv that has the services, as far as the lab looks."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/uwsgi").touch()
    return tmp_path / "venv"


def test_a_lab_keeps_what_it_was_set_up_with(tmp_path: Path, venv: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "set-up").touch()
    with pytest.raises(LabError, match="runs servers on fake, not libvirt: wipe it"):
        OpenStack(state, venv, 30000, hypervisor="libvirt").up()
    (state / "hypervisor").write_text("libvirt\n")
    with pytest.raises(LabError, match="runs servers on libvirt, not fake"):
        OpenStack(state, venv, 30000, hypervisor="fake").up()
    with pytest.raises(LabError, match="no hypervisor xen"):
        OpenStack(state, venv, 30000, hypervisor="xen")


def test_other_ports_than_those_of_its_set_up_are_refused(tmp_path: Path, venv: Path) -> None:
    """Its catalogue has the old ones: Nova would end with a word about Placement's versions."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "set-up").write_text("30100\n")
    with pytest.raises(LabError, match="set up at ports from 30100, not 30000: set FERRY_LAB_BASE=30100"):
        OpenStack(state, venv, 30000).up()


def test_a_venv_without_the_binding_is_said(tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt, "need", lambda program, package, what_for: program)
    with pytest.raises(LabError, match="make venv-libvirt"):
        OpenStack(tmp_path / "new", venv, 30000, hypervisor="libvirt").up()


def test_a_folder_too_deep_for_a_socket_is_said(tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt, "need", lambda program, package, what_for: program)
    (venv / "lib/python3/site-packages").mkdir(parents=True)
    (venv / "lib/python3/site-packages/libvirtmod.so").touch()
    libvirt.check(Layout(tmp_path / ("deep" * 30), venv, 30000))  # a deep state is no matter
    monkeypatch.setattr(libvirt.tempfile, "gettempdir", lambda: str(tmp_path / ("deep" * 30)))
    with pytest.raises(LabError, match="too long for the name of a socket"):
        libvirt.check(Layout(tmp_path, venv, 30000))


def test_the_environment_says_what_nova_runs_on(tmp_path: Path, venv: Path) -> None:
    lab = OpenStack(tmp_path, venv, 30000)
    assert lab.env()["FERRY_LAB_NOVA"] == "fake" and "FERRY_LAB_LIBVIRT" not in lab.env()
    (tmp_path / "hypervisor").write_text("libvirt\n")
    assert lab.env()["FERRY_LAB_LIBVIRT"].endswith("/run/libvirt/libvirt-sock")


def test_an_archive_is_what_the_kernel_reads() -> None:
    made = cpio.Archive()
    made.folder("dev")
    made.device("dev/console", 5, 1)
    made.file("init", b"#!/bin/sh\n", 0o755)
    raw = gzip.decompress(made.gzip())
    assert made.gzip() == made.gzip()
    names, at = [], 0
    while at < len(raw):
        assert raw[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(raw[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        names.append((raw[at + 110 : at + 109 + length].decode(), oct(fields[1]), (fields[9], fields[10])))
        at += 110 + length
        at += -at % 4
        at += size
        at += -at % 4
    assert names == [
        ("dev", "0o40755", (0, 0)),
        ("dev/console", "0o20600", (5, 1)),
        ("init", "0o100755", (0, 0)),
        ("TRAILER!!!", "0o0", (0, 0)),
    ]


def test_what_a_guest_says_is_understood() -> None:
    said = libvirt_lab.parse(
        "\r\nkernel 6.1\r\nfirmware efi\r\ndisk vda bytes 1024 controller virtio-pci driver virtio_blk serial abc-1\r\n"
        "disk sr0 bytes 0 controller none driver none serial \r\n"
        "nic eth0 mac 00:50:56:00:00:01 controller e1000 driver e1000\r\nmounted root vda2 a text of words\r\nmissing data\r\nboots 3\r\n"
    )
    assert (said.firmware, said.boots, said.mounted) == ("efi", 3, {"root": ("vda2", "a text of words")})
    assert said.disks["vda"] == {"bytes": "1024", "controller": "virtio-pci", "driver": "virtio_blk", "serial": "abc-1"}
    assert said.disks["sr0"]["serial"] == ""
    assert said.cards == {"00:50:56:00:00:01": {"mac": "00:50:56:00:00:01", "controller": "e1000", "driver": "e1000"}}
