# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import gzip
import time
from email.utils import formatdate
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client, document, entities, query, relocate, transport, ways

from .conftest import BEARER, OLD, PASSWORD, VCLOUD, Answer, FakeVcd, packed, sample, versions

BASIC = "Basic " + base64.b64encode(f"administrator@System:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    ("version", "login", "accept", "token", "logout"),
    [
        ("1.5", "POST /api/sessions", "application/*+xml;version=1.5", ("x-vcloud-authorization", OLD), ["DELETE /api/session"]),
        ("30.0", "POST /api/sessions", "application/*+xml;version=30.0", ("authorization", f"Bearer {BEARER}"), ["DELETE /api/session"]),
        (
            "33.0",
            "POST /cloudapi/1.0.0/sessions/provider",
            "application/json;version=33.0",
            ("authorization", f"Bearer {BEARER}"),
            ["DELETE /cloudapi/1.0.0/sessions/urn:vcloud:session:3333cccc-0000-4000-8000-000000000003", "DELETE /api/session"],
        ),
        (
            "36.0",
            "POST /cloudapi/1.0.0/sessions/provider",
            "application/json;version=36.0",
            ("authorization", f"Bearer {BEARER}"),
            [
                "DELETE /cloudapi/1.0.0/sessions/current",
                "DELETE /cloudapi/1.0.0/sessions/urn:vcloud:session:3333cccc-0000-4000-8000-000000000003",
                "DELETE /api/session",
            ],
        ),
        (
            "39.1",
            "POST /cloudapi/1.0.0/sessions/provider",
            "application/json;version=39.1",
            ("authorization", f"Bearer {BEARER}"),
            [
                "DELETE /cloudapi/1.0.0/sessions/current",
                "DELETE /cloudapi/1.0.0/sessions/urn:vcloud:session:3333cccc-0000-4000-8000-000000000003",
            ],
        ),
    ],
)
def test_forms_by_era(
    vcd: FakeVcd, vcd_params: dict[str, Any], version: str, login: str, accept: str, token: tuple[str, str], logout: list[str]
) -> None:
    vcd.handlers["GET /api/session"] = lambda a: Answer(200, sample("session_xml"))
    with client.connect({**vcd_params, "api_version": version}) as session:
        assert session.get("https://elsewhere.example/api/session?x=1", step="look").get("org") == "System"
        assert BEARER not in repr(session)
        assert PASSWORD not in repr(session)
    assert vcd.paths() == ["GET /api/versions", login, "GET /api/session", *logout]
    assert (vcd.asked[1].headers["authorization"], vcd.asked[1].headers["accept"]) == (BASIC, accept)
    for asked in vcd.asked[2:]:
        assert asked.headers[token[0]] == token[1]
        assert "cookie" not in asked.headers
    assert vcd.asked[2].path == "/api/session?x=1"
    assert vcd.asked[2].headers["accept"] == f"application/*+xml;version={version}"
    assert "authorization" not in vcd.asked[0].headers


def test_a_log_out_form_that_works_is_the_last(vcd: FakeVcd, vcd_params: dict[str, Any]) -> None:
    vcd.handlers["DELETE /cloudapi/1.0.0/sessions/current"] = lambda a: Answer(204)
    session = client.connect(vcd_params)
    session.close()
    session.close()
    assert [p for p in vcd.paths() if p.startswith("DELETE")] == ["DELETE /cloudapi/1.0.0/sessions/current"]


def test_a_tenant_logs_in_elsewhere(vcd: FakeVcd, vcd_params: dict[str, Any]) -> None:
    client.connect({**vcd_params, "auth_org": "acme"}).close()
    assert "POST /cloudapi/1.0.0/sessions" in vcd.paths()


def test_a_session_of_a_server_without_a_token(vcd: FakeVcd, vcd_params: dict[str, Any]) -> None:
    vcd.handlers["POST /cloudapi/1.0.0/sessions/provider"] = lambda a: Answer(200, b"{}")
    with pytest.raises(ServerError, match="without a token"):
        client.connect(vcd_params)


