# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vm_precheck's source side: for each concern a VM that has it, and the clean VM that has none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client, guest
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.precheck_catalogue import KINDS
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.privileges import NEEDS, Need
from ansible_collections.ferry.vmware.plugins.modules import vm_precheck
from tests.lab_tests.precheck_site import CASES, LONG, ODD, Site, ids, site
from tests.lab_tests.vcenter_lab import Client

#: Calls of the vSphere API that a wave of any size up to a page takes, log-in and log-out included.
MOST_CALLS = 10
#: Hosts whose clock is asked for beside them.
MOST_HOSTS = 4


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("precheck")) as found:
        yield found


@pytest.fixture
def lab(here: Site) -> Iterator[Site]:
    """The same, for a test that changes how it behaves."""
    yield here
    here.lab.clear()


@pytest.fixture(scope="module")
def whole(here: Site) -> dict[str, Any]:
    """All of the cases in one wave."""
    return here.check(*({"vm": name, "options": own} for name, (said, own, found) in CASES.items()))


@pytest.mark.parametrize("name", CASES)
def test_what_is_found_at_a_vm(whole: dict[str, Any], name: str) -> None:
    (vm,) = [v for v in whole["vms"] if v["name"] == name]
    assert ids(vm["concerns"]) == CASES[name][2]
    assert vm["ready"] == all(c["category"] != "critical" for c in vm["concerns"])


@pytest.mark.parametrize(
    ("name", "kind", "category"),
    [
        ("untracked", "VMMissingChangedBlockTracking", "warning"),
        ("snapshot-untracked", "VMMissingChangedBlockTracking", "critical"),
        ("snapshot-untracked", "VMHasSnapshots", "critical"),
        ("snapshot-tracked", "VMHasSnapshots", "warning"),
        ("template", "ferry.vm.template", "information"),
        ("template-warm", "ferry.vm.template", "critical"),
        ("no-tools", "GuestToolsIssue", "critical"),
        ("no-tools-poweroff", "GuestToolsIssue", "warning"),
        ("snapshots-28", "ferry.snapshots.limit", "critical"),
        ("snapshots-28-cold", "ferry.snapshots.limit", "warning"),
    ],
)
def test_categories_that_depend(whole: dict[str, Any], name: str, kind: str, category: str) -> None:
    (vm,) = [v for v in whole["vms"] if v["name"] == name]
    assert [c["category"] for c in vm["concerns"] if c["id"] == kind] == [category]


def test_every_concern_has_its_words(whole: dict[str, Any]) -> None:
    concerns = [c for vm in whole["vms"] for c in vm["concerns"]] + whole["wave_concerns"]
    for concern in concerns:
        kind = KINDS[concern["id"]]
        assert concern["category"] in (kind.category, kind.also)
        assert concern["assessment"].endswith(".")
        assert concern["advice"] == kind.advice
    assert [v["name"] for v in whole["vms"]] == list(CASES)
    assert whole["ready"] is False
    assert whole["target"] == "none"


def test_every_kind_is_found_in_these_tests(whole: dict[str, Any]) -> None:
    """Those that are not in a case here have a test of their own, here or among the unit tests."""
    in_cases = {kind for said, own, found in CASES.values() for kind in found}
    # What an inspection of the guest finds: test_precheck_guest.
    elsewhere = {kind for kind in KINDS if kind not in in_cases and not kind.startswith("ferry.guest.")}
    assert elsewhere == {
        *("VMNotFound", "DuplicateVM", "VMNetworksNotMapped", "VMStorageNotMapped", "VMMissingGuestIPs"),
        *("VMConsolidationNeeded", "RDMDiskWarning", "IndependentDiskWarning", "InvalidDiskSizes"),
        *("ferry.datastore.headroom", "ferry.nfc.memory", "ferry.clock.skew", "ferry.clock.host"),
        *("ferry.tls.unverified", "ferry.tls.expires", "ferry.server.esxi", "ferry.privilege.missing", "ferry.privilege.unknown"),
    }


def test_what_is_told_of_the_wave(whole: dict[str, Any], here: Site) -> None:
    told = {c["id"]: c for c in whole["wave_concerns"]}
    repeated = {
        "VMConsolidationNeeded": "stale",
        "RDMDiskWarning": "rdm",
        "IndependentDiskWarning": "independent",
        "InvalidDiskSizes": "no-capacity",
    }
    assert {*repeated, "ferry.clock.host"} == set(told)
    for kind, vm in repeated.items():
        assert vm in told[kind]["assessment"]
    assert "esx3" in told["ferry.clock.host"]["assessment"]
    assert told["InvalidDiskSizes"]["category"] == "critical"
    alone = here.check("clean")
    assert alone["wave_concerns"] == []
    assert alone["ready"] is True


