# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor on a vCenter of the tests' own: it finds the ways, measures what lies still, and changes nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import Progress
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Interrupted
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import doctor, throughput
from tests.lab_tests.copy_lab import Lab

from .vcenter_lab import MIB, running
from .warm_site import Run, WarmSite

STILL, FROZEN, MARKUP = "still 在庫", "frozen", "<b>bold</b> & co"
#: What a look may ask of vCenter: it reads, and borrows an export.
READING = {
    "AbortLease",
    "ContinueRetrievePropertiesEx",
    "CreateContainerView",
    "CurrentTime",
    "DestroyView",
    "ExportSnapshot",
    "ExportVm",
    "Fetch",  # whether the session of the run lives
    "FindByInventoryPath",
    "FindByUuid",
    "HasPrivilegeOnEntities",
    "HttpNfcLeaseAbort",
    "HttpNfcLeaseProgress",
    "Login",
    "Logout",
    "QueryDateTime",
    "RetrieveProperties",
    "RetrievePropertiesEx",
    "RetrieveServiceContent",
    "SessionIsActive",
}


def model(folder: Path) -> Path:
    source = random.Random(1)
    (folder / "full.raw").write_bytes(source.randbytes(12 * MIB + 512))
    (folder / "empty.raw").write_bytes(source.randbytes(512) + bytes(8 * MIB - 512))

    def vm(name: str, host: str = "esx1", path: str = "full.raw", **more: Any) -> dict[str, Any]:
        disk = {"controller": "pvscsi", "path": path, "provisioning": "thin", **more.pop("disk", {})}
        disk = {k: v for k, v in disk.items() if v is not None}
        return {"name": name, "host": host, "datastore": "vmfs", "power": "on", "disks": [disk], **more}

    rdm = {"path": None, "provisioning": None, "capacity": 16 * MIB}
    vms = [
        vm(STILL, power="off", cbt=True),
        vm("runs"),
        vm(MARKUP, host="esx3"),
        vm(FROZEN, host="esx2"),
        vm("modern", datastore="vsan"),
        vm("physical", disk={**rdm, "rdm": "physical"}),
        vm("apart", disk={"mode": "independent_persistent"}),
        vm("cluster", disk={"bus_sharing": "physical"}),
        vm("antique", hw_version="vmx-04"),
        vm("golden", template=True, power="off"),
        vm("void", host="esx4", path="empty.raw", power="off"),
    ]
    hosts = ["esx1", "esx2", "esx3", "esx4"]
    text = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": hosts}],
        "networks": ["VM Network"],
        "datastores": [
            {"name": "vmfs", "type": "VMFS", "capacity": "10GiB", "hosts": hosts},
            {"name": "vsan", "type": "vsan", "capacity": "10GiB", "hosts": hosts},
        ],
        "esxi": {"esx2": {"version": "6.0.0", "build": "2494585"}},
        "vms": vms,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(text), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("doctor")
    with running(folder, model(folder)) as vcenter:
        found = Lab(vcenter, folder)
        found.snapshot(FROZEN, "before update")
        yield found
        found.close()


@pytest.fixture(autouse=True)
def fresh(lab: Lab, tmp_path: Path) -> Iterator[None]:
    lab.vcenter.clear()
    lab.folder = tmp_path
    yield
    lab.vcenter.clear()


def look(lab: Lab, *vms: str, check: bool = False, **more: Any) -> dict[str, Any]:
    options = {
        **lab.connection,
        "vms": list(vms) or None,
        "bytes": 6 * MIB,
        "seconds": 30.0,
        "transports": ["https", "nfc"],
        "workers": 3,
        "patience": 2,
        "vddk": None,
        "bad_builds": None,
        "ledger": str(lab.folder / "ferry"),
    }
    return doctor.run({**options, **more}, check=check)


def state(lab: Lab) -> dict[str, Any]:
    """All that the lab knows of its VMs, but what moves by itself."""
    found = lab.vcenter.get("/state")
    return {vm["name"]: {k: v for k, v in vm.items() if k not in ("uptime",)} for vm in found["vms"]}


def test_nothing_is_changed(lab: Lab) -> None:
    """The server's own count of calls has none that writes, and its state is the same; the user's snapshot too."""
    before, snapshots = state(lab), lab.snapshots(FROZEN)
    lab.vcenter.clear()
    found = look(lab)
    methods = set(lab.vcenter.get("/stats")["methods"])
    assert methods - READING == set()
    assert {"ExportVm", "ExportSnapshot", "HttpNfcLeaseAbort"} <= methods, "the exports were looked at, and given back"
    assert not {
        m for m in methods if m.endswith("_Task") or m.startswith(("Set", "Add", "Create", "Remove")) and m != "CreateContainerView"
    }
    assert state(lab) == before and lab.snapshots(FROZEN) == snapshots == ["before update"]
    assert len(found["vms"]) == 11 and found["reads"]


