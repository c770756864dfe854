# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vSphere layer against the lab's vCenter and its demo VMs. What a test changes it puts back."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, disks, find, guest, properties, source_state

DB01 = "50210a1b-0002-4c6e-9f01-7a1e5b1c0002"
LEGACY = "legacy01 在庫 管理"


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    e = os.environ
    return {
        "hostname": e["VMWARE_HOST"],
        "port": int(e["VMWARE_PORT"]),
        "username": e["VMWARE_USER"],
        "password": e["VMWARE_PASSWORD"],
        "ca_path": e["VMWARE_CA_PATH"],
        "validate_certs": True,
    }


@pytest.fixture
def session(params: dict[str, Any]) -> Iterator[client.Session]:
    with client.connect(params) as found:
        yield found


def control(method: str, path: str, **body: Any) -> Any:
    """A request to the lab's control port."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(os.environ["FERRY_VCENTER_CONTROL"] + path, data=data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def faults() -> Iterator[Any]:
    """Makes the lab fail, and stops that at the end."""
    yield lambda **fault: control("POST", "/faults", **fault)
    control("DELETE", "/faults")


@pytest.fixture
def db01(session: client.Session) -> Iterator[find.VmRef]:
    """The VM db01, powered on; afterwards as it was."""
    vm = find.find_vm(session, DB01)
    was = source_state.read_state(session, vm)
    source_state.apply(session, vm, source_state.Wanted(power="on"))
    yield vm
    control("DELETE", "/faults")
    back = source_state.Wanted(power=was.power, note="", attributes={"ferry.test": ""})
    source_state.apply(session, vm, back)


def test_wrong_password_and_untrusted_certificate(params: dict[str, Any]) -> None:
    with pytest.raises(ServerError) as e:
        client.connect({**params, "password": "not-the-password"})
    assert e.value.code == "login"
    assert "not-the-password" not in str(e.value)
    with pytest.raises(ServerError) as e:
        client.connect({**params, "ca_path": None})
    assert e.value.code == "untrusted_certificate"


@pytest.mark.parametrize(
    "wanted", ["db01", "databases/db01", "/DC0/vm/production/databases/db01", DB01, DB01.upper(), "42210a1b-0002-4c6e-9f01-7a1e5b1c0002"]
)
def test_a_vm_is_found_by(session: client.Session, wanted: str) -> None:
    vm = find.find_vm(session, wanted)
    assert (vm.path, vm.instance_uuid) == ("/DC0/vm/production/databases/db01", DB01)
    assert find.find_vm(session, vm.moref) == vm


def test_all_unknown_vms_are_named(session: client.Session) -> None:
    with pytest.raises(BadInput) as e:
        find.find_vms(session, ["web01", "DB01", "nobody", "vm-99999", "/DC0/vm/production/web01"])
    assert e.value.details["unknown"] == ["DB01", "nobody", "vm-99999", "/DC0/vm/production/web01"]
    assert "close: db01" in str(e.value)


def test_facts_of_a_wave_take_two_questions(session: client.Session) -> None:
    vms = find.find_vms(session, [LEGACY, "db01", "web01"])
    control("DELETE", "/stats")
    facts = guest.vm_facts(session, vms)
    asked = control("GET", "/stats")["methods"]
    assert asked == {"RetrievePropertiesEx": 2}
    assert [f["name"] for f in facts] == [LEGACY, "db01", "web01"]
    db = facts[1]
    assert (db["firmware"], db["cpus"], db["memory_mb"], db["datacenter"], db["cluster"], db["host"]) == (
        "efi",
        2,
        1024,
        "DC0",
        "C0",
        "esx2",
    )
    assert db["custom_attributes"]["backup"] == "nightly"
    assert [d["address"] for d in db["disks"]] == ["scsi0:0", "scsi1:0", "scsi1:1"]
    assert [d["label"] for d in db["disks"]] == ["Hard disk 1", "Hard disk 2", "Hard disk 3"]
    assert [d["thin"] for d in db["disks"]] == [True, True, False]
    assert [(n["mac"], n["network"], n["type"]) for n in db["nics"]] == [
        ("00:50:56:0a:00:22", "VM Network", "vmxnet3"),
        ("00:50:56:0a:00:11", "backend", "vmxnet3"),
    ]
    ide = facts[0]["disks"][0]
    assert (ide["address"], ide["eager"], ide["datastore"], ide["datastore_type"]) == ("ide0:0", True, "local-esx1", "VMFS")
    assert json.loads(json.dumps(facts)) == facts


def test_properties_come_in_pages(session: client.Session) -> None:
    control("DELETE", "/stats")
    rows = properties.of_view(session, {"VirtualMachine": ("name",), "Datastore": ("name",)}, page=2)
    asked = control("GET", "/stats")["methods"]
    assert asked["ContinueRetrievePropertiesEx"] >= 1
    assert {"web01", "db01", LEGACY, "datastore1", "local-esx1"} <= {r.props["name"] for r in rows}


def test_a_vm_that_is_gone_is_left_out(session: client.Session) -> None:
    vm = find.find_vm(session, "web01")
    gone = session.managed("VirtualMachine", "vm-99999")
    rows = properties.of_objects(session, [gone, vm.ref], {"VirtualMachine": ("name",)})
    assert [r.props["name"] for r in rows] == ["web01"]


def test_an_expired_session_goes_on(session: client.Session) -> None:
    control("POST", "/faults", kind="session_expire")
    assert find.find_vm(session, "web01").name == "web01"
    assert session.generation == 2


def test_a_vcenter_that_is_away_is_said(session: client.Session, faults: Any) -> None:
    faults(kind="soap_down", status=503, times=0)
    with pytest.raises(ServerError) as e:
        find.find_vm(session, "web01")
    assert (e.value.code, e.value.step) == ("unreachable", "find the VM")
    assert "503" in str(e.value)


def test_disk_files_come_over_https(session: client.Session) -> None:
    """The descriptor of a disk whose path has spaces and Japanese letters, the session renewed in between."""
    vm = find.find_vm(session, LEGACY)
    disk = disks.find_disk(guest.vm_disks(session, vm), "ide0:0")
    access = session.folder_access()
    connection = http.client.HTTPSConnection(access.host, access.port, timeout=10, context=access.ssl_context)

    def get() -> tuple[int, bytes]:
        connection.request("GET", disk.url(), headers=access.headers())
        answer = connection.getresponse()
        return answer.status, answer.read()

    status, text = get()
    assert (status, text[:22]) == (200, b"# Disk DescriptorFile\n")
    control("POST", "/faults", kind="session_expire")
    assert get()[0] == 401
    access.renew()
    assert get() == (200, text)
    connection.close()


def test_source_state_forth_and_back(session: client.Session, db01: find.VmRef) -> None:
    wanted = source_state.Wanted(power="shutdown", shutdown_timeout=30, note="moved\nto the cloud", attributes={"ferry.test": "done"})
    before = source_state.read_state(session, db01)
    planned = source_state.apply(session, db01, wanted, check=True)
    assert source_state.read_state(session, db01) == before
    done = source_state.apply(session, db01, wanted)
    assert done["power_method"] == "shutdown"
    assert {k: v for k, v in done.items() if k != "power_reason"} == {k: v for k, v in planned.items() if k != "power_reason"}
    assert done["after"]["annotation"].startswith("data base of the demo\n---")
    again = source_state.apply(session, db01, wanted)
    assert (again["changed"], again["power_method"], again["before"]) == (False, "none", done["after"])
    back = source_state.apply(session, db01, source_state.Wanted(power="on", note="", attributes={"ferry.test": ""}))
    assert back["after"]["annotation"] == before.annotation
    after = source_state.read_state(session, db01)
    assert (after.power, after.annotation, after.attributes) == ("on", before.annotation, before.attributes)


def test_a_guest_that_hangs(session: client.Session, db01: find.VmRef, faults: Any) -> None:
    faults(kind="shutdown_hang", match="db01", times=0)
    with pytest.raises(ServerError) as e:
        source_state.apply(session, db01, source_state.Wanted(power="shutdown", shutdown_timeout=1.5))
    assert e.value.code == "shutdown_timeout"
    assert e.value.partial["changed"] is False
    assert source_state.read_state(session, db01).power == "on"
    done = source_state.apply(session, db01, source_state.Wanted(power="shutdown", shutdown_timeout=1, on_timeout="poweroff"))
    assert (done["power_method"], done["after"]["power"]) == ("poweroff", "off")
    assert "had not shut down after 1 seconds" in done["power_reason"]


def play(folder: Path, tasks: list[dict[str, Any]], *words: str) -> subprocess.CompletedProcess[str]:
    """Run C(tasks) on localhost; the connection comes from the environment."""
    whole = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]
    (folder / "play.yml").write_text(yaml.safe_dump(whole))
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(Path(__file__).resolve().parents[5]), "ANSIBLE_LOCALHOST_WARNING": "false"}
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", "play.yml", *words]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_module_plans_does_and_does_no_more(session: client.Session, db01: find.VmRef, tmp_path: Path) -> None:
    wanted = {"vm": "db01", "power": "shutdown", "shutdown_timeout": 60, "note": "gone to the cloud", "attributes": {"ferry.test": "x"}}
    tasks = [{"name": "Put the source to rest", "ferry.vmware.vm_source_state": wanted}]
    planned = play(tmp_path, tasks, "--check", "--diff")
    assert (planned.returncode, "changed=1" in planned.stdout) == (0, True), planned.stdout + planned.stderr
    assert '+    "power": "off"' in planned.stdout
    assert source_state.read_state(session, db01).power == "on"
    done = play(tmp_path, tasks, "-vvv")
    assert (done.returncode, "changed=1" in done.stdout) == (0, True), done.stdout + done.stderr
    assert os.environ["VMWARE_PASSWORD"] not in done.stdout + done.stderr
    again = play(tmp_path, tasks, "--check")
    assert "changed=0" in again.stdout, again.stdout + again.stderr


def test_the_module_tells_of_every_unknown_vm(tmp_path: Path) -> None:
    done = play(tmp_path, [{"name": "Ask", "ferry.vmware.vm_info": {"vms": ["web01", "nobody", "nothing"]}}])
    assert done.returncode == 2
    assert "No VM answers to nobody. No VM answers to nothing." in done.stdout + done.stderr