def test_addresses_matter_where_they_are_kept(here: Site) -> None:
    kept = {"VM Network": {"network": "web", "keep_ip": True}}
    assert ids(here.check("no-address", network_map=kept)["wave_concerns"]) == {"VMMissingGuestIPs"}
    assert ids(here.check("clean", network_map=kept)["wave_concerns"]) == set()
    assert ids(here.check("no-address", network_map={"VM Network": "web"})["wave_concerns"]) == set()


@pytest.mark.parametrize(("free", "category"), [(8 << 20, None), ((8 << 20) - 1, "warning"), (1 << 18, "critical")])
def test_space_for_snapshots(lab: Site, free: int, category: str | None) -> None:
    lab.lab.post("/datastore/fill", datastore="nfs", free=free)
    try:
        told = lab.check("on-nfs", headroom_percent=100)["wave_concerns"]
        cold = lab.check("on-nfs", headroom_percent=100, strategy="cold")["wave_concerns"]
    finally:
        lab.lab.post("/datastore/fill", datastore="nfs", free=9 << 30)
    assert [(c["id"], c["category"], c["device"]) for c in told] == ([("ferry.datastore.headroom", category, "nfs")] if category else [])
    assert cold == []


def test_streams_of_one_host(here: Site) -> None:
    vsan = ["on-vsan", "on-vsan-warm"]
    (told,) = here.check(*vsan, "clean", streams_per_host=1, strategy="cold")["wave_concerns"]
    assert (told["id"], told["device"]) == ("ferry.nfc.memory", "esx5")
    assert here.check(*vsan, "clean", streams_per_host=2, strategy="cold")["wave_concerns"] == []


@pytest.mark.parametrize(("ahead", "word"), [(120, "ahead of"), (-120, "behind"), (30, None)])
def test_clocks(lab: Site, ahead: int, word: str | None) -> None:
    lab.lab.switch("clock_ahead", ahead)
    told = lab.check("clean")["wave_concerns"]
    assert [(c["id"], c.get("device")) for c in told] == ([("ferry.clock.skew", None), ("ferry.clock.skew", "esx5")] if word else [])
    assert all(str(word) in c["assessment"] for c in told)


def test_the_clock_of_one_host(lab: Site) -> None:
    lab.lab.switch("clock_ahead", 120, vm="esx5")
    assert [c["device"] for c in lab.check("clean", "in-dpm")["wave_concerns"]] == ["esx5"]
    assert lab.check("in-dpm")["wave_concerns"] == []
    lab.lab.fault("soap_fault", match="QueryDateTime", fault="NoPermission")
    assert lab.check("clean")["wave_concerns"] == []


def test_the_certificate(here: Site) -> None:
    assert ids(here.check("clean", validate_certs=False)["wave_concerns"]) == {"ferry.tls.unverified"}
    (told,) = here.check("clean", certificate_days=LONG)["wave_concerns"]
    assert told["id"] == "ferry.tls.expires"


# -- names ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_found_hides_nothing(here: Site) -> None:
    result = here.check("nowhere", "clean", "twin", "Cleann", "clean", " ")
    assert [(v["name"], sorted(ids(v["concerns"])), v["ready"]) for v in result["vms"]] == [
        ("nowhere", ["VMNotFound"], False),
        ("clean", [], True),
        ("twin", ["DuplicateVM"], False),
        ("Cleann", ["VMNotFound"], False),
        ("clean", ["DuplicateVM"], False),
        (" ", ["VMNotFound"], False),
    ]
    assert [v["moref"] is None for v in result["vms"]] == [True, False, True, True, False, True]
    assert "clean" in result["vms"][3]["concerns"][0]["assessment"]
    paths = result["vms"][2]["concerns"][0]["assessment"]
    assert "/DC lab/vm/a/twin" in paths
    assert "/DC lab/vm/b/twin" in paths
    assert sorted(c["id"] for c in result["wave_concerns"]) == ["DuplicateVM", "DuplicateVM", "VMNotFound"]