def test_each_host_is_measured_by_each_way(lab: Lab) -> None:
    found = look(lab)
    reads = {(r["host"], r["transport"]): r for r in found["reads"]}
    assert sorted(reads) == [(h, t) for h in ("esx1", "esx2", "esx3", "esx4") for t in ("https", "nfc")]
    for key, vm in ((("esx1", "https"), STILL), (("esx1", "nfc"), STILL), (("esx2", "https"), FROZEN), (("esx2", "nfc"), FROZEN)):
        row = reads[key]
        assert (row["vm"], row["error"], row["kept"]) == (vm, None, True), row
        assert 6 * MIB <= row["bytes"] <= 7 * MIB and row["rate"] > 0 and row["zero_bytes"] == 0, row
    for transport in ("https", "nfc"):
        assert "nothing lies still" in reads["esx3", transport]["error"] and reads["esx3", transport]["rate"] is None
    # Zeroes are no figure for a plan.
    assert reads["esx4", "https"]["zero_bytes"] == 5 * MIB and not reads["esx4", "https"]["kept"]
    kept = throughput.load(throughput.place(str(lab.folder / "ferry")))["transports"]
    assert {t: sorted(kept[t]["hosts"]) for t in kept} == {"https": ["esx1", "esx2"], "nfc": ["esx1", "esx2"]}


def test_each_vm_says_which_way_works_and_why_the_others_do_not(lab: Lab) -> None:
    found = {vm["name"]: vm for vm in look(lab, check=True)["vms"]}

    def ways(name: str) -> dict[str, str]:
        return {
            p["transport"]: "".join(c for c, on in zip("ord", (p["off"], p["running"], p["delta"]), strict=True) if on)
            for p in found[name]["paths"]
        }

    def why(name: str) -> str:
        return "; ".join(w for p in found[name]["paths"] for w in p["why"])

    assert ways("runs") == {"https": "ord", "nfc": "or", "nbd": ""} and found["runs"]["best"] == {"cold": "https", "warm": "https"}
    assert "one stream of the whole disk" in why("runs") and "VDDK was not given" in why("runs")
    assert ways("modern") == {"https": "", "nfc": "or", "nbd": ""} and found["modern"]["best"] == {"cold": "nfc", "warm": None}
    assert "the datastore is of type vsan" in why("modern")
    assert ways("physical") == {"https": "", "nfc": "", "nbd": ""} and found["physical"]["best"] == {"cold": None, "warm": None}
    assert "raw device mapping in physical mode" in why("physical")
    assert ways("apart")["https"] == "o" and "independent" in why("apart")
    assert ways("cluster")["https"] == "o" and "bus is shared" in why("cluster")
    assert ways("antique")["https"] == "or" and "vmx-04 has no changed block tracking" in why("antique")
    assert ways("golden")["https"] == "o" and "template" in why("golden")
    assert found[STILL]["tracking"] == {"supported": True, "enabled": True, "disks": 1, "of": 1}
    assert found["runs"]["tracking"]["enabled"] is False
    with_vddk = look(lab, "modern", check=True, vddk={"libdir": str(lab.folder)})["vms"][0]
    assert with_vddk["best"] == {"cold": "nfc", "warm": "nbd"}


def test_builds_datastores_and_check_mode(lab: Lab) -> None:
    found = look(lab, check=True)
    assert found["reads"] == [] and not (lab.folder / "ferry").exists()
    hosts = {h["name"]: h for h in found["hosts"]}
    assert "Broadcom KB 317933" in hosts["esx2"]["bad_build"] and hosts["esx1"]["bad_build"] is None
    assert hosts["esx1"]["vms"] == 8 and hosts["esx2"]["build"] == "2494585"
    assert {(d["name"], d["type"]) for d in found["datastores"]} >= {("vmfs", "VMFS"), ("vsan", "vsan")}
    assert found["vcenter"]["api_type"] == "VirtualCenter"
    one = look(lab, "runs", check=True)
    assert [vm["name"] for vm in one["vms"]] == ["runs"] and [h["name"] for h in one["hosts"]] == ["esx1"]


