# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vmdk_convert as Ansible runs it."""

from __future__ import annotations

import os
from pathlib import Path

from .test_vmdk_info import raw, run_module

__all__ = ["raw"]


def test_changes_once(top: Path, raw: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d.vmdk"
    wish = {"src": str(raw), "dest": str(dest), "format": "streamOptimized", "checksum": "sha256"}
    said = run_module(top, "vmdk_convert", check=True, **wish)
    assert said["changed"] and not dest.exists()
    first, second = (run_module(top, "vmdk_convert", **wish) for _n in range(2))
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["bytes_out"] == dest.stat().st_size == said["bytes_out"]
    assert (first["digest"], first["checksum"]) == (second["digest"], second["checksum"])
    assert first.keys() >= {"create_type", "capacity", "bytes_in", "bytes_out", "digest", "seconds"}
    assert not run_module(top, "vmdk_convert", check=True, **wish)["changed"]


def test_refuses_with_facts(top: Path, raw: Path, tmp_path: Path) -> None:
    src = tmp_path / "s.vmdk"
    src.write_bytes(b"KDMV" + bytes(600))
    failed = run_module(top, "vmdk_convert", src=str(src), dest=str(tmp_path / "d.raw"), format="raw")
    assert failed["failed"] and failed["failure"]["details"]["offset"] == 4
    dest = tmp_path / "letter.raw"
    dest.write_bytes(b"a letter")
    failed = run_module(top, "vmdk_convert", src=str(raw), dest=str(dest), format="raw")
    assert failed["failed"] and "force" in failed["msg"] and dest.read_bytes() == b"a letter"
    assert sorted(os.listdir(tmp_path)) == ["disk.raw", "letter.raw", "s.vmdk"]