def test_a_vm_by_all_of_its_names(here: Site) -> None:
    facts = here.check("clean", facts=True)["vms"][0]["facts"]
    ways = [facts["moref"], facts["instance_uuid"].upper(), facts["bios_uuid"], facts["path"], "vm/clean", "a/twin"]
    found = here.check(*ways)["vms"]
    assert [v["name"] for v in found] == ["clean"] * 5 + ["twin"]
    assert [v["ready"] for v in found] == [True, False, False, False, False, True]
    assert here.check("b/twin", "a/twin")["ready"] is True


def test_the_facts_are_those_of_vm_info(here: Site) -> None:
    with client.connect(here.params) as session:
        known = guest.facts_of(session, ["many-disks", ODD])
    told = here.check("many-disks", "nowhere", ODD, facts=True)["vms"]
    assert [v["facts"] for v in told] == [known[0], None, known[1]]


@pytest.mark.fault("half of a wave may not be seen", "precheck", "each of them is named, the others are checked in full")
def test_half_of_the_wave_is_invisible(lab: Site) -> None:
    unseen = ["tpm", "usb"]
    for name in unseen:
        lab.lab.switch("invisible", 1, vm=name)
    result = lab.check("tpm", "clean", "usb", "sriov")
    assert [sorted(ids(v["concerns"])) for v in result["vms"]] == [["VMNotFound"], [], ["VMNotFound"], ["vmware.device.sriov.detected"]]
    (told,) = result["wave_concerns"]
    assert "tpm, usb" in told["assessment"]


# -- privileges -----------------------------------------------------------------------------------------------------

#: A VM, and options, for which a need arises.
NEEDING: dict[str, tuple[str, dict[str, Any]]] = {
    "VirtualMachine.Provisioning.GetVmFiles": ("on-vsan", {"transports": ["nbd"]}),
    "VApp.Export": ("on-vsan", {"strategy": "cold"}),
    "Cryptographer.Access": ("encrypted", {}),
}
ON = {"VirtualMachine": None, "Datastore": "shared", "Folder": "Datacenters"}


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.privilege)
def test_a_privilege_that_is_missing(lab: Site, need: Need) -> None:
    vm, options = NEEDING.get(need.privilege, ("clean", {}))
    lab.lab.switch("privileges_missing", need.privilege, vm=ON[need.on] or vm)
    result = lab.check(vm, **options)
    mine = [c for c in result["vms"][0]["concerns"] if c["id"] == "ferry.privilege.missing"]
    assert [f"{need.privilege} (to {need.why})" in c["assessment"] for c in mine] == [True]
    (told,) = [c for c in result["wave_concerns"] if c["id"] == "ferry.privilege.missing"]
    assert told["device"] == need.privilege
    assert result["vms"][0]["ready"] is False


def test_privileges_are_those_that_vcenter_knows(here: Site) -> None:
    other = Client(here.lab)
    try:
        roles = {role.name: set(role.privilege) for role in other.content.authorizationManager.roleList}
    finally:
        other.close()
    assert [need.privilege for need in NEEDS if need.privilege not in roles["Admin"]] == []


def test_a_privilege_that_only_one_vm_lacks(lab: Site) -> None:
    lab.lab.switch("privileges_missing", "VirtualMachine.State.CreateSnapshot,VApp.Export", vm="tpm")
    result = lab.check("clean", "tpm")
    assert [v["ready"] for v in result["vms"]] == [True, False]
    (told,) = result["wave_concerns"]
    assert told["assessment"].endswith(" on tpm.")


@pytest.mark.fault("the account has no privilege at all", "precheck", "each privilege is named once, with what needs it")
def test_an_account_without_privileges(lab: Site) -> None:
    lab.lab.switch("privileges_missing", "*")
    result = lab.check("clean", "clean-cold", "on-nfs")
    assert [v["ready"] for v in result["vms"]] == [False] * 3
    told = [c["device"] for c in result["wave_concerns"]]
    assert len(told) == len(set(told))
    assert {n.privilege for n in NEEDS if {"always", "warm", "https", "attributes"} & set(n.when)} == set(told)


def test_what_is_not_needed_is_not_missed(lab: Site) -> None:
    rare = [n.privilege for n in NEEDS if not {"always", "https", "attributes"} & set(n.when)]
    lab.lab.switch("privileges_missing", ",".join(rare))
    assert lab.check("clean", strategy="cold")["ready"] is True
    other = Client(lab.lab)
    try:
        manager = other.content.customFieldsManager
        keys = [manager.AddCustomFieldDef(name, None).key for name in ("ferry.before", "ferry.state")]
        lab.lab.clear()
        lab.lab.switch("privileges_missing", "Global.ManageCustomFields", vm="Datacenters")
        assert lab.check("clean")["wave_concerns"] == []
        for key in keys:
            manager.RemoveCustomFieldDef(key)
        assert lab.check("clean")["wave_concerns"] != []
    finally:
        other.close()


