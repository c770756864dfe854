# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role guest as a play has it, with what was recorded of guestfish and virt-v2v in their place (tests/unit/fixtures/guest)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("qemu-img"), reason="the layers are qemu-img's: apt-get install qemu-utils"),
]
FIXTURES = Path(__file__).parents[1] / "fixtures" / "guest"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
MIB = 1 << 20
PLAY: list[dict[str, Any]] = [
    {
        "hosts": "oldvm",
        "gather_facts": False,
        "connection": "local",
        "tasks": [
            {"name": "The guest", "ansible.builtin.include_role": {"name": "ferry.vmware.guest"}},
            {
                "name": "Look",
                "ferry.vmware.vm_guest_convert": {"disks": "{{ guest_disks }}"},
                "check_mode": True,
                "when": "look | default(false)",
            },
            {"name": "Keep it", "ansible.builtin.copy": {"content": "{{ guest_result | to_json }}", "dest": "{{ out }}", "mode": "0600"}},
        ],
    }
]


class Play:
    def __init__(self, top: Path, folder: Path) -> None:
        self.top, self.folder, self.bin = top, folder, folder / "bin"
        self.bin.mkdir()
        for name in ("guestfish", "virt-v2v-in-place"):
            (self.bin / name).write_text(f"#!{sys.executable}\n" + (FIXTURES / f"{name}.py").read_text())
            (self.bin / name).chmod(0o755)
        self.answers("debian.json")
        text = (FIXTURES / "v2v-debian.txt").read_text()
        (self.bin / "says.json").write_text(json.dumps({"text": text, "code": 0}))
        self.disk = folder / "disk.raw"
        self.disk.write_bytes(bytes(4 * MIB))
        (folder / "play.yml").write_text(yaml.safe_dump(PLAY))

    def answers(self, name: str) -> None:
        (self.bin / "answers.json").write_text((FIXTURES / name).read_text())

    def __call__(self, *, ok: bool = True, **variables: Any) -> tuple[dict[str, Any], str]:
        out = self.folder / "result.json"
        out.unlink(missing_ok=True)
        common = {
            "ansible_python_interpreter": sys.executable,
            "guest_disks": [{"path": str(self.disk)}],
            "guest_nics": [{"mac": "00:50:56:7c:01:01", "slot": 192, "addresses": []}, {"mac": None}],
            "ferry_ledger": str(self.folder / "state"),
            "out": str(out),
        }
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"oldvm": {}}, "vars": common | variables}}))
        env = {
            **os.environ,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(self.top.parents[2]),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
        }
        command = [str(PLAYBOOK), "-i", str(self.folder / "hosts.yml"), str(self.folder / "play.yml")]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return json.loads(out.read_text()) if out.exists() else {}, done.stdout + done.stderr


@pytest.fixture
def play(top: Path, tmp_path: Path) -> Play:
    return Play(top, tmp_path)


def test_by_default_a_guest_that_keeps_its_hardware_is_left_alone(play: Play) -> None:
    result, _said = play()
    assert (result["action"], result["converted"], result["target"]) == ("skipped", False, None)
    assert not (play.bin / "asked").exists()
    assert play(guest_convert=False, ferry_landing={"hardware": "virtio"})[0]["reasons"] == ["ferry_guest_convert is false"]


def test_one_that_gets_virtio_is_converted_and_says_what_was_done(play: Play) -> None:
    result, said = play(ferry_landing={"hardware": "virtio"}, look=True)
    assert (result["action"], result["converted"], result["target"]["disk_bus"]) == ("convert", True, "virtio")
    assert result["seconds"] > 0 and play.disk.read_bytes()[:9] == b"converted"
    assert "ens192 = 00:50:56:7c:01:01" in said and "open-vm-tools" in said


def test_what_cannot_be_converted_fails_only_where_it_was_asked_for(play: Play) -> None:
    (play.bin / "answers.json").write_text(json.dumps({"list-devices": "/dev/sda\n", "vfs-type /dev/sda": "xfs"}))
    assert play(ferry_guest_convert="auto", ferry_landing={"hardware": "virtio"})[0]["action"] == "skipped"
    _result, said = play(ok=False, ferry_guest_convert=True)
    assert "No operating system was found" in said and "unknown_os" in said
