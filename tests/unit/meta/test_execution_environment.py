# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes into an execution environment: what ansible-builder finds in the collection, and the definition that is shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bindep.depends import Depends

BUILDER = str(Path(sys.executable).parent / "ansible-builder")
DEFINITION = Path("extensions") / "execution_environment" / "execution-environment.yml"


def builder(*words: str) -> str:
    done = subprocess.run([BUILDER, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packages(top: Path, *profiles: str) -> set[str]:
    """The system packages that bindep.txt names for a platform and profiles."""
    depends = Depends((top / "bindep.txt").read_text(encoding="utf-8"))
    return {rule[0] for rule in depends.active_rules(list(profiles))}


def test_introspection_finds_the_libraries_and_the_packages(top: Path, tmp_path: Path) -> None:
    # a root with this collection alone: others, such as openstack.cloud, have requirements of their own
    link = tmp_path / "ansible_collections" / "ferry" / "vmware"
    link.parent.mkdir(parents=True)
    link.symlink_to(top)
    found = yaml.safe_load(builder("introspect", "--sanitize", str(tmp_path)))
    wanted = [line.split("#")[0].strip() for line in (top / "requirements.txt").read_text().splitlines()]
    names = {line.split(">")[0].split("<")[0].strip() for line in found["python"] if "ferry.vmware" in line}
    assert names == {w.split(">")[0].split("<")[0] for w in wanted if w}
    assert any(line.startswith("nbdkit ") for line in found["system"])


@pytest.mark.parametrize(
    ("profiles", "wanted"),
    [
        (("platform:rpm", "platform:redhat", "platform:centos"), {"qemu-img", "nbdkit", "python3-libnbd"}),
        (("platform:dpkg", "platform:debian"), {"qemu-utils", "nbdkit", "python3-libnbd"}),
    ],
)
def test_packages_by_platform(top: Path, profiles: tuple[str, ...], wanted: set[str]) -> None:
    found = packages(top, *profiles)
    assert wanted <= found
    assert "nbdkit-vddk-plugin" not in found, "proprietary things only where asked for"
    assert ("nbdkit-vddk-plugin" in packages(top, *profiles, "vddk")) is ("platform:rpm" in profiles)


def test_the_definition_that_is_shipped_makes_a_context(top: Path, tmp_path: Path) -> None:
    builder("create", "-f", str(top / DEFINITION), "-c", str(tmp_path), "--output-filename", "Containerfile")
    text = (tmp_path / "Containerfile").read_text()
    given = yaml.safe_load((top / DEFINITION).read_text())
    assert f'EE_BASE_IMAGE="{given["images"]["base_image"]["name"]}"' in text
    assert "quay.io/ansible/" not in text, "ansible-builder's own default image"
    collections = yaml.safe_load((tmp_path / "_build" / "requirements.yml").read_text())["collections"]
    version = yaml.safe_load((top / "galaxy.yml").read_text())["version"]
    assert next(c for c in collections if c["name"] == "ferry.vmware")["version"] == f">={version}"


def test_meta_names_files_that_are_there(top: Path) -> None:
    given = yaml.safe_load((top / "meta" / "execution-environment.yml").read_text())
    assert given["version"] == 3
    assert all((top / file).is_file() for file in given["dependencies"].values()), json.dumps(given)