@pytest.mark.parametrize("status", [404, 500, 403])
def test_what_is_no_vcloud(vcd: FakeVcd, vcd_params: dict[str, Any], status: int) -> None:
    vcd.handlers["GET /api/versions"] = lambda a: Answer(status)
    with pytest.raises(ServerError) as e:
        client.connect(vcd_params)
    assert e.value.code == "not_vcloud"


def test_the_relocate_request_is_at_38_1(vcd: FakeVcd, vcd_params: dict[str, Any]) -> None:
    vcd.handlers["GET /api/versions"] = lambda a: Answer(200, versions("38.1", "39.1"))
    vcd.handlers["GET /api/vApp/vm-1111aaaa-0000-4000-8000-000000000001"] = lambda a: Answer(200, sample("vm"))
    vcd.handlers["GET /api/query"] = lambda a: Answer(200, b'<QueryResultRecords xmlns="http://www.vmware.com/vcloud/v1.5" total="0"/>')
    vcd.handlers["POST /api/vApp/vm-1111aaaa-0000-4000-8000-000000000001/action/relocate"] = lambda a: Answer(202, sample("task_running"))
    with client.connect(vcd_params) as session:
        facts = relocate.read(session, "/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001")
        target = entities.datastore_of(document.parse(sample("datastore_ext")))
        begun = relocate.begin(session, facts, target)
    assert begun.task is not None
    assert begun.task.progress == 40
    sent = next(a for a in vcd.asked if a.path.endswith("/action/relocate"))
    assert sent.headers["accept"] == "application/*+xml;version=38.1"
    assert sent.headers["content-type"] == "application/vnd.vmware.vcloud.relocateVmParams+xml"
    assert sent.body == relocate.relocate_body("https://vcd.example/api/admin/extension/datastore/2222bbbb-0000-4000-8000-000000000002")


def test_compressed_answers(vcd: FakeVcd, vcd_params: dict[str, Any]) -> None:
    vcd.handlers["GET /api/session"] = lambda a: packed(sample("session_xml"))
    vcd.handlers["GET /api/org"] = lambda a: packed(b"<a>" + b" " * (80 << 20) + b"</a>")
    vcd.handlers["GET /api/vdc"] = lambda a: Answer(200, gzip.compress(b"<a/>" * 1000)[:-20], {"Content-Encoding": "gzip"})
    with client.Client(transport.endpoint(vcd_params), sleep=lambda s: None) as session:
        assert session.get("/api/session", step="look").get("org") == "System"
        with pytest.raises(ServerError) as e:
            session.get("/api/org", step="look")
        assert e.value.code == "too_large"
        with pytest.raises(ServerError) as e:
            session.get("/api/vdc", step="look")
        assert e.value.code == "lost_answer"


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        (["ab/cd"], ""),
        (["ab/bc", "ad/cb"], ""),
        (["ab/bc", "ab/cb", "db/ac"], ""),
        (["ab/bc"] * 4, "4 told, 3 given"),
        (["ab/cd/ef"] * 4, "4 told, 6 given"),
    ],
)
def test_lists_whose_pages_overlap(vcd: FakeVcd, vcd_params: dict[str, Any], reads: list[str], said: str) -> None:
    todo = [page for read in reads for page in enumerate(read.split("/"), 1)]

    def answer(asked: Any) -> Answer:
        number, names = todo.pop(0)
        last = not todo or todo[0][0] == 1
        link = "" if last else f'<Link rel="nextPage" href="https://h/api/query?type=adminVM&amp;cursor={len(todo)}"/>'
        rows = "".join(f'<AdminVMRecord name="{n}" href="https://h/api/vApp/vm-{n}"/>' for n in names)
        return Answer(
            200, f'<QueryResultRecords xmlns="{VCLOUD}" total="4" page="{number}" pageSize="2">{link}{rows}</QueryResultRecords>'.encode()
        )

    vcd.handlers["GET /api/query"] = answer
    with client.Client(transport.endpoint(vcd_params), sleep=lambda s: None) as session:
        if said:
            with pytest.raises(ServerError, match=said):
                query.records(session, "adminVM", step="list")
        else:
            assert {r["name"] for r in query.records(session, "adminVM", step="list")} == set("abcd")
    assert not todo


