# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's vCloud Director as clients that are not ours see it: the seed's curl lines, pyvcloud, go-vcloud-director."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.lab.vcloud import VCloud, build_client
from tests.lab_tests.vcloud_lab import RELOCATE, Rest, known, running

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

PYVCLOUD = [f"{n}.0" for n in range(29, 37)]
GO = ["37.0", "37.3", "38.0", "38.1"]
ODD = "shop(1), a;b"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCloud]:
    with running(tmp_path_factory.mktemp("vcloud")) as vcloud:
        yield vcloud


@pytest.fixture
def lab(server: VCloud) -> VCloud:
    server.reset()
    return server


class Curl:
    """The seed's command line. The password comes by standard input: it is never an argument."""

    def __init__(self, lab: VCloud) -> None:
        self.lab = lab

    def __call__(self, *arguments: str, user: str = "") -> tuple[dict[str, str], str]:
        secret = f'user = "{user}:{self.lab.place.password()}"\n' if user else ""
        argv = [
            "curl",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--config",
            "-",
            "--include",
            "--cacert",
            str(self.lab.ca_file),
            *arguments,
        ]
        done = subprocess.run(argv, input=secret, capture_output=True, text=True, check=True, timeout=30)
        head, _blank, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
        return {"status": head.split()[1], **{k.lower(): v for k, v in headers.items()}}, body


def test_the_curl_lines_of_the_seed_as_written(lab: VCloud) -> None:
    """Log in as administrator@system at API 1.5, 86 VMs in pages of 25, page 3 of 30, datastores, relocate, log out."""
    curl, base = Curl(lab), lab.url
    accept = ("-H", "Accept: application/*+xml;version=1.5")
    headers, body = curl("-X", "POST", *accept, f"{base}/api/sessions", user="administrator@system")
    assert headers["status"] == "200"
    session = ET.fromstring(body)
    assert (session.get("user"), session.get("org")) == ("administrator", "System")
    token = ("-H", f"x-vcloud-authorization: {headers['x-vcloud-authorization']}")

    names: list[str] = []
    for page, count in ((1, 25), (2, 25), (3, 25), (4, 11)):
        more = f"&page={page}" if page > 1 else ""
        _headers, body = curl(*accept, *token, f"{base}/api/query?type=adminVM&fields=name,datastoreName{more}")
        result = ET.fromstring(body)
        records = [x for x in result if x.tag.endswith("AdminVMRecord")]
        assert (result.get("total"), result.get("pageSize"), result.get("page"), len(records)) == ("86", "25", str(page), count)
        assert all(set(x.attrib) == {"name", "datastoreName", "href"} for x in records)
        names += [x.get("href", "") for x in records]
    assert len(set(names)) == 86

    _headers, body = curl(*accept, *token, f"{base}/api/query?type=adminVM&pageSize=30&page=3")
    result = ET.fromstring(body)
    records = [x for x in result if x.tag.endswith("AdminVMRecord")]
    assert (len(records), result.get("pageSize"), result.get("page")) == (26, "30", "3")
    _headers, body = curl(*accept, *token, f"{base}/api/query?type=datastore&fields=name")
    targets = {x.get("name"): x.get("href") for x in ET.fromstring(body) if x.tag.endswith("DatastoreRecord")}
    assert {"Production-1", "Development-1"} <= set(targets)

    _headers, body = curl(*accept, *token, f"{base}/api/query?type=adminVM&filter=name==test01&fields=name,datastoreName")
    vm = ET.fromstring(body)[0]
    assert vm.get("datastoreName") == "Development-1"
    params = f'<RelocateParams xmlns="http://www.vmware.com/vcloud/v1.5"><Datastore href="{targets["Development-2"]}"/></RelocateParams>'
    headers, body = curl(
        "-X", "POST", *accept, *token, "-H", f"Content-Type: {RELOCATE}", "-d", params, f"{vm.get('href')}/action/relocate"
    )  # fmt: skip
    assert (headers["status"], ET.fromstring(body).get("operationName")) == ("202", "vappRelocateVm")
    while ET.fromstring(curl(*accept, *token, headers["location"])[1]).get("status") in ("queued", "running"):
        pass
    _headers, body = curl(*accept, *token, f"{base}/api/query?type=adminVM&filter=name==test01&fields=name,datastoreName")
    assert ET.fromstring(body)[0].get("datastoreName") == "Development-2"

    headers, _body = curl("-X", "DELETE", *accept, *token, f"{base}/api/session")
    assert headers["status"] == "204"
    assert curl(*accept, *token, f"{base}/api/query?type=datastore")[0]["status"] == "401"


