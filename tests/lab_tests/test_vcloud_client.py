# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vCloud client against the lab's server: every era, expiry, paging, what a server or a proxy may do wrong."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import client, find, query, situation, tasks, transport

from .vcloud_env import Quick, control, fault, params, requests_of, switch

ERAS = ["1.5", "5.1", "29.0", "30.0", "32.0", "33.0", "35.0", "36.0", "37.0", "38.0", "38.1", "39.0", "39.1"]
ODD = "shop(1), a;b"


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """The lab as its model has it, before and after."""
    control("POST", "/reset")
    yield
    control("POST", "/reset")


def error(call: Callable[..., object], *args: object, **kwargs: object) -> ServerError:
    with pytest.raises(ServerError) as caught:
        call(*args, **kwargs)
    return caught.value


@pytest.mark.parametrize("version", ERAS)
def test_log_in_list_and_log_out_at_every_era(version: str) -> None:
    with client.administrator(params(api_version=version)) as session:
        assert session.api_version == version
        rows = situation.vm_rows(session)
        assert len(rows) == 86
        assert {r["org"] for r in rows} == {"acme", "globex", "東京"}
        assert {r["vcenter"] for r in rows} == {"vc1", "vc2"}
        odd = find.list_vms(session, name=ODD)
        assert [v.name for v in odd] == [ODD]
        assert [v.name for v in find.list_vms(session, name="業務01")] == ["業務01"]
    state = control("GET", "/stats")
    assert (state["logins"], state["logouts"], state["sessions"]) == (1, 1, 0)


def test_the_highest_version_that_both_know() -> None:
    switch(versions=["9.0", "10.0", "1.5", "36.0", "5.1", "40.0"], alpha_versions=["39.5"])
    with client.connect(params()) as session:
        assert session.api_version == "36.0"
    with pytest.raises(BadInput, match="36.0, 10.0, 9.0, 5.1, 1.5"):
        client.connect(params(api_version="37.0"))


def test_the_session_is_logged_out_where_something_fails() -> None:
    def fail() -> None:
        with client.connect(params()):
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError):
        fail()
    assert control("GET", "/stats")["sessions"] == 0


def test_wrong_password_org_and_user() -> None:
    e = error(client.connect, params(password="certainly-wrong"))
    assert e.code == "login"
    assert "certainly-wrong" not in str(e.as_dict())
    assert error(client.connect, params(auth_org="nobody", api_version="29.0")).code == "login"
    with pytest.raises(ServerError) as caught:
        with client.administrator(params(username="orgadmin", auth_org="acme")):
            pass
    assert caught.value.code == "not_system_administrator"
    assert control("GET", "/stats")["sessions"] == 0
    with client.connect(params(username="orgadmin", auth_org="acme")) as session:
        assert error(find.list_vms, session).code == "forbidden"


@pytest.mark.parametrize("user", ["administrator@system", "administrator@System"])
@pytest.mark.parametrize("version", ["1.5", "37.0"])
def test_the_organization_in_the_user_name(user: str, version: str) -> None:
    with client.administrator(params(username=user, auth_org=None, api_version=version)) as session:
        assert session.where.provider


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("version", ["1.5", "30.0", "39.1"])
def test_an_expired_session_is_renewed_once(version: str, status: int) -> None:
    switch(expired_status=status, no_login_status=status)
    with client.connect(params(api_version=version)) as session:
        control("POST", "/expire")
        assert len(find.list_vms(session)) == 86
        assert session.generation == 2
        fault("expire", times=0, match="GET /api/query")
        assert error(find.list_vms, session).code in ("unauthorized", "forbidden")
        control("DELETE", "/faults")
    assert control("GET", "/stats")["sessions"] == 0


def test_a_refusal_is_no_expiry() -> None:
    with client.connect(params()) as session:
        e = error(session.get, "/api/vApp/vm-00000000-0000-4000-8000-000000000000", step="read the VM")
        assert e.code == "forbidden"
        assert session.generation == 1
        assert e.details["major"] == 403
        assert e.details["minor"]
        assert e.details["request_id"]
        assert e.said


