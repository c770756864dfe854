# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One session with vCenter for all the tasks of a run, against a vCenter of the tests' own that counts log-ins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.errors import ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, find, session_store
from tests.lab.vcenter import VCenter

from .vcenter_lab import running, warm_model

RUN = "lab-1-2"
#: A task: connects, asks, and leaves; with more words it stays until it is killed.
TASK = """
import os, sys, time
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, find
p = {"hostname": os.environ["VMWARE_HOST"], "port": os.environ["VMWARE_PORT"], "username": os.environ["VMWARE_USER"],
     "password": os.environ["VMWARE_PASSWORD"], "ca_path": os.environ["VMWARE_CA_PATH"]}
with client.connect(p) as session:
    find.find_vm(session, "db")
    if len(sys.argv) > 1:
        print("in", flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    folder = tmp_path_factory.mktemp("sessions")
    with running(folder, warm_model(folder)) as lab:
        yield lab


@pytest.fixture
def env(vcenter: VCenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a task of the run, with a runtime folder of its own; the lab's counters begin anew."""
    more = {**vcenter.env(), "XDG_RUNTIME_DIR": str(tmp_path), "FERRY_RUN": RUN}
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    vcenter._call("DELETE", "/stats")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def params(env: dict[str, str]) -> dict[str, Any]:
    names = {"hostname": "HOST", "port": "PORT", "username": "USER", "password": "PASSWORD", "ca_path": "CA_PATH"}
    return {option: env[f"VMWARE_{name}"] for option, name in names.items()}


def counted(vcenter: VCenter) -> tuple[int, int]:
    """Log-ins and log-outs."""
    methods = vcenter.get("/stats")["methods"]
    return methods.get("Login", 0), methods.get("Logout", 0)


def tasks(env: dict[str, str], count: int) -> None:
    started = [subprocess.Popen([sys.executable, "-c", TASK], env=env) for _n in range(count)]
    assert [t.wait(120) for t in started] == [0] * count


def test_tasks_at_the_same_time_log_in_once(vcenter: VCenter, env: dict[str, str]) -> None:
    tasks(env, 6)
    tasks(env, 1)
    assert counted(vcenter) == (1, 0)
    assert session_store.end_run(RUN) == 1
    assert counted(vcenter) == (1, 1)


@pytest.mark.fault("vCenter ends the session of a run", where="vCenter", ends="one task logs in again, the others take that session")
def test_an_expired_session_is_made_again_once(vcenter: VCenter, env: dict[str, str], params: dict[str, Any]) -> None:
    with client.connect(params) as one, client.connect(params) as two:
        vcenter.fault("session_expire")
        for session in (one, two, one):
            assert find.find_vm(session, "db").name == "db"
        assert (one.generation, two.generation) == (2, 2) and one.cookie == two.cookie
    assert counted(vcenter) == (2, 0)
    vcenter.fault("session_expire")
    tasks(env, 3)
    assert counted(vcenter) == (3, 0)
    session_store.end_run(RUN)


def test_nobody_gets_it_with_a_wrong_password(vcenter: VCenter, env: dict[str, str], params: dict[str, Any]) -> None:
    with client.connect(params):
        with pytest.raises(ServerError) as e:
            client.connect({**params, "password": "not-the-password"})
        assert e.value.code == "login" and "not-the-password" not in str(e.value)
    session_store.end_run(RUN)
    assert counted(vcenter) == (2, 1), "one of the two was refused"


def test_a_session_that_lives_and_is_refused_is_not_made_again_for_all(
    vcenter: VCenter, env: dict[str, str], params: dict[str, Any]
) -> None:
    """A reader of /folder that gets 403 asks for a new session. It gets one of its own, which it logs out itself."""
    with client.connect(params) as one, client.connect(params) as two:
        access = two.folder_access()
        access.headers()
        access.renew()
        assert find.find_vm(two, "db").name == "db" and one.cookie != two.cookie
    assert counted(vcenter) == (2, 1)
    tasks(env, 1)
    assert counted(vcenter) == (2, 1)
    assert session_store.end_run(RUN) == 1


@pytest.mark.fault(
    "SIGKILL of tasks that use the session of a run", where="vCenter", ends="the others go on with it; it is logged out at the end"
)
def test_killed_tasks_leave_it_to_the_others(vcenter: VCenter, env: dict[str, str]) -> None:
    users = [subprocess.Popen([sys.executable, "-c", TASK, "stay"], env=env, stdout=subprocess.PIPE, text=True) for _n in range(3)]
    try:
        for user in users:
            assert user.stdout is not None and user.stdout.readline() == "in\n"
        assert session_store.end_run(RUN) == 0, "it is in use"
    finally:
        for user in users:
            user.send_signal(signal.SIGKILL)
            user.communicate(timeout=30)
    tasks(env, 1)  # the last to leave a run that has ended
    assert counted(vcenter) == (1, 1)


PYTHON = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
PLAY = """
- hosts: all
  gather_facts: false
  strategy: host_pinned
  connection: local
  tasks:
    - ferry.vmware.vm_info:
        vms: ["{{ ferry_vm }}"]
    - ferry.vmware.vm_disk_usage:
        vms: ["{{ ferry_vm }}"]
    - ferry.vmware.vm_source_state:
        vm: "{{ ferry_vm }}"
"""


@pytest.mark.parametrize("reuse", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_play_of_many_forks_logs_in_once(vcenter: VCenter, env: dict[str, str], tmp_path: Path, reuse: bool) -> None:
    """Three tasks for each of four hosts; and nothing of the session is in what -vvv shows, or in any file afterwards."""
    hosts = {name: {"ferry_vm": name} for name in ("db", "plain", "old", "onnfs")}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": {"ferry_session_reuse": reuse, **PYTHON}}}))
    (tmp_path / "play.yml").write_text(PLAY)
    env = {k: v for k, v in env.items() if k != "FERRY_RUN"} | {"ANSIBLE_LOCALHOST_WARNING": "false"}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-vvv", "-f", "10", "-i", "hosts.yml", "play.yml"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert counted(vcenter) == ((1, 1) if reuse else (12, 12))
    said = done.stdout + done.stderr
    assert ("FERRY_RUN" in said) is reuse
    assert "vmware_soap_session" not in said and not re.search(re.escape(vcenter.place.password()), said)
    assert not list((tmp_path / "ferry-vmware-sessions").iterdir()) if reuse else not (tmp_path / "ferry-vmware-sessions").exists()
