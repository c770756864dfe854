# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line where it hurts: pipes, signals, streams that are closed or full; three exit codes and no other."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import GRAIN, Disks

SIZE = 40 * GRAIN


class Engine:
    """C(python3 -m disk.vmdk) in the folder of the disks."""

    def __init__(self, top: Path, folder: Path) -> None:
        self.folder = folder
        self.env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(top / "plugins" / "module_utils")}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "disk.vmdk", *arguments]

    def run(self, *arguments: str, data: bytes | None = None, **more: Any) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        given.update({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})
        env = {**self.env, **given.pop("env", {})}
        return subprocess.run(self.command(*arguments), cwd=self.folder, env=env, check=False, timeout=60, **given)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
        )

    def shell(self, script: str) -> subprocess.CompletedProcess[bytes]:
        """C(script) with VMDK for the command."""
        text = script.replace("VMDK", " ".join(self.command()))
        return subprocess.run(["bash", "-c", text], cwd=self.folder, env=self.env, capture_output=True, check=False, timeout=60)


@pytest.fixture
def engine(top: Path, disks: Disks) -> Engine:
    disks.raw(SIZE)
    return Engine(top, disks.folder)


def refused(done: subprocess.CompletedProcess[bytes], name: str) -> None:
    """Code 1 and one line."""
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert said.startswith(f"vmdk: {name}: ") and said.endswith("\n") and said.count("\n") == 1, said


def test_through_pipes(engine: Engine, disks: Disks) -> None:
    """raw, stream, raw, each through standard streams; the result goes where the disk does not."""
    raw = (disks.folder / "src.raw").read_bytes()
    out = engine.run("convert", "src.raw", "-", "--format", "streamOptimized", "--adapter-type", "ide")
    assert out.returncode == 0
    told = json.loads(out.stderr)
    assert (told["changed"], told["bytes_out"], told["capacity"]) == (True, len(out.stdout), SIZE)
    back = engine.run("convert", "-", "-", "--format", "raw", "--checksum", "sha256", data=out.stdout)
    assert back.returncode == 0 and back.stdout == raw
    assert json.loads(back.stderr)["checksum"] == "sha256:" + hashlib.sha256(raw).hexdigest()
    kept = engine.run("convert", "-", "d.vmdk", "--format", "twoGbMaxExtentSparse", data=out.stdout)
    assert kept.returncode == 0 and json.loads(kept.stdout)["digest"] == told["digest"]
    assert engine.run("check", "d.vmdk").returncode == 0
    spooled = engine.run("convert", "-", "e.vmdk", "--format", "vmfs", data=raw)
    assert spooled.returncode == 0 and json.loads(spooled.stdout)["digest"] == told["digest"]
    assert sorted(os.listdir(disks.folder)) == ["d-s001.vmdk", "d.vmdk", "e-flat.vmdk", "e.vmdk", "src.raw"]


def test_refusals_of_pipes(engine: Engine, disks: Disks) -> None:
    refused(engine.run("convert", "src.raw", "-", "--format", "vmfs"), "src.raw")
    refused(engine.run("convert", "-", "-", "--format", "raw", data=b"x" * 512), "-")
    refused(engine.run("convert", "-", "d.raw", "--format", "raw"), "-")
    refused(engine.run("convert", "-", "d.raw", "--format", "raw", data=b"KDMV" + bytes(508)), "-")
    assert os.listdir(disks.folder) == ["src.raw"]


def test_streams_that_are_gone(engine: Engine) -> None:
    engine.run("convert", "src.raw", "a.vmdk", "--format", "streamOptimized")
    for script, codes in (
        ("VMDK convert a.vmdk - --format raw | head -c 100 >/dev/null; exit ${PIPESTATUS[0]}", (1,)),
        ("VMDK convert a.vmdk - --format raw >&-", (1,)),
        ("VMDK convert a.vmdk - --format raw >/dev/full", (1,)),
        ("VMDK convert - b.raw --format raw <&-", (1,)),
        ("VMDK info a.vmdk >/dev/full", (1,)),
        ("VMDK info a.vmdk --json | true; exit ${PIPESTATUS[0]}", (0, 1)),
        ("VMDK check a.vmdk >&-", (0, 1)),
        ("VMDK check a.vmdk 2>&-", (0,)),
        ("VMDK check absent 2>&-", (1,)),
        ("VMDK check absent 2>/dev/full", (1,)),
    ):
        done = engine.shell(script)
        assert done.returncode in codes, (script, done)
        assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, (script, done)
        assert done.stderr.count(b"\n") <= 1
    assert not (engine.folder / "b.raw").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("format", ["raw", "twoGbMaxExtentSparse", "qcow2"])