def test_privileges_one_by_one(lab: Lab) -> None:
    assert all(p["granted"] for p in look(lab, check=True)["privileges"])
    lab.vcenter.switch("privileges_missing", "VirtualMachine.State.CreateSnapshot,VApp.Export", vm="runs")
    lacking = {p["privilege"]: p for p in look(lab, check=True)["privileges"] if not p["granted"]}
    assert {name: p["lacking_on"] for name, p in lacking.items()} == {
        "VirtualMachine.State.CreateSnapshot": ["runs"],
        "VApp.Export": ["runs"],
    }
    assert lacking["VApp.Export"]["when"] == ["nfc"] and "stream" in lacking["VApp.Export"]["why"]
    lab.vcenter.switch("privileges_missing", "System.Read", vm="runs")
    unread = {p["privilege"]: p["lacking_on"] for p in look(lab, check=True)["privileges"] if not p["granted"]}
    assert unread["VirtualMachine.Interact.PowerOff"] == ["runs"] and "Datastore.Browse" not in unread
    lab.vcenter.fault("soap_fault", match="HasPrivilegeOnEntities", fault="NotSupported")
    assert {p["granted"] for p in look(lab, check=True)["privileges"]} == {None}


def test_a_vm_that_cannot_be_read_is_a_reason_not_a_failure(lab: Lab) -> None:
    lab.vcenter.fault("folder_status", status=404, match="still")
    rows = {r["transport"]: r for r in look(lab, STILL)["reads"]}
    assert rows["nfc"]["error"] is None and rows["nfc"]["rate"]
    assert rows["https"]["rate"] is None and f"{STILL}, Hard disk 1:" in rows["https"]["error"]


@pytest.mark.fault("the doctor is stopped in the middle of an export", where="NFC", ends="the lease is given back at once")
def test_stopped_it_gives_the_export_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def told(self: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise Interrupted("Stopped by SIGTERM.")

    monkeypatch.setattr(Progress, "check", told)
    with pytest.raises(Interrupted):
        look(lab, STILL, transports=["nfc"])
    methods = lab.vcenter.get("/stats")["methods"]
    assert methods["ExportVm"] == methods["HttpNfcLeaseAbort"] == 1
    monkeypatch.undo()
    assert look(lab, STILL, transports=["nfc"])["reads"][0]["rate"], "the VM is free again"


@pytest.mark.parametrize("wrong", [{"bytes": 1}, {"bytes": 1 << 50}, {"seconds": 0}, {"workers": 0}, {"workers": 1000}])
def test_options_out_of_bounds(lab: Lab, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(wrong))} must be from"):
        look(lab, STILL, **wrong)


def test_the_playbook_and_its_page(lab: Lab, tmp_path: Path) -> None:
    site = WarmSite(tmp_path, lab.vcenter)
    hosts = {name: {"ferry_vm": name} for name in (STILL, "runs", "modern", "physical", FROZEN)} | {"marked": {"ferry_vm": MARKUP}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"wave": {"hosts": hosts}}, allow_unicode=True), encoding="utf-8")
    page, plain = tmp_path / "pages" / "doctor.html", tmp_path / "doctor.json"
    variables = {
        "ferry_doctor_html": str(page),
        "ferry_doctor_json": str(plain),
        "doctor_bytes": 4 * MIB,
        "ferry_ledger": str(tmp_path / "ferry"),
    }
    before = state(lab)
    lab.vcenter.clear()
    tool = str(Path(sys.executable).parent / "ansible-playbook")
    command = [tool, "ferry.vmware.doctor", "-i", str(tmp_path / "inventory.yml"), "-e", json.dumps(variables)]
    done = subprocess.run(command, env=site.environment(), capture_output=True, text=True, timeout=200, check=False)
    print(done.stdout, done.stderr)
    run = Run(done.returncode, done.stdout + done.stderr, {})
    assert run.code == 0 and set(run.changed.values()) == {0}, run.out[-5000:]
    assert set(lab.vcenter.get("/stats")["methods"]) - READING == set() and state(lab) == before
    found = json.loads(plain.read_text(encoding="utf-8"))
    assert found["version"] == 1 and found["totals"]["vms"] == 6 and found["totals"]["none"] == 1
    assert {r["transport"] for r in found["reads"] if r["rate"]} == {"https", "nfc"}
    assert found["totals"]["critical"] >= 1 and any(c["category"] == "critical" for vm in found["vms"] for c in vm["concerns"])
    html = page.read_text(encoding="utf-8")
    assert MARKUP not in html and "&lt;b&gt;bold&lt;/b&gt; &amp; co" in html and STILL in html
    assert "VirtualMachine.State.CreateSnapshot" in html and "MB/s" in html
    assert "5 of 6 VMs can be copied while they are off" in run.out and "physical: no way" in run.out
    assert site.environment()["VMWARE_PASSWORD"] not in run.out + html + plain.read_text(encoding="utf-8")
    wrong = subprocess.run(
        [*command, "-e", "pilot=nobody"], env=site.environment(), capture_output=True, text=True, timeout=200, check=False
    )
    assert wrong.returncode != 0 and "The pilot nobody is no VM of this play" in wrong.stdout
