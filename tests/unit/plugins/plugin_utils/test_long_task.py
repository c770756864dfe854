# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base action of long tasks, by real runs of ansible-playbook with a toy module (tests/unit/fixtures/collections).

Nothing here waits for a fixed time: each step waits until something is to be seen, and a toy run ends when its file C(go)
appears.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins import plugin_utils

FIXTURES = Path(__file__).parents[2] / "fixtures" / "collections"
ROOT = Path(list(plugin_utils.__path__)[0]).parents[4]
PATIENCE = 120.0
pytestmark = pytest.mark.slow


def until(what: Callable[[], Any], name: str) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not seen within {PATIENCE:g} s: {name}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Playbook(subprocess.Popen):  # type: ignore[type-arg]  # of str: asked for by text=True
    """A running ansible-playbook whose output can be read meanwhile."""

    def __init__(self, command: list[str], output: Path, **kwargs: Any) -> None:
        self.output = output
        with output.open("w") as stream:
            super().__init__(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, **kwargs)

    def text(self) -> str:
        return self.output.read_text()

    def end(self) -> str:
        self.wait(timeout=PATIENCE)
        return self.text()


class Site:
    """A controller with its inventory, and the folder that the toy works in."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.folder = top / "work"
        self.top = top
        for path in (self.home, self.folder):
            path.mkdir()
        self.status = self.home / ".ansible" / "ferry"
        self.started: list[Playbook] = []
        self.breaks = top / "breaks"
        self.breaks.write_text("")
        (top / "inventory").write_text(
            "web01\ndb01\nwire01 ansible_connection=ferry.toy.flaky\n[all:vars]\nansible_connection=local\n"
            f"ansible_python_interpreter={sys.executable}\n"
        )
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")},
            "HOME": str(self.home),
            "ANSIBLE_COLLECTIONS_PATH": f"{FIXTURES}:{ROOT}",
            "ANSIBLE_INVENTORY": str(top / "inventory"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "TOY_BREAK": str(self.breaks),
            "PYTHONPATH": "",
            "LC_ALL": "C.UTF-8",
        }

    def toy(self, **args: Any) -> dict[str, Any]:
        return {"name": "{{ inventory_hostname }}", "folder": str(self.folder), "progress_interval": 0.5, **args}

    def start(self, *tasks: dict[str, Any], hosts: str = "web01", **play: Any) -> Playbook:
        book = self.top / f"play{len(self.started)}.yml"
        book.write_text(yaml.safe_dump([{"hosts": hosts, "gather_facts": False, "tasks": list(tasks), **play}], allow_unicode=True))
        command = [sys.executable, "-m", "ansible", "playbook", str(book)]
        process = Playbook(command, book.with_suffix(".txt"), env=self.env, cwd=self.top)
        self.started.append(process)
        return process

    def go(self) -> None:
        (self.folder / "go").write_text("")

    def log(self, word: str) -> list[tuple[str, str, int]]:
        try:
            rows = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        except OSError:
            return []
        return [(name, what, int(pid)) for name, what, pid in rows if what.startswith(word)]

    def running(self) -> dict[str, Any] | None:
        """The status file of the run that is moving."""
        for path in self.status.glob("*.json"):
            try:
                status: dict[str, Any] = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if status["disks"] and status["state"] == "running":
                return status
        return None

    def clean_up(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.go()
        for _name, _word, pid in self.log("begin"):
            until(lambda pid=pid: not alive(pid), "the end of the toy")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.clean_up()
    shutil.rmtree(tmp_path, ignore_errors=True)


def results(output: str) -> list[dict[str, Any]]:
    """What the tasks C(debug) with a C(RESULT) line printed."""
    return [json.loads(json.loads(f'"{found}"')) for found in re.findall(r'"msg": "RESULT (.*)"', output)]


SHOW = {"ansible.builtin.debug": {"msg": "RESULT {{ r | to_json }}"}}


def test_two_hosts_two_disks_and_nothing_left(site: Site) -> None:
    toy = {"name": "{{ inventory_hostname }}", "disks": ["Hard disk 1", "ハードディスク 2"]}
    task = {"ferry.toy.long": toy, "register": "r", "environment": {"TOY": "seen"}, "delegate_to": "web01"}
    defaults = {"group/ferry.toy.toys": {"folder": str(site.folder), "progress_interval": 0.5}}
    process = site.start(task, SHOW, hosts="web01:db01", module_defaults=defaults)
    until(lambda: len(site.log("begin")) == 2 and site.running(), "both under way")
    until(lambda: "web01 · Hard disk 1" in process.text(), "a line while it runs")
    modes = {path.name: path.stat().st_mode & 0o777 for path in [site.status, *site.status.iterdir()]}
    assert modes.pop("ferry") == 0o700
    assert set(modes.values()) == {0o600}
    site.go()
    output = process.end()
    assert process.returncode == 0, output
    for line in (
        r"^  web01 · Hard disk 1 +\d+\.\d%  +\d+\.\d of 42\.0 MiB +\d+\.\d MB/s",
        r"^  db01 · Hard disk 1 +done +42\.0 MiB  moved 42\.0 MiB, skipped 0 B, in ",
        r"^  web01 · ハードディスク 2 +done +42\.0 MiB  moved 38\.1 MiB, skipped 3\.8 MiB, in ",
    ):
        assert re.search(line, output, re.M), (line, output)
    found = results(output)
    assert len(found) == 2
    for one in found:
        assert one["changed"]
        assert one["environment"] == "seen"
        assert one["steps"] > 0
        assert not {"ansible_job_id", "started", "finished", "results_file", "stdout"} & set(one)
        assert "FERRY_TASK" not in json.dumps(one)
    assert not list(site.status.iterdir())
    assert not list((site.home / ".ansible_async").iterdir())


def test_what_is_refused_what_fails_and_check_mode(site: Site) -> None:
    tasks = [
        {"ferry.toy.long": site.toy(), "async": 10, "poll": 1},
        {"ferry.toy.long": site.toy(progress_interval="soon")},
        {"ferry.toy.long": site.toy(colour="red")},
        {"ferry.toy.long": site.toy(crash=True)},
        {"ferry.toy.long": site.toy(), "check_mode": True},
    ]
    steps = [step for task in tasks for step in ({**task, "register": "r", "ignore_errors": True}, SHOW)]
    output = site.start(*steps).end()
    own_async, interval, unknown, crash, check = results(output)
    assert own_async["failed"]
    assert "take async and poll off" in own_async["msg"]
    assert interval["failed"]
    assert "progress_interval must be a number" in interval["msg"]
    assert unknown["failed"]
    assert "colour" in unknown["msg"]
    assert crash["failed"]
    assert crash["failure"]["code"] == "vanished"
    assert "the same command again" in crash["msg"]
    assert check["changed"]
    assert check["task"] == []
    assert [name for name, _word, _pid in site.log("begin")] == ["web01"]  # only the crash began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_of_the_playbook_stops_the_module(site: Site, number: signal.Signals) -> None:
    process = site.start({"ferry.toy.long": site.toy()})
    pid = until(site.running, "a run")["pid"]
    process.send_signal(number)
    output = process.end()
    assert process.returncode != 0, output
    until(lambda: not alive(pid), "the end of the module")
    assert site.log("interrupted:")
    assert not site.log("end")


def test_kill_of_the_playbook_stops_the_module_and_the_next_run_goes_on(site: Site) -> None:
    process = site.start({"ferry.toy.long": site.toy(lease_seconds=0)})
    pid = until(site.running, "a run")["pid"]
    process.kill()
    until(lambda: not alive(pid), "the end of the module")
    assert site.log("interrupted:")
    assert not site.log("end")
    site.go()
    output = site.start({"ferry.toy.long": site.toy(lease_seconds=0)}).end()
    assert "changed=1" in output
    assert len(site.log("end")) == 1
    assert not list(site.status.iterdir())
    assert not list((site.home / ".ansible_async").iterdir())


def test_timeout_of_the_task_stops_the_module(site: Site) -> None:
    process = site.start({"ferry.toy.long": site.toy(), "timeout": 5})
    pid = until(lambda: site.log("begin"), "a run")[0][2]
    assert "Timed out" in process.end() or "timeout" in process.text().lower()
    until(lambda: not alive(pid), "the end of the module")
    assert site.log("interrupted:")


def kill_all(process: Playbook) -> None:
    """The controller's machine dies: ansible-playbook and its workers at once."""
    workers = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid:
            workers.append(int(entry.parent.name))
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    process.kill()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def test_a_dead_controller_and_reattach(site: Site) -> None:
    process = site.start({"ferry.toy.long": site.toy(lease_seconds=0)})
    pid = until(site.running, "a run")["pid"]
    kill_all(process)
    second = site.start({"ferry.toy.long": site.toy(lease_seconds=0), "register": "r"}, SHOW)
    third = site.start({"ferry.toy.long": site.toy(lease_seconds=0, disks=["Hard disk 9"]), "register": "r"}, SHOW)  # another run
    until(lambda: len(site.log("begin")) == 2, "the other run")
    assert alive(pid)
    site.go()
    output = second.end()
    assert f"goes on with the run that is still alive (process {pid})" in output
    assert results(output)[0]["changed"]
    assert ("web01", "end", pid) in site.log("end")
    assert "goes on with" not in third.end()
    assert len(site.log("begin")) == 2


