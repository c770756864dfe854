# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import client

from .conftest import PASSWORD, FakeVcenter, Fault

KNOWN = [("new", "9.0.0.0"), ("middle", "8.0.2.0"), ("old", "6.5")]


def test_the_newest_common_version_is_chosen() -> None:
    document = (
        b"<namespaces><namespace><name>urn:vim25</name><version>8.0.3.0</version>"
        b"<priorVersions><version>8.0.2.0</version><version>6.5</version></priorVersions></namespace></namespaces>"
    )
    assert client.choose_version(document, KNOWN) == "middle"


@pytest.mark.parametrize(
    "document",
    [
        b"<html>no</html>",
        b"not xml",
        b"",
        b"<namespaces><namespace><name>urn:other</name><version>6.5</version></namespace></namespaces>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><namespaces><namespace><name>urn:vim25</name><version>6.5</version></namespace></namespaces>",
    ],
)
def test_no_version_in_what_is_no_vsphere(document: bytes) -> None:
    assert client.choose_version(document, KNOWN) is None


def test_every_missing_option_is_named_with_its_variable() -> None:
    with pytest.raises(BadInput) as e:
        client.endpoint({"hostname": "", "username": None, "password": None})
    assert all(word in str(e.value) for word in ("hostname", "VMWARE_HOST", "username", "VMWARE_USER", "password", "VMWARE_PASSWORD"))


def test_a_url_is_no_hostname_and_its_password_is_not_shown() -> None:
    with pytest.raises(BadInput) as e:
        client.endpoint({"hostname": "https://user:hidden@host/", "username": "u", "password": "p"})
    assert "hidden" not in str(e.value)


def test_an_ipv6_address_has_brackets_in_urls_only() -> None:
    where = client.endpoint({"hostname": "[::1]", "username": "u", "password": "p", "port": 8443})
    assert (where.host, where.netloc) == ("::1", "[::1]:8443")


def test_a_session_logs_in_once_with_locale_and_out_once(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    with client.connect(params) as session:
        assert session.content.about.name == "fake"
        assert session.cookie == '"session-1"'
        session.close()
    assert vcenter.calls == ["RetrieveServiceContent", "Login", "Logout"]
    assert re.search("<locale[^>]*>en_US<", vcenter.bodies[1])
    assert PASSWORD not in repr(session)


def test_a_wrong_password_is_said_without_it(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    with pytest.raises(ServerError) as e:
        client.connect({**params, "password": "wrong-one"})
    assert e.value.code == "login"
    assert "administrator@vsphere.local" in str(e.value)
    assert "wrong-one" not in str(e.value) + repr(e.value.as_dict())


def test_an_untrusted_certificate_names_ca_path(params: dict[str, Any]) -> None:
    with pytest.raises(ServerError) as e:
        client.connect({**params, "ca_path": None})
    assert e.value.code == "untrusted_certificate"
    assert "ca_path" in (e.value.next_command or "")


def test_localhost_is_verified_too(params: dict[str, Any]) -> None:
    with pytest.raises(ServerError) as e:
        client.connect({**params, "hostname": "localhost", "ca_path": None})
    assert e.value.code == "untrusted_certificate"


def test_verification_can_be_turned_off(params: dict[str, Any]) -> None:
    client.connect({**params, "ca_path": None, "validate_certs": False}).close()


def test_ca_path_that_is_no_pem(params: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    for path in (tmp_path / "x.pem", tmp_path / "absent.pem"):
        with pytest.raises(BadInput, match="ca_path"):
            client.connect({**params, "ca_path": str(path)})


def test_a_closed_port_a_silent_server_and_another_server(params: dict[str, Any], vcenter: FakeVcenter) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        with pytest.raises(ServerError) as e:
            client.connect({**params, "port": port})
        assert e.value.code == "unreachable"
        s.listen()
        with pytest.raises(ServerError) as e:
            client.connect({**params, "port": port}, timeout=0.1)
        assert e.value.code == "timeout"
    vcenter.versions = b"<html>hello</html>"
    with pytest.raises(ServerError) as e:
        client.connect(params)
    assert e.value.code == "not_vsphere"


def test_an_expired_session_is_renewed_once(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    vcenter.handlers["Destroy_Task"] = lambda body: None
    with client.connect(params) as session:
        vcenter.sessions.clear()
        vm = session.managed("VirtualMachine", "vm-1")
        assert session.call(vm.Destroy_Task) is None
        assert vcenter.logins == 2
        assert session.generation == 2

        def never(body: str) -> None:
            raise Fault("NotAuthenticated")

        vcenter.handlers["Destroy_Task"] = never
        with pytest.raises(ServerError) as e:
            session.call(vm.Destroy_Task, step="try")
        assert (e.value.details["fault"], e.value.step) == ("NotAuthenticated", "try")
        assert vcenter.logins == 3


def test_a_fault_keeps_its_name_and_words(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    def refuse(body: str) -> None:
        raise Fault("DuplicateName", '<name>x</name><object type="Folder">group-1</object>')

    vcenter.handlers["Destroy_Task"] = refuse
    with client.connect(params) as session:
        with pytest.raises(ServerError) as e:
            session.call(session.managed("VirtualMachine", "vm-1").Destroy_Task)
        assert e.value.details["fault"] == "DuplicateName"
        assert "said DuplicateName" in (e.value.said or "")
        assert isinstance(e.value.__cause__, session.vim.fault.DuplicateName)


def test_a_broken_connection_is_tried_again_only_where_that_is_harmless(params: dict[str, Any]) -> None:
    with client.connect(params) as session:
        tries: list[int] = []

        def fn() -> str:
            tries.append(1)
            if len(tries) % 2:
                raise ConnectionResetError("reset")
            return "done"

        assert session.call(fn, again=True) == "done"
        with pytest.raises(ServerError) as e:
            session.call(fn)
        assert e.value.code == "unreachable"
        assert len(tries) == 3


def test_what_is_not_the_servers_fault_passes(params: dict[str, Any]) -> None:
    with client.connect(params) as session:

        def fn() -> None:
            raise LookupError("a defect")

        with pytest.raises(LookupError):
            session.call(fn)


def test_a_type_that_the_library_does_not_know_is_said(params: dict[str, Any]) -> None:
    """pyVmomi raises KeyError for what a newer server names."""
    with client.connect(params) as session:

        def fn() -> None:
            raise KeyError("vim.vm.OfTomorrow")

        with pytest.raises(ServerError, match="OfTomorrow") as e:
            session.call(fn)
        assert e.value.code == "unknown_type"


def test_folder_access_renews_once_for_all_threads(vcenter: FakeVcenter, params: dict[str, Any]) -> None:
    with client.connect(params) as session:
        access = session.folder_access()
        assert access.base_url == f"https://127.0.0.1:{vcenter.port}"
        assert PASSWORD not in repr(access)
        barrier = threading.Barrier(4)
        seen: list[str] = []
        failed: list[FerryError] = []

        def worker() -> None:
            try:
                assert access.headers() == {"Cookie": 'vmware_soap_session="session-1"'}
                barrier.wait(5)
                access.renew()
                seen.append(access.headers()["Cookie"])
            except FerryError as e:
                failed.append(e)

        threads = [threading.Thread(target=worker) for unused in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert seen == ['vmware_soap_session="session-2"'] * 4
        assert vcenter.logins == 2
        access.renew()
        assert vcenter.logins == 3
