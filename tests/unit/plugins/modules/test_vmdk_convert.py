# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vmdk_convert as Ansible runs it."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "format", ["streamOptimized", "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs"]
)
def test_another_controller_by_the_descriptor_alone(top: Path, raw: Path, tmp_path: Path, format: str) -> None:
    dest = str(tmp_path / "d.vmdk")
    first = run_module(top, "vmdk_convert", src=str(raw), dest=dest, format=format, adapter_type="ide")
    wish = {"src": dest, "dest": dest, "format": format, "adapter_type": "pvscsi", "hw_version": 19}
    said = run_module(top, "vmdk_convert", check=True, **wish)
    done = run_module(top, "vmdk_convert", **wish)
    assert (said["changed"], said["bytes_in"], said["bytes_out"]) == (done["changed"], done["bytes_in"], done["bytes_out"])
    assert done["changed"] and done["bytes_in"] == 0 and done["bytes_out"] < 2000 and done["digest"] == first["digest"]
    assert not run_module(top, "vmdk_convert", **wish)["changed"]
    told = run_module(top, "vmdk_info", path=dest)
    assert (told["create_type"], told["adapter_type"], told["hw_version"]) == (format, "pvscsi", 19)


def test_a_fifo(top: Path, raw: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(run_module, top, "vmdk_convert", src=str(raw), dest=str(pipe), format="streamOptimized")
        got = run_module(top, "vmdk_convert", src=str(pipe), dest=str(tmp_path / "d.raw"), format="raw")
    assert got["changed"] and got["digest"] == sent.result()["digest"]
    assert (tmp_path / "d.raw").read_bytes() == raw.read_bytes()
    failed = run_module(top, "vmdk_convert", src="-", dest=str(tmp_path / "e.raw"), format="raw")
    assert failed["failed"] and "FIFO" in failed["msg"]


def test_salvage(top: Path, raw: Path, tmp_path: Path) -> None:
    src = tmp_path / "s.vmdk"
    raw.write_bytes(random.Random(1).randbytes(1 << 20))
    run_module(top, "vmdk_convert", src=str(raw), dest=str(src), format="streamOptimized")
    src.write_bytes(src.read_bytes()[:700_000])
    wish = {"src": str(src), "dest": str(tmp_path / "d.raw"), "format": "raw"}
    assert run_module(top, "vmdk_convert", **wish)["failed"]
    done = run_module(top, "vmdk_convert", salvage=True, **wish)
    assert done["changed"] and done["lost"][-1]["start"] + done["lost"][-1]["length"] == 1 << 20
    assert "lost or not proven" in str(done["warnings"])
    assert not run_module(top, "vmdk_convert", salvage=True, **wish)["changed"]
