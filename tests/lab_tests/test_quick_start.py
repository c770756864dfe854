# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A newcomer's walk: the quick start's files and commands as they stand in the guide, one after the other, on the lab's vCenter.

Not walked are the lines that install from Galaxy and PyPI (the stage is what would be installed) and those that say who one is (the
lab's address stands for them).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.vcenter import VCenter

from .vcenter_lab import MIB, running, write_raw

TOP = Path(__file__).resolve().parents[2]
GUIDES = TOP / "docs" / "docsite" / "rst"
BLOCK = re.compile(r"^\.\. code-block:: ([\w+]+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)
NOT_WALKED = re.compile(r"^(python3 -m venv|pip install|ansible-galaxy collection install|export VMWARE_|read -rs VMWARE_)")


def blocks(guide: str) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    return [
        (language, textwrap.dedent(text).strip() + "\n") for language, text in BLOCK.findall((GUIDES / guide).read_text(encoding="utf-8"))
    ]


def commands(text: str) -> list[str]:
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("newcomer")
    write_raw(folder / "root.raw", 24 * MIB, 5)
    vm = {
        "name": "web01",
        "host": "esx1",
        "datastore": "shared",
        "folder": "production/web",
        "power": "on",
        "disks": [{"path": "root.raw", "provisioning": "thin"}],
        "nics": [{"network": "VM Network"}],
    }
    model = {
        "datacenter": "DC0",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network"],
        "datastores": [{"name": "shared", "capacity": "1TiB"}],
        "vms": [vm],
    }
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    with running(folder, folder / "model.json") as found:
        yield found


class Newcomer:
    """Somebody with a shell in a folder, and nothing but the guide."""

    def __init__(self, folder: Path, vcenter: VCenter) -> None:
        self.folder = folder
        self.vcenter = vcenter
        self.said: list[tuple[str, str]] = []
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTEST", "VMWARE_", "OS_", "FERRY_"))}
        self.env |= vcenter.env() | {"PATH": path, "HOME": str(folder), "ANSIBLE_NOCOLOR": "true"}
        self.env["ANSIBLE_COLLECTIONS_PATH"] = os.environ["ANSIBLE_COLLECTIONS_PATH"]

    def type(self, command: str) -> None:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300, check=False
        )
        print("$", command, "\n", done.stdout, done.stderr)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.said.append((command, done.stdout))

    def answer(self, begin: str) -> list[str]:
        """What the commands that begin so have said."""
        return [out for command, out in self.said if command.startswith(begin)]

    def follow(self, guide: str) -> None:
        for language, text in blocks(guide):
            if language.startswith("yaml"):
                (self.folder / re.match(r"# (\S+)\n", text)[1]).write_text(text, encoding="utf-8")  # type: ignore[index]  # else the guide is wrong
                continue
            for command in commands(text):
                if not NOT_WALKED.match(command):
                    self.type(command)
                    if command.startswith("ansible-playbook") and "first.yml" in command and len(self.answer(command)) == 1:
                        self.vcenter.write("web01", 2000, 5 * MIB, b"the guest goes on working " * 4096)


@pytest.mark.slow
def test_the_quick_start_as_it_stands(vcenter: VCenter, tmp_path: Path) -> None:
    somebody = Newcomer(tmp_path, vcenter)
    somebody.follow("quick_start.rst")
    assert "web01" in somebody.answer("ansible-inventory")[0]
    (doctor,) = somebody.answer("ansible-playbook ferry.vmware.doctor")
    assert "changed=0" in doctor and "1 of 1 VMs can be copied" in doctor
    first, second = somebody.answer("ansible-playbook -i quick.vcenter.yml first.yml")
    assert "full over https" in first
    assert "incremental over https" in second and int(re.search(r"(\d+) bytes read", second)[1]) < 2 * MIB  # type: ignore[index]  # None fails
    digest = hashlib.sha256((tmp_path / "web01.raw").read_bytes()).hexdigest()
    assert digest == vcenter.sha256("web01", 2000) and digest in somebody.answer("sha256sum")[0]
    assert vcenter.snapshots("web01") == []
    tracked: dict[str, Any] = vcenter.get("/state")
    assert not next(vm for vm in tracked["vms"] if vm["name"] == "web01").get("cbt")


def test_the_japanese_one_has_the_same_files_and_commands() -> None:
    ours, theirs = blocks("quick_start.rst"), blocks("quick_start_ja.rst")
    assert [b for b in ours if b[0] == "console"] == [b for b in theirs if b[0] == "console"]
    # names of plays and tasks are for people, so they are in Japanese there
    without = [re.sub(r"(name|msg): .*", r"\1", text) for _language, text in ours]
    assert without == [re.sub(r"(name|msg): .*", r"\1", text) for _language, text in theirs]
