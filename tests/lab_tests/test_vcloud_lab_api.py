# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's vCloud Director: versions, sessions, queries and documents, by era and by switch."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.lab.common import LabError
from tests.lab.vcloud import VCloud
from tests.lab_tests.vcloud_lab import Rest, as_json, figures, known, links, local, running, without_ids


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCloud]:
    with running(tmp_path_factory.mktemp("vcloud")) as vcloud:
        yield vcloud


@pytest.fixture
def lab(server: VCloud) -> VCloud:
    server.reset()
    return server


def rest(lab: VCloud, version: str = "36.0") -> Rest:
    one = Rest(lab, version)
    assert one.log_in().status == 200
    return one


# --- versions and sessions -------------------------------------------------------------------------------------------


def test_versions_are_listed_by_switch_and_need_no_log_in(lab: VCloud) -> None:
    lab.switch(versions=["37.0", "1.5", "5.1"], deprecated=["5.1"], alpha_versions=["38.0"], public_url="https://vcd.example")
    found = Rest(lab).get("/api/versions").xml
    assert [(local(x), x.get("deprecated"), [local(y) for y in x]) for x in found] == [
        ("VersionInfo", None, ["Version", "LoginUrl", "MediaTypeMapping"]),
        ("VersionInfo", "true", ["Version", "LoginUrl", "MediaTypeMapping"]),
        ("VersionInfo", "false", ["Version", "LoginUrl", "ProviderLoginUrl"]),
        ("AlphaVersion", "false", ["Version", "LoginUrl"]),
    ]
    assert [x[1].text for x in found][:3] == [
        "https://vcd.example/api/sessions",
        "https://vcd.example/api/sessions",
        "https://vcd.example/cloudapi/1.0.0/sessions",
    ]