def test_objects_that_may_not_be_read(lab: Site) -> None:
    """vCenter refuses the whole question for one of them: an account of one folder cannot read the root."""
    lab.lab.switch("privileges_missing", "System.Read", vm="Datacenters")
    lab.lab.switch("privileges_missing", "System.Read", vm="nfs")
    result = lab.check("clean", "on-nfs")
    told = {c["device"] for c in result["wave_concerns"]}
    assert told == {"Global.ManageCustomFields", "Datastore.Browse", "Datastore.FileManagement"}
    assert ["Datastore" in v["concerns"][0]["assessment"] for v in result["vms"]] == [False, True]


@pytest.mark.parametrize("how", ["nothing may be read", "it does not answer"])
def test_vcenter_does_not_tell_the_privileges(lab: Site, how: str) -> None:
    if how == "it does not answer":
        lab.lab.fault("soap_fault", match="HasPrivilegeOnEntities", fault="NotSupported")
    else:
        lab.lab.switch("privileges_missing", "System.Read")
    result = lab.check("clean", "tpm", "usb", "numa", "sriov")
    assert ids(result["wave_concerns"]) == {"ferry.privilege.unknown"}
    assert result["ready"] is True


# -- maps -----------------------------------------------------------------------------------------------------------


def test_maps(here: Site) -> None:
    missing = here.check("clean", target="kubernetes")["vms"][0]["concerns"]
    assert [(c["id"], c["device"]) for c in missing] == [("VMNetworksNotMapped", "Network adapter 1")]
    maps = {"network_map": {"VM Network": "pod"}, "storage_map": {"nfs": "fast"}}
    unmapped = here.check("clean", target="kubernetes", **maps)["vms"][0]["concerns"]
    assert [(c["id"], c["disk"]) for c in unmapped] == [("VMStorageNotMapped", "Hard disk 1")]
    own = {"vm": "clean", "options": {"storage_map": {"*": "slow"}}}
    assert here.check(own, target="kubernetes", **maps)["ready"] is True
    assert here.check("clean", network_map={"backend": "db"})["ready"] is False
    assert here.check("clean", network_map={})["ready"] is True


# -- the calls ------------------------------------------------------------------------------------------------------

READING = {
    "RetrieveServiceContent", "Login", "Logout", "CurrentTime", "CreateContainerView", "DestroyView",
    "RetrievePropertiesEx", "ContinueRetrievePropertiesEx", "HasPrivilegeOnEntities", "QueryDateTime",
}  # fmt: skip


def test_it_only_reads_and_calls_do_not_grow_with_the_wave(lab: Site) -> None:
    def state() -> list[Any]:
        return sorted(lab.lab.get("/state")["vms"], key=lambda vm: str(vm["moref"]))

    before = state()
    counts = []
    for wave in (["clean"], list(CASES)):
        lab.lab.clear()
        lab.check(*wave)
        methods = lab.lab.get("/stats")["methods"]
        assert set(methods) <= READING
        assert methods.pop("QueryDateTime") <= MOST_HOSTS
        counts.append(sum(methods.values()))
    assert counts[0] == counts[1] <= MOST_CALLS
    assert state() == before


def test_vms_are_found_by_moref_with_as_many_calls_for_all_as_for_one(lab: Site) -> None:
    with client.connect(lab.params) as session:
        morefs = [vm["moref"] for vm in guest.facts_of(session, list(CASES))]
        counts = []
        for wave in (morefs[:1], morefs):
            lab.lab.clear()
            assert [vm["moref"] for vm in guest.facts_of(session, wave)] == wave
            counts.append(sum(lab.lab.get("/stats")["methods"].values()))
        with pytest.raises(BadInput, match="vm-999999"):
            guest.facts_of(session, [*morefs, "vm-999999"])
    assert len(morefs) > 10 and counts[0] == counts[1]