def test_an_expired_session_while_waiting_for_a_task() -> None:
    switch(task_seconds=0.8)
    with client.connect(params(api_version="38.1")) as session:
        vm = find.find_vm(session, "web03")
        store = find.find_datastore(session, "Production-2")
        from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import relocate

        begun = relocate.begin(session, relocate.read(session, vm.href), store)
        assert begun.task is not None
        control("POST", "/expire")
        assert tasks.wait_task(session, begun.task.href, step="wait").status == "success"
        assert session.generation == 2


def test_a_token_of_somebody_else() -> None:
    with client.connect(params()) as mine:
        bearer = mine._headers["Authorization"].split(" ")[1]
        with client.connect(params(token=bearer, username=None, password=None)) as session:
            assert len(find.list_vms(session)) == 86
        assert control("GET", "/stats")["sessions"] == 1
    with client.connect(params(token=bearer, username=None, password=None)) as session:
        assert error(find.list_vms, session).code == "login"
    with client.connect(params(token=bearer)) as session:
        assert len(find.list_vms(session)) == 86


# -- paging -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 25, 30, 128, 1000])
def test_all_pages(size: int) -> None:
    with client.connect(params()) as session:
        found = query.records(session, "adminVM", step="list", fields=("name",), page_size=size)
        assert len({r["href"] for r in found}) == len(found) == 86
        assert [r["name"] for r in found] == sorted(r["name"] for r in found)


def test_a_server_that_clamps_the_page_size() -> None:
    switch(page_size_max=10)
    with client.connect(params()) as session:
        assert len(query.records(session, "adminVM", step="list")) == 86
    assert requests_of("GET /api/query?type=adminVM") == 9


def test_pages_are_fetched_together() -> None:
    fault("latency", delay_ms=60, times=0, match="type=adminVM")
    with client.connect(params()) as session:
        assert len(query.records(session, "adminVM", step="list", page_size=5)) == 86
    assert control("GET", "/stats")["most_at_once"] > 1


@pytest.mark.parametrize("status", [401, 403])
def test_the_session_expires_between_pages(status: int) -> None:
    switch(expired_status=status, no_login_status=status)
    fault("expire", match="page=7&")
    with Quick() as session:
        assert len(query.records(session, "adminVM", step="list", page_size=5)) == 86
        assert session.generation == 2
    assert control("GET", "/stats")["logins"] == 2


def test_a_list_in_no_order_is_read_again() -> None:
    switch(order="shuffled")
    with client.connect(params()) as session:
        session.sleep = lambda seconds: None
        for _turn in range(5):
            found: list[dict[str, str]] = []
            code = "read"
            try:
                found = query.records(session, "adminVM", step="list", page_size=20, sort=None)
            except ServerError as e:
                code = e.code
            assert code == "paging" if not found else len({r["href"] for r in found}) == len(found) == 86


def test_a_total_that_lies() -> None:
    fault("total", delta=3, times=0)
    with client.connect(params()) as session:
        e = error(find.list_vms, session)
        assert e.code == "paging"
        assert "89 told, 86 given" in str(e)
    control("DELETE", "/faults")
    fault("total", delta=-2, times=1)
    with client.connect(params()) as session:
        assert len(find.list_vms(session)) == 86


@pytest.mark.parametrize("page", [1, 2])
def test_pages_that_lead_in_a_circle(page: int) -> None:
    fault("loop", page=page, times=0)
    with client.connect(params()) as session:
        e = error(query.records, session, "adminVM", step="list", page_size=20)
        assert e.code == "paging"
        assert "circle" in str(e)


# -- what a server or a proxy may do wrong ----------------------------------------------------------------------------


def test_a_certificate_that_is_not_trusted() -> None:
    assert error(client.connect, params(ca_path=None)).code == "untrusted_certificate"
    with pytest.raises(BadInput, match="cannot be read"):
        client.connect(params(ca_path=__file__))
    with client.connect(params(ca_path=None, validate_certs=False)) as session:
        assert session.api_version


def test_nothing_listens() -> None:
    assert error(client.connect, params(port=1)).code == "unreachable"


@pytest.mark.parametrize("match", ["GET /api/versions", "POST /cloudapi", "GET /api/query"])
def test_a_web_page_instead_of_xml(match: str) -> None:
    fault("html", match=match, times=0)

    def go() -> None:
        with client.connect(params()) as session:
            find.list_vms(session)

    e = error(go)
    assert e.code in ("html", "protocol")
    if match != "POST /cloudapi":
        assert "web page" in str(e)
    assert control("GET", "/stats")["sessions"] == 0


