# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The paths of progress lines: many forks on one terminal, a real sshd, and ansible-runner's pipe, by which AWX shows them."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.plugin_utils.long_task import LongTask

from .test_long_task import FIXTURES, PATIENCE, ROOT, SHOW, Playbook, Site, alive, results, site, until

__all__ = ["site"]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
RUNNER = Path(sys.executable).parents[2] / "venv-rulebook" / "bin" / "ansible-runner"
LINE = re.compile(
    r"^  web0\d · Hard disk \d +(?:\d+\.\d%  +\d+\.\d of 42\.0 MiB(?: +\d+\.\d MB/s)?(?: +\d\d:\d\d:\d\d left)?"
    r"|done +42\.0 MiB  moved \d+\.\d MiB, skipped .+, in [\d.:]+( s)?( \(\d+\.\d MB/s\))?)$"
)
PLUGINS = Path(__file__).resolve().parents[4] / "plugins"
LONG = sorted(p.stem for p in (PLUGINS / "modules").glob("*.py") if "ferry.vmware.long_task" in p.read_text(encoding="utf-8"))


def seen(process: Playbook, what: Callable[[], Any], name: str) -> None:
    """Wait for something while the playbook runs; what it said stands in the error."""
    try:
        until(lambda: what() or process.poll() is not None, name)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{process.text()}") from None


@pytest.mark.parametrize("name", LONG)
def test_whatever_takes_long_has_this_action(name: str) -> None:
    """A module with the options of long tasks is run by the action of its name; vm_precopy runs vm_disk_copy's."""
    action = importlib.import_module(f"ansible_collections.ferry.vmware.plugins.action.{name}")
    if name == "vm_precopy":
        assert action.COPY == "ferry.vmware.vm_disk_copy"
    else:
        assert issubclass(action.ActionModule, LongTask)
        assert action.ActionModule.MODULE.rpartition(".")[2] == name


def test_these_take_long() -> None:
    assert {"vm_disk_copy", "vmdk_convert", "glance_vmdk_upload", "vcd_datastore_evacuate"} <= set(LONG)


@pytest.mark.slow
def test_many_forks_write_whole_lines(site: Site) -> None:
    names = [f"web0{n}" for n in range(6)]
    (site.top / "inventory").write_text(
        "\n".join(names) + f"\n[all:vars]\nansible_connection=local\nansible_python_interpreter={sys.executable}\n"
    )
    task = {"ferry.toy.long": site.toy(progress_interval=0.2, disks=["Hard disk 1", "Hard disk 2", "Hard disk 3"])}
    site.env["ANSIBLE_FORKS"] = "6"
    process = site.start(task, hosts="all")
    until(lambda: len(site.log("begin")) == 6, "six at once")
    until(lambda: process.text().count(" · ") > 30, "many lines")
    site.go()
    output = process.end()
    assert process.returncode == 0, output
    mixed = [line for line in output.splitlines() if "·" in line and not LINE.match(line)]
    assert mixed == []
    assert all(output.count(f"{name} · Hard disk {n}") >= 1 for name in names for n in (1, 2, 3))


@pytest.mark.slow
def test_quiet_when_asked(site: Site) -> None:
    site.go()
    tasks = [{"ferry.toy.long": site.toy(progress_interval=0)}, {"ferry.toy.long": site.toy(), "no_log": True}]
    output = site.start(*tasks).end()
    assert "changed=2" in output and "·" not in output and "Hard disk" not in output


# -- a real sshd --------------------------------------------------------------------------------------------------