def test_curl_without_the_labs_ca_is_refused(lab: VCloud, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    argv = ["curl", "--silent", "--noproxy", "*", "--cacert", str(tmp_path / "empty.pem"), f"{lab.url}/api/versions"]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode in (60, 77)
    assert lab.get("/stats")["requests"] == {}


@pytest.fixture
def pyvcloud() -> Iterator[Any]:
    """pyvcloud's modules by name; what they warn of themselves is theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield lambda name: importlib.import_module(f"pyvcloud.vcd.{name}")


def pyvcloud_client(pyvcloud: Any, lab: VCloud, version: str | None, user: str = "administrator", org: str = "System") -> Any:
    client = pyvcloud("client")
    one = client.Client(lab.url, api_version=version, verify_ssl_certs=str(lab.ca_file), log_file=os.devnull)
    one.set_credentials(client.BasicLoginCredentials(user, org, lab.place.password()))
    return one


@pytest.mark.parametrize("version", PYVCLOUD)
def test_pyvcloud_drives_every_era_it_knows(lab: VCloud, pyvcloud: Any, version: str) -> None:
    """Log-in, typed queries in pages and all formats, filters by era, relocate, its task, log-out."""
    formats = pyvcloud("client").QueryResultFormat
    one = pyvcloud_client(pyvcloud, lab, version)
    assert one.get_api_version() == version
    for form in (formats.RECORDS, formats.ID_RECORDS, formats.REFERENCES):
        rows = list(one.get_typed_query("adminVM", query_result_format=form, sort_asc="name", page_size=30).execute())
        assert len(rows) == len({r.get("href") or r.get("id") for r in rows}) == 86
    # Before 35 pyvcloud encodes a filter once more for filterEncoded=true, and leaves the values to its caller.
    odd = {"qfilter": f"name=={quote(ODD, safe='')}"} if float(version) < 35 else {"equality_filter": ("name", ODD)}
    assert [r.get("name") for r in one.get_typed_query("adminVM", query_result_format=formats.RECORDS, **odd).execute()] == [ODD]

    stores = {d["name"]: d["Id"] for d in pyvcloud("platform").Platform(one).list_datastores()}
    [row] = one.get_typed_query("adminVM", query_result_format=formats.RECORDS, qfilter="name==app03").execute()
    vm = pyvcloud("vm").VM(one, href=row.get("href"))
    task = one.get_task_monitor().wait_for_success(vm.relocate(stores["Production-2"]), timeout=30, poll_frequency=0.05)
    assert (task.get("status"), int(task.Progress)) == ("success", 100)
    assert known(lab, "app03")["datastore"] == "Production-2"
    exceptions = pyvcloud("exceptions")
    with pytest.raises(exceptions.BadRequestException, match="disabled"):
        vm.relocate(stores["retired-1"])
    lab.fault("task_fail", match="app03", message="no route to host", at=0.2)
    with pytest.raises(exceptions.VcdTaskException, match="no route to host"):
        one.get_task_monitor().wait_for_success(vm.relocate(stores["Development-1"]), timeout=30, poll_frequency=0.05)
    assert known(lab, "app03")["datastore"] == "Production-2"
    one.logout()
    state = lab.get("/stats")
    assert (state["logins"], state["logouts"], state["sessions"]) == (1, 1, 0)


def test_pyvcloud_chooses_the_highest_version_that_it_knows(lab: VCloud, pyvcloud: Any) -> None:
    one = pyvcloud_client(pyvcloud, lab, None)
    assert one.get_api_version() == "36.0"
    one.logout()
    lab.switch(versions=["31.0", "32.0", "33.0", "39.1"])
    one = pyvcloud_client(pyvcloud, lab, None)
    assert one.get_api_version() == "33.0"
    one.logout()


def test_pyvcloud_as_a_tenant_and_with_a_wrong_password(lab: VCloud, pyvcloud: Any) -> None:
    one = pyvcloud_client(pyvcloud, lab, "36.0", "orgadmin", "globex")
    formats, exceptions = pyvcloud("client").QueryResultFormat, pyvcloud("exceptions")
    rows = list(one.get_typed_query("vm", query_result_format=formats.RECORDS).execute())
    assert len(rows) == 19
    with pytest.raises(exceptions.OperationNotSupportedException):  # the QueryList has no adminVM for a tenant
        list(one.get_typed_query("adminVM", query_result_format=formats.RECORDS).execute())
    one.logout()
    client = pyvcloud("client")
    wrong = client.Client(lab.url, api_version="36.0", verify_ssl_certs=str(lab.ca_file), log_file=os.devnull)
    with pytest.raises((exceptions.VcdException, exceptions.ClientException)):
        wrong.set_credentials(client.BasicLoginCredentials("administrator", "System", "wrong"))
    assert lab.get("/stats")["sessions"] == 0


@pytest.fixture(scope="session")
def goclient() -> Path:
    return build_client()


def go(goclient: Path, lab: VCloud, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "VCD_PASSWORD": lab.place.password(),
        "SSL_CERT_FILE": str(lab.ca_file),
    }
    argv = [str(goclient), "-url", f"{lab.url}/api", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("version", [*GO, ""])
def test_go_vcloud_director_drives_every_era_it_knows(lab: VCloud, goclient: Path, version: str) -> None:
    """Log-in, queries in pages, relocate by the Vm's link, its task, the task query, log-out by sessions/current."""
    done = go(goclient, lab, "-api", version, "-vm", "app03", "-datastore", "Production-2")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["api"] == (version or "37.0")  # its own choice
    assert (said["total"], len(said["names"]), said["orgs"], said["tasks"]) == (86, 86, 4, 1)
    assert said["names"] == sorted(said["names"])
    assert (said["status"], said["before"], said["after"], said["logged_out"]) == ("success", "datastore-41", "datastore-42", True)
    assert known(lab, "app03")["datastore"] == "Production-2"
    assert lab.get("/stats")["sessions"] == 0


@pytest.mark.parametrize("version", ["39.0", "39.1"])
def test_go_vcloud_director_finds_no_relocate_from_39_on(lab: VCloud, goclient: Path, version: str) -> None:
    assert json.loads(go(goclient, lab, "-api", version).stdout)["total"] == 86
    done = go(goclient, lab, "-api", version, "-vm", "app03", "-datastore", "Production-2")
    assert (done.returncode, "no relocate link" in done.stderr) == (1, True)


def test_go_vcloud_directors_own_log_out_is_a_switch(lab: VCloud, goclient: Path) -> None:
    done = go(goclient, lab, "-disconnect")
    assert (done.returncode, "405" in done.stderr) == (1, True)
    lab.switch(provider_log_out="accept")
    assert json.loads(go(goclient, lab, "-disconnect").stdout)["logged_out"] is True


def test_go_vcloud_director_with_a_wrong_org(lab: VCloud, goclient: Path) -> None:
    done = go(goclient, lab, "-org", "nobody")
    assert (done.returncode, "401" in done.stderr) == (1, True)


def test_no_token_and_no_password_is_written_anywhere(lab: VCloud) -> None:
    rest = Rest(lab)
    rest.log_in()
    rest.get("/api/session")
    token = rest.token["Authorization"].split()[1]
    seen = "".join(json.dumps(lab.get(p)) for p in ("/state", "/vms", "/stats", "/faults", "/switches"))
    log = lab.process.log_file.read_text()
    assert not re.search(f"{re.escape(token)}|{re.escape(lab.place.password())}", seen + log)