def test_signals(engine: Engine, number: signal.Signals, format: str) -> None:
    """Stopped while it waits for its source: one line, code 1, nothing left."""
    os.mkfifo(engine.folder / "pipe")
    with engine.start("convert", "pipe", "d.vmdk", "--format", format) as child:
        writer = os.open(engine.folder / "pipe", os.O_WRONLY)
        os.write(writer, b"x" * 5000)
        while not any(name.endswith("-spool") for name in os.listdir(engine.folder)):
            time.sleep(0.01)
        time.sleep(0.05)
        child.send_signal(number)
        out, said = child.communicate(timeout=20)
        os.close(writer)
    assert child.returncode == 1 and said == b"vmdk: pipe: interrupted\n" and not out
    assert sorted(os.listdir(engine.folder)) == ["pipe", "src.raw"]


def test_a_signal_that_was_ignored_stays_so(engine: Engine) -> None:
    done = engine.shell("trap '' HUP; VMDK convert src.raw d.vmdk --format vmfs & sleep 0.02; kill -HUP $!; wait $!")
    assert done.returncode == 0, done


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("convert", "src.raw"),
        ("convert", "src.raw", "d", "--format", "vdi"),
        ("convert", "src.raw", "d", "--format", "raw", "--threads", "0"),
        ("convert", "src.raw", "d", "--format", "raw", "--threads", "x"),
        ("convert", "src.raw", "d", "--format", "raw", "--hw-version", "-1"),
        ("convert", "src.raw", "d", "--format", "raw", "--compression-level", "10"),
        ("convert", "src.raw", "d", "--format", "raw", "--adapter-type", "sata"),
        ("check", "src.raw", "--threads", "9999999999999999999999"),
        ("nonsense", "x"),
    ],
)
def test_usage(engine: Engine, arguments: tuple[str, ...]) -> None:
    done = engine.run(*arguments)
    assert done.returncode == 2 and b"usage:" in done.stderr and b"Traceback" not in done.stderr
    assert os.listdir(engine.folder) == ["src.raw"]


def test_names_that_no_terminal_shows(engine: Engine) -> None:
    """Bytes that are no text, an encoding that has few letters."""
    name = b"a\xff\n\x1b[31m\xc3\xa9.vmdk"
    (engine.folder / os.fsdecode(name)).write_bytes(b"KDMV" + bytes(600))
    for env in ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C.UTF-8"}):
        done = engine.run("check", os.fsdecode(name), env=env)
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"\x1b" not in done.stderr
        for verb in ("info", "check"):
            assert engine.run(verb, os.fsdecode(name), env=env).returncode == 1
    for path in ("", "x" * 5000, "a/" * 3000, "/dev/null", ".", "src.raw/x", "x.ova/y"):
        for arguments in (
            ("info", path),
            ("check", path),
            ("convert", path, "out", "--format", "raw"),
            ("convert", "src.raw", f"./{path}/d", "--format", "raw") if path != "." else ("check", "."),
        ):
            if path or arguments[0] != "convert":
                done = engine.run(*arguments)
                assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr, (arguments, done)


def test_salvage(engine: Engine, disks: Disks) -> None:
    disks.raw(SIZE, content="full")
    engine.run("convert", "src.raw", "s.vmdk", "--format", "streamOptimized")
    path = disks.folder / "s.vmdk"
    path.write_bytes(path.read_bytes()[:-3000])
    refused(engine.run("convert", "s.vmdk", "d.raw", "--format", "raw"), "s.vmdk")
    done = engine.run("convert", "s.vmdk", "d.raw", "--format", "raw", "--salvage")
    assert done.returncode == 0 and isinstance(json.loads(done.stdout)["lost"], list)
    assert (disks.folder / "d.raw").stat().st_size == SIZE


def test_in_place(engine: Engine) -> None:
    engine.run("convert", "src.raw", "s.vmdk", "--format", "streamOptimized")
    done = engine.run("convert", "s.vmdk", "s.vmdk", "--format", "streamOptimized", "--adapter-type", "pvscsi", "--hw-version", "14")
    told = json.loads(done.stdout)
    assert (done.returncode, told["changed"], told["bytes_in"]) == (0, True, 0) and told["bytes_out"] < 2000


def test_a_full_file_system(engine: Engine, disks: Disks) -> None:
    """No room left: one line, code 1, nothing left. By a limit on the size of files."""
    disks.raw(SIZE, content="full")
    for format in ("raw", "streamOptimized", "monolithicSparse", "twoGbMaxExtentSparse", "vmfs", "qcow2"):
        done = engine.shell(f"ulimit -f 500; trap '' XFSZ; VMDK convert src.raw d.vmdk --format {format}")
        refused(done, "src.raw")
        assert os.listdir(disks.folder) == ["src.raw"]
