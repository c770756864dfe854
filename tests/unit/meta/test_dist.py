# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The archive: the same bytes for the same tree, and nothing in it that is for working on the collection."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml


def built(top: Path, folder: Path) -> Path:
    done = subprocess.run([sys.executable, str(top / "tools" / "dist.py"), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.mark.slow
def test_the_archive(top: Path, tmp_path: Path) -> None:
    # Both from one copy of the tree: while tests run, somebody may be at work in it.
    tree = tmp_path / "tree"
    subprocess.run(["cp", "-a", str(top), str(tree)], check=True)
    first = built(tree, tmp_path / "one")
    os.utime(tree / "README.md")
    (tree / "plugins" / "modules" / "vm_info.py").chmod(0o664)
    second = built(tree, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    assert (tmp_path / "one" / f"{first.name}.sha256").read_text() == f"{digest}  {first.name}\n"
    with tarfile.open(first) as archive:
        names = archive.getnames()
        listed = archive.extractfile("FILES.json")
        manifest = archive.extractfile("MANIFEST.json")
        assert listed is not None and manifest is not None
        files = listed.read()
        described = json.loads(manifest.read())
    assert names[:2] == ["MANIFEST.json", "FILES.json"]
    assert described["file_manifest_file"]["chksum_sha256"] == hashlib.sha256(files).hexdigest()
    assert described["collection_info"]["version"] == yaml.safe_load((top / "galaxy.yml").read_text())["version"]
    assert {"README.md", "LICENSE", "plugins/modules/vm_disk_copy.py", "meta/runtime.yml", "bindep.txt", "requirements.txt"} <= set(names)
    unshipped = ("build", "tools", "tests/lab", "tests/bench", "demo", "Makefile", ".ci", ".git", "extensions/molecule/shared")
    assert [n for n in names if n in unshipped or n.startswith(tuple(f"{u}/" for u in unshipped))] == []