@pytest.mark.fault("the session ends", "precheck", "logged in again, the same concerns")
@pytest.mark.parametrize("at", ["RetrievePropertiesEx", "HasPrivilegeOnEntities", "QueryDateTime"])
def test_a_session_that_ends(lab: Site, at: str) -> None:
    """Of an old session vCenter would say that it has no privileges at all."""
    lab.lab.fault("soap_fault", match=at, fault="NotAuthenticated", times=1)
    result = lab.check("tpm")
    assert ids(result["vms"][0]["concerns"]) == {"vmware.tpm.detected"}
    assert result["wave_concerns"] == []
    assert lab.lab.get("/stats")["methods"]["Login"] == 2


def test_a_session_that_ends_again_and_again(lab: Site) -> None:
    for _time in range(6):
        lab.lab.fault("soap_fault", match="HasPrivilegeOnEntities", fault="NotAuthenticated", times=1)
    assert ids(lab.check("clean")["wave_concerns"]) == {"ferry.privilege.unknown"}


def test_vcenter_that_is_away_is_an_error(lab: Site) -> None:
    lab.lab.fault("soap_fault", match="RetrievePropertiesEx", fault="SystemError", times=0)
    with pytest.raises(ServerError):
        lab.check("clean")


@pytest.mark.parametrize(
    ("vms", "options", "said"),
    [
        ([], {}, "vms is empty"),
        ([None], {}, "names no VM"),
        ([["clean"]], {}, "names no VM"),
        ([{"name": "clean"}], {}, "has name"),
        ([{"options": {}}], {}, "has no vm"),
        ([{"vm": "clean", "options": []}], {}, None),
        ([{"vm": "clean", "options": [1]}], {}, "is no mapping"),
        ([{"vm": "clean", "options": {"stratgy": "cold"}}], {}, "Unknown options of one VM: stratgy"),
        ([{"vm": "clean", "options": {"strategy": "hot"}}], {}, "strategy is hot"),
        ([{"vm": "clean", "options": {"transports": "https"}}], {}, "is no list"),
        ([{"vm": "clean", "options": {"network_map": []}}], {}, None),
        (["clean"], {"transports": []}, "transports is empty"),
        (["clean"], {"headroom_percent": 101}, "headroom_percent is 101"),
        (["clean"], {"distrusted_builds": ["new"]}, "is no ESXi build"),
        (["clean"], {"landing": {"flavour": "m1"}}, "landing has flavour"),
    ],
)
def test_bad_options(here: Site, vms: list[Any], options: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert here.check(*vms, **options)["ready"] is True
        return
    with pytest.raises(BadInput, match=said):
        here.check(*vms, **options)


@pytest.mark.fault("the target is away", "precheck", "what was found at the source is told, and that the target cannot be read")
def test_a_target_that_is_away(here: Site) -> None:
    auth = {"auth_url": "http://127.0.0.1:9/v3", "username": "u", "password": "p", "project_name": "p"}
    cloud = {"auth": {**auth, "user_domain_name": "Default", "project_domain_name": "Default"}}
    result = here.check("tpm", "nowhere", cloud=cloud, network_map={"VM Network": "web"})
    assert result["target"] == "openstack"
    assert [ids(v["concerns"]) for v in result["vms"]] == [{"vmware.tpm.detected"}, {"VMNotFound"}]
    assert ids(result["wave_concerns"]) == {"ferry.target.unreadable", "VMNotFound"}
    full = [here.check("full-root", cloud=cloud, landing={"hardware": h})["vms"][0]["ready"] for h in ("virtio", "source")]
    assert full == [False, True]
    assert here.check("nowhere", cloud=cloud)["wave_concerns"][0]["id"] == "VMNotFound"
    with pytest.raises(BadInput):
        here.check("tpm", cloud="no-such-cloud")


def test_the_module(here: Site) -> None:
    """As Ansible runs it: parameters in, JSON out."""

    def run(**params: Any) -> dict[str, Any]:
        given = json.dumps({"ANSIBLE_MODULE_ARGS": {**here.params, **params}})
        done = subprocess.run([sys.executable, vm_precheck.__file__], input=given, capture_output=True, text=True, check=False)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert here.params["password"] not in done.stdout.replace(json.dumps(answer.pop("invocation", None)), "")
        return answer

    found = run(vms=[ODD, "clean"])
    assert [(v["name"], v["ready"]) for v in found["vms"]] == [(ODD, True), ("clean", True)]
    assert found["vms"][0]["concerns"][0]["advice"]
    assert found["changed"] is False
    assert run(vms=["nowhere"])["vms"][0]["ready"] is False
    assert "vms is empty" in run(vms=[])["msg"]
    assert "Unsupported parameters" in run(vms=["clean"], strateg="warm")["msg"]