@pytest.mark.parametrize(
    ("given", "user", "org"),
    [
        ({"username": "administrator"}, "administrator", "System"),
        ({"username": "administrator@system"}, "administrator", "system"),
        ({"username": "administrator@system", "auth_org": "System"}, "administrator", "System"),
        ({"username": "a@b.example", "auth_org": "acme"}, "a@b.example", "acme"),
        ({"username": "a@b.example@acme"}, "a@b.example", "acme"),
    ],
)
def test_users_and_organizations(given: dict[str, str], user: str, org: str) -> None:
    where = transport.endpoint({"hostname": "h", "password": "x", **given})
    assert (where.username, where.org) == (user, org)
    assert where.provider is (org.lower() == "system")


def test_options_that_are_missing_or_wrong() -> None:
    with pytest.raises(BadInput, match=r"hostname .*VCD_HOST.*username .*VCD_USER.*password .*VCD_PASSWORD"):
        transport.endpoint({})
    with pytest.raises(BadInput, match="not a URL") as e:
        transport.endpoint({"hostname": "https://me:word@h", "username": "a", "password": "b"})
    assert "word" not in str(e.value)
    with pytest.raises(BadInput, match="colon"):
        transport.endpoint({"hostname": "h", "username": "a:b", "password": "b"})
    assert transport.endpoint({"hostname": "[::1]", "token": "t"}).base_url == "https://[::1]:443"


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("https://public.example/api/vApp/vm-1?a=b&c=%20", "/api/vApp/vm-1?a=b&c=%20"),
        ("http://other/cloudapi/1.0.0/x", "/cloudapi/1.0.0/x"),
        ("/api/query", "/api/query"),
        ("https://h:1/api", "/api"),
    ],
)
def test_links(href: str, path: str) -> None:
    assert transport.local_path(href) == path


@pytest.mark.parametrize(
    "href",
    ["", "https://evil.example/", "//evil.example/x", "https://h/apis/x", "/api/../admin", "/api/x\r\nHost: evil", "/api/a b",
     "file:///etc/passwd", "http://[::1/api/x", "/api/\\\\evil", "x" * 9000],
)  # fmt: skip
def test_links_that_are_refused(href: str) -> None:
    with pytest.raises(ServerError) as e:
        transport.local_path(href)
    assert e.value.code == "link"


def test_pauses() -> None:
    assert [client.pause_before(n, None, lambda: 1.0) for n in (2, 3, 4, 9)] == [1.0, 2.0, 4.0, 30.0]
    assert client.pause_before(2, None, lambda: 0.0) == 0.5
    assert client.pause_before(2, "7", lambda: 0.0) == 7.0
    assert client.pause_before(2, "99999", lambda: 0.0) == 300.0
    assert client.pause_before(3, "soon", lambda: 1.0) == 2.0
    assert client.pause_before(3, "Wed, 21 Oct 2015 07:28:00 GMT", lambda: 1.0) == 0.0
    assert 8 < client.pause_before(3, formatdate(time.time() + 10, usegmt=True), lambda: 0.0) <= 10


def test_tokens_by_their_looks() -> None:
    assert client.token_headers(BEARER) == {"Authorization": f"Bearer {BEARER}"}
    assert client.token_headers(OLD) == {"x-vcloud-authorization": OLD}


def test_bodies_that_are_sent_escape_what_is_in_them() -> None:
    href = "https://h/api/x?a=1&b=<\"'>"
    sent = document.parse(relocate.relocate_body(href))
    assert [e.get("href") for e in sent] == [href]
    vm = entities.vm_of(document.parse(sample("vm").replace(b'name="db01"', b'name="a&lt;&amp;&quot;b"')))
    again = document.parse(ways.vm_body(vm))
    assert again.get("name") == 'a<&"b'
    store = entities.datastore_of(document.parse(sample("datastore_ext")))
    whole = document.parse(ways.tenant_body("https://h/api/org/1", store, store))
    assert [document.name_of(e) for e in whole] == ["orgs", "sourceDatastores", "targetDatastores"]