def test_a_doctype_is_refused() -> None:
    fault("doctype", match="GET /api/query", times=0)
    with client.connect(params()) as session:
        e = error(find.list_vms, session)
        assert e.code == "protocol"
        assert "DOCTYPE" in str(e)


def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transport.Transport.exchange, "__kwdefaults__", {**(transport.Transport.exchange.__kwdefaults__ or {}), "limit": 1 << 20}
    )
    fault("big", match="GET /api/query", bytes=8 << 20)
    with client.connect(params()) as session:
        assert error(find.list_vms, session).code == "too_large"


class Trap:
    """A server that no request may reach; it counts connections."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _peer = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    found.socket.close()


def test_links_to_another_host_are_followed_on_ours(trap: Trap) -> None:
    fault("foreign_href", location=f"https://127.0.0.1:{trap.port}", times=0)
    with client.connect(params()) as session:
        assert len(query.records(session, "adminVM", step="list", page_size=20)) == 86
        vm = find.find_vm(session, "web04")
        assert str(trap.port) in vm.href
        assert find.read_vm(session, vm.href).name == "web04"
    assert trap.connections == 0


@pytest.mark.parametrize("match", ["GET /api/versions", "POST /cloudapi", "GET /api/query"])
def test_no_redirect_to_another_host(trap: Trap, match: str) -> None:
    fault("redirect", location=f"https://127.0.0.1:{trap.port}/api/query", match=match, times=0)

    def go() -> None:
        with client.connect(params()) as session:
            find.list_vms(session)

    assert error(go).code == "redirect"
    assert trap.connections == 0


def test_a_redirect_within_is_followed() -> None:
    fault("redirect", location="/api/versions/", match="GET /api/versions", times=1)
    with client.connect(params()) as session:
        fault(
            "redirect", location=f"https://{os.environ['VCD_HOST']}:{os.environ['VCD_PORT']}/api/session", match="GET /api/query", times=1
        )
        assert error(find.list_vms, session).code == "protocol"


def test_a_broken_connection_is_tried_again() -> None:
    with Quick() as session:
        for kind in ("drop", "lost_answer", "cut"):
            fault(kind, match="GET /api/query")
            assert len(find.list_vms(session)) == 86
        fault("drop", match="GET /api/query", times=0)
        assert error(find.list_vms, session).code == "lost_answer"


@pytest.mark.parametrize(("status", "minor"), [(429, "TOO_MANY_REQUESTS"), (503, "SERVICE_UNAVAILABLE"), (400, "BUSY_ENTITY")])
def test_later_means_later(status: int, minor: str) -> None:
    with Quick() as session:
        fault("status", status=status, minor=minor, match="GET /api/query", times=3, retry_after="2" if status == 503 else "")
        assert len(find.list_vms(session)) == 86
        assert len(session.slept) == 3
        if status == 503:
            assert all(2 <= s <= 2.3 for s in session.slept)
        fault("status", status=status, minor=minor, match="GET /api/query", times=0)
        assert error(find.list_vms, session).code in ("throttled", "unavailable", "busy_entity")
        assert len(session.slept) < 12


def test_a_503_with_a_web_page_is_waited_for() -> None:
    fault("status", status=503, body="<html><title>Down</title></html>", media="text/html", match="GET /api/versions", times=2)
    with Quick() as session:
        assert session.api_version


def test_no_token_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    with client.connect(params()) as session:
        find.list_vms(session)
        token = session._headers["Authorization"].split(" ")[1]
        shown = repr(session) + repr(session.where) + repr(vars(session.where).keys())
    assert token not in caplog.text
    assert os.environ["VCD_PASSWORD"] not in caplog.text
    assert os.environ["VCD_PASSWORD"] not in shown


def test_connections_are_kept() -> None:
    control("DELETE", "/stats")
    with client.connect(params()) as session:
        for _turn in range(10):
            find.list_datastores(session)
    assert control("GET", "/stats")["connections"] <= 2


def test_a_netrc_and_a_ca_bundle_of_the_environment_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w", encoding="ascii") as f:
        f.write(f"machine {os.environ['VCD_HOST']} login somebody password else\n")
    os.chmod(netrc, 0o600)
    monkeypatch.setenv("NETRC", netrc)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    with client.connect(params()) as session:
        assert len(find.list_vms(session)) == 86
