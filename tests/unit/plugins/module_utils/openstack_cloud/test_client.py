# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log in, call, list: what goes wrong is said in words that help, bounded, without the password."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client

from .conftest import FakeCloud


def test_log_in_with_a_wrong_password(fake: FakeCloud) -> None:
    with pytest.raises(ServerError) as e:
        client.connect(fake.params(password="wr0ng"))
    assert e.value.code == "unauthorized"
    assert "requires authentication" in str(e.value)
    assert "wr0ng" not in str(e.value)


def test_a_cloud_that_does_not_answer(fake: FakeCloud) -> None:
    with pytest.raises(ServerError) as e:
        client.connect(fake.params(auth_url="http://127.0.0.1:1/v3"))
    assert e.value.code == "unreachable"


def test_a_cloud_without_a_name(fake: FakeCloud, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as e:
        client.connect({"cloud": "nowhere"})
    assert e.value.code == "configuration"
    assert "nowhere" in str(e.value)


def test_a_whole_cloud_and_single_options_contradict_each_other(fake: FakeCloud) -> None:
    with pytest.raises(BadInput, match="region_name"):
        client.connect({**fake.params(), "region_name": "R"})


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (403, {"forbidden": {"message": "Policy does not allow this."}}, "forbidden", "Policy does not allow this"),
        (403, {"forbidden": {"message": "Quota exceeded for cores"}}, "quota", "Quota exceeded for cores"),
        (
            413,
            {"overLimit": {"message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota"}},
            "quota",
            "VolumeLimit",
        ),
        (413, b"<html>Request Entity Too Large</html>", "too_large", "Too Large"),
        (404, {"itemNotFound": {"message": "Volume x"}}, "not_found", "Volume x"),
        (
            409,
            {"NeutronError": {"type": "MacAddressInUse", "message": "The mac address is in use.", "detail": ""}},
            "conflict",
            "mac address",
        ),
        (302, b"", "server", "HTTP 302"),
        (418, {"errors": [{"detail": "teapot"}]}, "server", "teapot"),
        (500, b"x" * 100_000, "server_failed", "xxx"),
    ],
)
def test_errors_of_services(fake: FakeCloud, conn: Any, status: int, body: Any, code: str, said: str) -> None:
    fake.handler = lambda method, path, data: (status, (body, {"Location": "http://127.0.0.1:1/elsewhere"}) if status == 302 else body)
    with pytest.raises(ServerError) as e:
        client.call(conn, "block_storage", "POST", "/volumes", step="make a volume", body={})
    assert (e.value.code, e.value.step) == (code, "make a volume")
    assert said in str(e.value)
    assert len(str(e.value)) < 1000
    assert len(fake.requests) == 1, "what changes something is sent once"


def test_a_listing_follows_markers_and_never_links(fake: FakeCloud, conn: Any) -> None:
    rows = [{"id": str(i)} for i in range(5)]

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        query = parse_qs(urlsplit(path).query)
        start = int(query["marker"][0]) + 1 if "marker" in query else 0
        links = [{"rel": "next", "href": "http://127.0.0.1:1/steal"}] if start + 2 < len(rows) else []
        return 200, {"ports": rows[start : start + 2], "ports_links": links}

    fake.handler = answer
    assert list(client.listing(conn, "network", "/ports", "ports", step="list")) == rows


def test_a_listing_that_is_none(fake: FakeCloud, conn: Any) -> None:
    fake.handler = lambda method, path, body: (200, {"other": []})
    with pytest.raises(ServerError, match="without ports"):
        list(client.listing(conn, "network", "/ports", "ports", step="list"))


def test_spec_and_fragment_say_the_same(top: Any) -> None:
    text = (top / "plugins" / "doc_fragments" / "openstack.py").read_text(encoding="utf-8")
    from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.argspec import connection_spec

    assert re.findall(r"^  (\w+):$", text.split("options:")[1].split("requirements:")[0], re.MULTILINE) == list(connection_spec())