@pytest.mark.parametrize("version", ["36.5", "28.0", "40.0", "5.10"])
def test_a_version_that_is_not_listed_is_not_acceptable(lab: VCloud, version: str) -> None:
    answer = Rest(lab, version).log_in(path="/api/sessions")
    assert (answer.status, answer.minor) == (406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize(("choice", "status"), [("refuse", 406), ("lowest", 200), ("highest", 404)])
def test_a_request_without_a_version(lab: VCloud, choice: str, status: int) -> None:
    lab.switch(no_version=choice)
    one = rest(lab)
    assert one.send("DELETE", "/api/session", Accept="*/*").status == (204 if status == 200 else status)


OLD = {"1.5": 1, "5.1": 1, "29.0": 1, "30.0": 3, "32.0": 3, "33.0": 3, "37.3": 3, "38.0": 0, "39.1": 0}


@pytest.mark.parametrize("version", OLD)
def test_the_old_log_in_and_its_token_headers_by_era(lab: VCloud, version: str) -> None:
    one = Rest(lab, version)
    answer = one.log_in("administrator@system", "/api/sessions")
    names = ("x-vcloud-authorization", "X-VMWARE-VCLOUD-ACCESS-TOKEN", "X-VMWARE-VCLOUD-TOKEN-TYPE")
    assert sum(n in answer.headers for n in names) == OLD[version]
    assert answer.status == (200 if OLD[version] else 404)
    if OLD[version]:
        assert one.get("/api/session").xml.get("org") == "System"
        one.token = {"x-vcloud-authorization": answer.headers["x-vcloud-authorization"]}
        assert one.send("DELETE", "/api/session").status == 204
        assert one.get("/api/session").status == 401


@pytest.mark.parametrize("version", ["32.0", "33.0", "35.0", "36.0", "38.0", "39.1"])
def test_the_new_log_in_and_log_out_by_era(lab: VCloud, version: str) -> None:
    one = Rest(lab, version)
    answer = one.log_in(path="/cloudapi/1.0.0/sessions/provider")
    if version == "32.0":
        assert answer.status == 404
        return
    session = as_json(answer)["id"]
    assert (answer.status, answer.headers["X-VMWARE-VCLOUD-TOKEN-TYPE"], "x-vcloud-authorization" in answer.headers) == (
        200,
        "Bearer",
        False,
    )
    assert one.get("/api/session").status == 200  # documented at 39.1 still
    current = one.send("DELETE", "/cloudapi/1.0.0/sessions/current")
    if version in ("33.0", "35.0"):
        assert current.status == 404
        assert one.send("DELETE", f"/cloudapi/1.0.0/sessions/{session}").status == 204
    else:
        assert current.status == 204
    assert one.get("/api/session").status == 401
    assert lab.get("/stats")["sessions"] == 0


def test_a_session_may_mix_versions_and_token_forms(lab: VCloud) -> None:
    one = Rest(lab, "36.0")
    answer = one.log_in(path="/api/sessions")
    for version in ("1.5", "29.0", "38.1", "39.1"):
        one.version = version
        one.token = {"authorization": f"bearer {answer.headers['X-VMWARE-VCLOUD-ACCESS-TOKEN']}"}
        assert one.get("/api/session").status == 200
        one.token = {"x-vcloud-authorization": answer.headers["x-vcloud-authorization"]}
        assert one.get("/api/session").status == 200


@pytest.mark.parametrize(
    ("user", "path", "password"),
    [
        ("administrator@System", "/cloudapi/1.0.0/sessions/provider", "wrong"),
        ("administrator@nobody", "/cloudapi/1.0.0/sessions", ""),
        ("administrator", "/cloudapi/1.0.0/sessions/provider", ""),
        ("administrator@System", "/cloudapi/1.0.0/sessions", ""),
        ("orgadmin@acme", "/cloudapi/1.0.0/sessions/provider", ""),
        ("administrator@acme", "/api/sessions", ""),
        ("", "/api/sessions", ""),
    ],
)
def test_a_log_in_that_is_refused(lab: VCloud, user: str, path: str, password: str) -> None:
    assert Rest(lab).log_in(user, path, password).status == 401
    assert lab.get("/stats")["refused"] == 1


def test_sessions_expire_by_inactivity_with_401_or_403(lab: VCloud) -> None:
    lab.switch(idle_seconds=600)
    one = rest(lab)
    for _ in range(3):
        lab.post("/clock", forward=400)
        assert one.get("/api/session").status == 200
    lab.post("/clock", forward=601)
    assert (one.get("/api/session").status, lab.get("/stats")["sessions"]) == (401, 0)
    lab.switch(expired_status=403)
    one = rest(lab)
    lab.post("/expire")
    answer = one.get("/api/org")
    assert (answer.status, answer.minor) == (403, "ACCESS_TO_RESOURCE_IS_FORBIDDEN")
    lab.switch(no_login_status=403)
    assert Rest(lab).get("/api/org").status == 403


def test_a_tenant_sees_its_own_and_no_administration(lab: VCloud) -> None:
    system, one = rest(lab), Rest(lab)
    one.log_in("orgadmin@東京", "/cloudapi/1.0.0/sessions")
    assert len(one.names("vm")) == 12
    assert [local(x) for x in one.get("/api/session").xml][0] == "Link"
    for path in ("/api/query?type=adminVM", "/api/query?type=datastore", "/api/admin/extension/datastores", "/api/admin/extension"):
        assert one.get(path).status == 403
    foreign = system.vm("web01")
    assert one.get(foreign).status == 403
    mine = system.vm("予備")
    document = one.get(mine).xml
    assert "relocate" not in links(document)
    assert not [x for x in document if local(x) == "VCloudExtension"]
    assert one.relocate(mine, system.datastore("Production-1", "vc2")).status == 403


# --- queries ---------------------------------------------------------------------------------------------------------


def test_pages_follow_next_page_to_the_end(lab: VCloud) -> None:
    one, href, sizes, names = rest(lab), "/api/query?type=adminVM&sortAsc=name&fields=name", [], []
    while href:
        result = one.get(href).xml
        rows = [x for x in result if local(x) == "AdminVMRecord"]
        sizes.append(len(rows))
        names += [x.get("name", "") for x in rows]
        assert result.get("total") == "86"
        rels = set(links(result))
        assert ("firstPage" in rels, "previousPage" in rels) == (len(sizes) > 1,) * 2
        assert ("nextPage" in rels, "lastPage" in rels) == (len(names) < 86,) * 2
        href = links(result).get("nextPage", "")
        assert not href or (href.startswith(f"https://localhost:{lab.port}/") and "sortAsc=name" in href and "fields=name" in href)
    assert (sizes, names) == ([25, 25, 25, 11], sorted(names))


def test_the_page_size_is_clamped_or_refused_or_taken(lab: VCloud) -> None:
    one = rest(lab)
    lab.switch(page_size_max=50)
    assert one.get("/api/query?type=adminVM&pageSize=1000").xml.get("pageSize") == "50"
    lab.switch(page_size_over="refuse")
    assert one.get("/api/query?type=adminVM&pageSize=1000").status == 400
    lab.switch(page_size_over="allow")
    assert len(list(one.get("/api/query?type=adminVM&pageSize=1000").xml)) == 86
    assert len(one.rows("adminVM", "&page=2")) == 0
    lab.switch(page_past_end="refuse")
    assert one.query("adminVM", "&page=2").status == 400


@pytest.mark.parametrize(
    "more", ["&page=0", "&pageSize=x", "&pageSize=-1", "&format=csv", "&fields=nothing", "&sortAsc=nothing", "&filter=name", "&surprise=1"]
)
def test_a_query_with_a_mistake_is_a_bad_request(lab: VCloud, more: str) -> None:
    answer = rest(lab).get(f"/api/query?type=adminVM{more}")
    assert (answer.status, answer.minor) == (400, "BAD_REQUEST")
    assert answer.xml.get("message", "").startswith(f"[ {answer.headers['X-VMWARE-VCLOUD-REQUEST-ID']} ] ")


def test_types_are_case_sensitive_and_all_are_listed(lab: VCloud) -> None:
    one = rest(lab)
    assert one.get("/api/query?type=adminvm").status == 400
    listed = {(x.get("name"), x.get("type")) for x in one.get("/api/query").xml}
    assert ("adminVM", "application/vnd.vmware.vcloud.query.records+xml") in listed
    counts = {name: len(one.rows(str(name))) for name in {n for n, _ in listed}}
    assert counts == {
        "adminVM": 86, "vm": 86, "adminVApp": 8, "vApp": 8, "adminVAppTemplate": 2, "vAppTemplate": 2, "datastore": 9, "adminShadowVM": 1,
        "adminOrgVdc": 4, "orgVdc": 4, "organization": 4, "adminOrgVdcStorageProfile": 5, "orgVdcStorageProfile": 5, "adminDisk": 2, "disk": 2,
        "adminTask": 0, "task": 0,
    }  # fmt: skip
    assert Rest(lab, "1.5").query("adminDisk").status == 401
    assert rest(lab, "1.5").query("adminDisk").status == 400  # 5.1 on


FILTERS = [
    ("1.5", "name==DB01", 3),
    ("5.1", "name==DB01", 0),
    ("5.1", "name==DB0*", 3),
    ("36.0", "name==db01;datastoreName==Development-1", 1),
    ("36.0", "(name==db01,name==web0*);vdcName==acme-prod", 10),
    ("36.0", "name!=*0*", 26),
    ("5.1", "memoryMB=gt=1024", 1),
    ("5.1", "numberOfCpus=le=1;isVAppTemplate==true", 2),
    ("36.0", quote(r"name==shop\(1\)\, a\;b"), 1),
    ("36.0", quote("name==在庫*"), 1),
    ("36.0", "memoryMB=ge=1024;memoryMB=lt=4096;name==two*", 1),
]


@pytest.mark.parametrize(("version", "expression", "count"), FILTERS)
def test_filters_by_era(lab: VCloud, version: str, expression: str, count: int) -> None:
    assert len(rest(lab, version).rows("adminVM", f"&filter={expression}")) == count


def test_filter_values_are_decoded_once_more_before_35(lab: VCloud) -> None:
    more = f"&filterEncoded=true&filter=name=={quote(quote('shop(1), a;b', safe=''), safe='')}"
    assert len(rest(lab, "34.0").rows("adminVM", more)) == 1
    assert len(rest(lab, "35.0").rows("adminVM", more)) == 0
    for version in ("34.0", "36.0"):
        assert rest(lab, version).query("adminVM", f"&filter=name=={quote('shop(1), a;b')}").status == 400
    assert rest(lab, "1.5").query("adminVM", "&filter=memoryMB=gt=1024").status == 400


def test_references_in_filters_compare_by_what_they_mean(lab: VCloud) -> None:
    one = rest(lab)
    org = next(r["href"] for r in one.rows("organization") if r["name"] == "globex")
    key = org.rpartition("/")[2]
    for value in (f"https://vcd.example/api/org/{key}", f"urn:vcloud:org:{key}"):
        assert len(one.rows("adminVM", f"&filter=org=={quote(value, safe='')}")) == 19


def test_formats_fields_and_attributes_by_era(lab: VCloud) -> None:
    old, new = rest(lab, "1.5"), rest(lab, "38.1")
    first, last = (set(x.rows("adminVM", "&filter=name==app01")[0]) for x in (old, new))
    assert {"name", "containerName", "container", "status", "vdc", "org", "hostName", "datastoreName", "vc", "moref", "href"} <= first
    assert "storageProfileName" not in first
    assert {"storageProfileName", "vdcName", "gcStatus", "dateCreated", "vmNameInVc", "firmware"} <= last
    assert not {"isBusy", "datastore", "totalStorageAllocatedMb"} & (first | last)
    row = new.rows("adminVM", "&filter=name==app01&format=idrecords&fields=name,org")[0]
    assert {k: without_ids(v) for k, v in row.items()} == {"name": "app01", "org": "urn:vcloud:org:ID", "id": "urn:vcloud:vm:ID"}
    result = new.query("adminVM", "&filter=name==app01&format=references").xml
    assert (local(result), local(result[0]), sorted(result[0].attrib)) == ("VMReferences", "VMReference", ["href", "id", "name", "type"])


def test_an_order_that_is_not_promised_can_be_taken_away(lab: VCloud) -> None:
    one = rest(lab)
    lab.switch(order="shuffled")
    assert one.names("adminVM") != one.names("adminVM")
    assert one.names("adminVM", "&sortAsc=name") == sorted(one.names("adminVM"))


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_vm_by_era(lab: VCloud) -> None:
    for version in ("1.5", "5.1", "29.0", "38.1", "39.0"):
        one = rest(lab, version)
        vm = one.get(one.vm("two-disks")).xml
        assert ("relocate" in links(vm)) is (version != "39.0")
        modern = float(version) >= 5.6
        assert one.place(one.vm("two-disks")) == ["datastore-43", *(["datastore-43", "datastore-44"] if modern else [])]
        assert ("StorageProfile" in [local(x) for x in vm]) is (version != "1.5")
        assert ("VmSpecSection" in [local(x) for x in vm]) is (float(version) >= 29)
    lab.switch(disk_datastores=False)
    assert one.place(one.vm("two-disks")) == ["datastore-43"]
    assert known(lab, "two-disks")["size_mb"] == 70 * 1024


def test_everything_that_is_linked_can_be_read(lab: VCloud) -> None:
    one = rest(lab)
    seen: dict[str, int] = {}
    for kind in ("adminVM", "adminVApp", "adminVAppTemplate", "adminOrgVdc", "organization", "orgVdcStorageProfile", "disk", "datastore"):
        for row in one.rows(kind):
            seen[row["href"]] = one.get(row["href"]).status
    assert (set(seen.values()), len(seen)) == ({200}, 86 + 8 + 2 + 4 + 4 + 5 + 2 + 9)
    assert {one.get(r["vc"]).status for r in one.rows("datastore")} == {200}
    for path in (
        "/api/org",
        "/api/admin",
        "/api/admin/extension",
        "/api/admin/extension/datastores",
        "/api/admin/extension/vimServerReferences",
    ):
        assert one.get(path).status == 200
    template = one.get(one.vm("centos-6")).xml
    assert template.get("deployed") is None
    assert "/api/vAppTemplate/vm-" in links(template)["relocate"]


def test_what_does_not_exist(lab: VCloud) -> None:
    one, nothing = rest(lab), "00000000-0000-4000-8000-000000000000"
    assert (one.get(f"/api/vApp/vm-{nothing}").status, one.get(f"/api/task/{nothing}").status) == (403, 403)
    lab.switch(missing_status=404)
    assert (one.get(f"/api/vApp/vm-{nothing}").status, one.get(f"/api/task/{nothing}").status) == (404, 404)
    assert one.get("/api/nowhere").status == 404
    assert one.send("DELETE", "/api/query").status == 405


def test_all_hrefs_carry_the_public_url(lab: VCloud) -> None:
    lab.switch(public_url="https://vcd.example:8443")
    one = rest(lab)
    rows = [r["href"] for r in one.rows("adminVM")]
    assert {h.partition("/api/")[0] for h in rows} == {"https://vcd.example:8443"}
    body = one.get(rows[0].replace("https://vcd.example:8443", "")).text
    assert f"localhost:{lab.port}" not in body
    assert f"127.0.0.1:{lab.port}" not in body


def test_datastores_and_their_switching_off(lab: VCloud) -> None:
    one = rest(lab, "1.5")
    href = one.datastore("Development-1")
    document = one.get(href).xml
    fields = {local(x): x.text for x in document}
    row = next(r for r in one.rows("datastore") if r["href"] == href)
    assert [fields[n] for n in ("TotalCapacityMb", "UsedCapacityMb", "ProvisionedSpaceMb", "RequestedStorageMb")] == [
        row[n] for n in ("storageMB", "storageUsedMB", "provisionedStorageMB", "requestedStorageMB")
    ]
    assert one.send("POST", links(document)["disable"], "").status == 200
    assert figures(lab)["Development-1"]["enabled"] is False
    assert one.send("POST", f"{href}/action/enable", "").status == 200
    body = (
        '<vmext:Datastore xmlns:vmext="http://www.vmware.com/vcloud/extension/v1.5"><vmext:Enabled>false</vmext:Enabled></vmext:Datastore>'
    )
    assert one.send("PUT", href, body, "application/vnd.vmware.admin.datastore+xml").status == 200
    assert figures(lab)["Development-1"]["enabled"] is False


# --- faults, and the wire --------------------------------------------------------------------------------------------


def test_faults_of_answers(lab: VCloud) -> None:
    one = rest(lab)
    lab.fault("status", status=429, retry_after="2", match="type=adminVM", times=2)
    answers = [one.query("adminVM") for _ in range(3)]
    assert [a.status for a in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "2"
    lab.fault("total", delta=5)
    assert one.query("adminVM").xml.get("total") == "91"
    lab.fault("loop", page=1)
    assert "page=1&" in links(one.get("/api/query?type=adminVM&page=2").xml)["nextPage"]
    lab.fault("doctype")
    assert "<!DOCTYPE" in one.get("/api/session").text
    lab.fault("html")
    assert one.get("/api/session").headers.get_content_type() == "text/html"
    lab.fault("redirect", location="https://127.0.0.2:1/x")
    answer = one.get("/api/session")
    assert (answer.status, answer.headers["Location"]) == (302, "https://127.0.0.2:1/x")
    lab.fault("foreign_href", location="https://evil.example/")
    assert one.get("/api/session").xml.get("href") == "https://evil.example/api/session"
    lab.fault("big", bytes=1 << 20)
    assert len(one.get("/api/session").body) > 1 << 20
    lab.fault("status", status=503, body="busy", media="text/plain", after=1)
    assert [one.get("/api/session").status for _ in range(3)] == [200, 503, 200]
    begun = time.monotonic()
    lab.fault("latency", delay_ms=80, match="/api/session", times=0)
    assert one.get("/api/session").status == 200
    assert time.monotonic() - begun >= 0.08
    lab.clear()
    lab.fault("expire", match="/api/session")
    assert one.get("/api/session").status == 401
    assert lab.get("/faults")["faults"] == []


def test_faults_of_the_connection(lab: VCloud) -> None:
    one = rest(lab)
    broken = (urllib.error.URLError, http.client.HTTPException, ConnectionError, ssl.SSLError)
    vm, target = one.vm("test01"), one.datastore("Development-2")
    lab.fault("drop", match="/action/relocate")
    with pytest.raises(broken):
        one.relocate(vm, target)
    assert known(lab, "test01")["relocations"] == 0
    lab.fault("lost_answer", match="/action/relocate")
    with pytest.raises(broken):
        one.relocate(vm, target)
    assert known(lab, "test01")["relocations"] == 1
    lab.fault("cut", match="type=adminVM")
    with pytest.raises(http.client.IncompleteRead):
        one.query("adminVM")
    assert one.get("/api/session").status == 200


def test_mistakes_on_the_control_port_change_nothing(lab: VCloud) -> None:
    before = lab.get("/switches")
    calls: list[Callable[[], object]] = [
        lambda: lab.switch(expired_status=500, per_host=3),
        lambda: lab.switch(nothing=1),
        lambda: lab.switch(per_host="many"),
        lambda: lab.fault("surprise"),
        lambda: lab.fault("status", colour="red"),
        lambda: lab.fault("status", times="x"),
        lambda: lab.post("/datastore", name="Production-1"),  # two of that name
        lambda: lab.get("/nothing"),
    ]
    for call in calls:
        with pytest.raises(LabError):
            call()
    assert lab.get("/switches") == before
    assert lab.get("/faults")["faults"] == []


def test_connections_are_kept_and_bodies_bounded(lab: VCloud) -> None:
    context = ssl.create_default_context(cafile=str(lab.ca_file))
    connection = http.client.HTTPSConnection("127.0.0.1", lab.port, context=context, timeout=10)
    for _ in range(5):
        connection.request("GET", "/api/versions")
        connection.getresponse().read()
    assert lab.get("/stats")["connections"] == 1
    connection.close()


def test_models_with_mistakes_are_told_all_at_once(tmp_path: Path) -> None:
    model = {
        "vcenters": [{"name": "vc1", "hosts": ["esx1"]}],
        "datastores": [{"name": "A", "vcenter": "vc1", "capacity": "many"}],
        "orgs": [{"name": "o", "vdcs": [{"name": "v", "vcenter": "vc1", "profiles": [], "colour": "red"}]}],
    }
    (tmp_path / "model.yml").write_text(yaml.safe_dump(model))
    with pytest.raises(LabError, match=r"(?s)'many' is no size.*colour is not known"), running(tmp_path, tmp_path / "model.yml"):
        pass


def test_ten_thousand_vms(tmp_path: Path) -> None:
    stores = [{"name": n, "vcenter": "vc1", "capacity": "64TiB"} for n in ("A", "B")]
    model = {
        "vcenters": [{"name": "vc1", "hosts": ["esx1", "esx2"]}],
        "datastores": stores,
        "orgs": [],
        "bulk": 10_000,
    }
    (tmp_path / "model.yml").write_text(yaml.safe_dump(model))
    with running(tmp_path, tmp_path / "model.yml") as lab:
        one, href = rest(lab), "/api/query?type=adminVM&pageSize=128&sortAsc=name"
        seen: set[str] = set()
        begun = time.monotonic()
        while href:
            result = one.get(href).xml
            seen.update(x.get("href", "") for x in result if local(x) == "AdminVMRecord")
            href = links(result).get("nextPage", "")
        assert len(seen) == 10_000
        assert time.monotonic() - begun < 20  # 1.5 s on an idle machine