def test_without_a_sign_of_life_the_module_stops(site: Site) -> None:
    process = site.start({"ferry.toy.long": site.toy(lease_seconds=1.5)})
    pid = until(site.running, "a run")["pid"]
    kill_all(process)
    until(lambda: not alive(pid), "the end of the module")
    assert "no_sign_of_life" in site.log("interrupted:")[0][1]


def test_terminated_module_is_a_failure_that_says_so(site: Site) -> None:
    process = site.start({"ferry.toy.long": site.toy(), "register": "r", "ignore_errors": True}, SHOW)
    os.kill(until(site.running, "a run")["pid"], signal.SIGTERM)
    output = process.end()
    failed = results(output)[0]
    assert failed["failed"]
    assert failed["failure"]["code"] == "interrupted"
    assert "SIGTERM" in failed["msg"]
    assert re.search(r"web01 · Hard disk 1 +failed at .* after ", output)


def test_a_broken_wire_while_starting_and_while_running(site: Site) -> None:
    site.breaks.write_text("async_wrapper.py 1 after\ntouch\\x20-c 0 before\n")
    task = {"ferry.toy.long": site.toy(), "register": "r"}
    process = site.start(task, SHOW, hosts="wire01")
    pid = until(site.running, "a run")["pid"]
    site.breaks.write_text("-c 2 before\n")
    until(lambda: site.breaks.read_text().startswith("-c 0"), "the break")
    site.go()
    output = process.end()
    assert process.returncode == 0, output
    assert output.count("connection lost (the wire was cut)") == 2
    assert output.count("connection is back after") == 1
    assert [p for _n, _w, p in site.log("end")] == [pid]
    assert results(output)[0]["changed"]


def test_two_playbooks_at_once_are_one_run(site: Site) -> None:
    both = [site.start({"ferry.toy.long": site.toy()}) for _start in range(2)]
    until(site.running, "a run")
    until(lambda: len(list((site.home / ".ansible_async").glob("j*"))) == 2 or any(p.poll() is not None for p in both), "two starts")
    time.sleep(0.5)
    site.go()
    outputs = [p.end() for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    # Whoever comes too late for the result asks again. Never do two work at the same time.
    words = [word for _name, word, _pid in site.log("") if not word.startswith("busy:")]
    assert words in (["begin", "end"], ["begin", "end", "begin", "end"]), outputs
    assert any("changed=1" in output for output in outputs)