class Sshd:
    """An sshd of the test's own on a loopback port, which lets this user in by a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        shutil.copyfile(folder / "user.pub", folder / "authorized")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
            f"SetEnv HOME={folder / 'remote'}\nMaxStartups 100\n"
        )
        (folder / "remote").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with open(self.folder / "sshd.log", "ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        until(self._answers, "sshd")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _sessions(self) -> list[int]:
        """All processes of its sessions, those of the commands in them left out."""
        assert self.process is not None
        parents = {self.process.pid}
        found: list[int] = []
        while True:
            more = []
            for entry in Path("/proc").glob("[0-9]*/stat"):
                try:
                    head, _close, rest = entry.read_text().rpartition(")")
                except OSError:
                    continue
                pid = int(entry.parent.name)
                if int(rest.split()[1]) in parents and "(sshd" in head and pid not in found:
                    more.append(pid)
            if not more:
                return found
            found += more
            parents = set(more)

    def cut(self) -> int:
        """Break all connections; sshd itself goes on."""
        pids = self._sessions()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def stop(self) -> None:
        """sshd is away, with all its connections."""
        self.cut()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.cut()

    def host(self) -> str:
        options = f"-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o ControlPath={self.folder}/%%C -o ControlMaster=auto -o ControlPersist=60s"
        return (
            f"ssh01 ansible_connection=ssh ansible_host=127.0.0.1 ansible_port={self.port} ansible_user={getpass.getuser()} "
            f"ansible_ssh_private_key_file={self.folder / 'user'} ansible_ssh_common_args='{options}' ansible_remote_tmp={self.folder / 'remote'}/tmp "
            f"ansible_python_interpreter={sys.executable}\n"
        )


@pytest.fixture
def sshd(site: Site, tmp_path: Path) -> Iterator[Sshd]:
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    made = Sshd(folder)
    made.start()
    (site.top / "inventory").write_text(made.host())
    site.status = folder / "remote" / ".ansible" / "ferry"
    yield made
    made.stop()


needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd (Debian: openssh-server)")
needs_place = pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/run/sshd").is_dir(), reason="root's sshd needs the folder /run/sshd, which openssh-server makes"
)


@needs_sshd
@needs_place
@pytest.mark.slow
@pytest.mark.fault(
    "ssh to the conversion host breaks, twice, and its sshd is away for a while",
    where="controller",
    ends="the copy goes on; it is followed again",
)
def test_a_broken_ssh_connection_is_taken_up_again(site: Site, sshd: Sshd) -> None:
    process = site.start({"ferry.toy.long": site.toy(), "register": "r"}, SHOW, hosts="ssh01")
    pid = until(site.running, "a run")["pid"]
    assert sshd.cut() > 0
    printed = process.text().count("·")
    seen(process, lambda: process.text().count("·") > printed + 1, "lines again: no command was under way, and the next one connects anew")
    sshd.stop()
    seen(process, lambda: "connection lost" in process.text(), "the loss")
    assert alive(pid)
    sshd.start()
    seen(process, lambda: "connection is back after" in process.text(), "the connection again")
    site.go()
    output = process.end()
    assert process.returncode == 0, output
    assert [p for _n, _w, p in site.log("end")] == [pid] and len(site.log("begin")) == 1
    assert results(output)[0]["changed"]


@needs_sshd
@needs_place
@pytest.mark.slow
@pytest.mark.fault(
    "ssh breaks while a copy is being started", where="controller", ends="the run that did start is found and followed: one writer"
)
def test_ssh_that_breaks_during_the_launch(site: Site, sshd: Sshd, tmp_path: Path) -> None:
    """The answer to the start never comes: ssh ends as it does when the wire is cut, after the wrapper has begun its work."""
    cut = tmp_path / "ssh-cut"
    cut.write_text(
        f'#!/bin/sh\ncase "$*" in *"async_wrapper.py j"*)\n  if mkdir "{tmp_path}/once" 2>/dev/null; then ssh "$@" >/dev/null 2>&1; exit 255; fi;;\n'
        'esac\nexec ssh "$@"\n'
    )
    cut.chmod(0o700)
    site.env["ANSIBLE_SSH_EXECUTABLE"] = str(cut)
    site.env["ANSIBLE_PIPELINING"] = "false"
    process = site.start({"ferry.toy.long": site.toy(), "register": "r"}, SHOW, hosts="ssh01")
    seen(process, lambda: "·" in process.text(), "lines of the run that did start")
    site.go()
    output = process.end()
    assert process.returncode == 0, output
    assert (tmp_path / "once").is_dir() and "connection lost" in output
    # Started again before the first one had said that it lives, a second one may run when that has ended: one after another, never both.
    order = [(word, pid) for _name, word, pid in site.log("")]
    assert [word for word, _pid in order] in (["begin", "end"], ["begin", "end"] * 2)
    assert all(begun[1] == ended[1] for begun, ended in zip(order[::2], order[1::2], strict=True))


# -- AWX ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not RUNNER.exists(), reason="ansible-runner is not installed: make venv-rulebook")
def test_awx_shows_each_line_while_it_runs(site: Site, tmp_path: Path) -> None:
    """By ansible-runner's pipe, as AWX's receptor has it: transmit, worker, process. Each line is an event of its own, at once."""
    private = tmp_path / "private"
    (private / "project").mkdir(parents=True)
    (private / "inventory").mkdir()
    shutil.copyfile(site.top / "inventory", private / "inventory" / "hosts")
    play = [{"hosts": "web01", "gather_facts": False, "tasks": [{"ferry.toy.long": site.toy()}]}]
    (private / "project" / "play.yml").write_text(yaml.safe_dump(play))
    env = {**site.env, "PATH": f"{Path(sys.executable).parent}:{site.env['PATH']}", "ANSIBLE_COLLECTIONS_PATH": f"{FIXTURES}:{ROOT}"}
    env.pop("ANSIBLE_INVENTORY")
    runner, ident = str(RUNNER), "live"
    pipe = subprocess.PIPE
    quiet = open(tmp_path / "pipe.txt", "wb")  # noqa: SIM115 - shared by three processes, closed below
    transmit = subprocess.Popen([runner, "transmit", str(private), "-p", "play.yml", "-i", ident], stdout=pipe, stderr=quiet, env=env)
    worker = subprocess.Popen(
        [runner, "worker", f"--private-data-dir={tmp_path / 'worker'}"], stdin=transmit.stdout, stdout=pipe, stderr=quiet, env=env
    )
    processed = subprocess.Popen([runner, "process", str(private), "-i", ident], stdin=worker.stdout, stdout=quiet, stderr=quiet, env=env)
    quiet.close()
    events = private / "artifacts" / ident / "job_events"

    def lines() -> list[str]:
        found = []
        for path in events.glob("*.json") if events.is_dir() else ():
            try:
                event = json.loads(path.read_text())
            except ValueError:
                continue  # half written
            if event["event"] == "verbose" and "web01 · Hard disk 1" in event.get("stdout", ""):
                found.append(event["stdout"])
        return found

    try:
        until(lambda: len(lines()) >= 3 or processed.poll() is not None, "lines while it runs")
        assert site.running() is not None, (tmp_path / "pipe.txt").read_text()
        site.go()
        for process in (transmit, worker, processed):
            assert process.wait(PATIENCE) == 0, (tmp_path / "pipe.txt").read_text()
    finally:
        for process in (transmit, worker, processed):
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
    assert any(re.search(r"\d+\.\d%", line) for line in lines()) and any("done" in line for line in lines())
    assert all(line.count("web01") == 1 for line in lines()), "an event per line"
