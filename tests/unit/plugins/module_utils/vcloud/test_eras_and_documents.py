# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import document, eras, faults

from .conftest import sample, versions


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.5", (1, 5)), ("39.1", (39, 1)), ("38", (38,)), ("38.0.0-alpha", None), ("", None), ("1" * 9, None), ("-1", None)],
)
def test_version_numbers(text: str, number: tuple[int, ...] | None) -> None:
    assert eras.number(text) == number


def test_versions_that_are_offered() -> None:
    assert eras.offered(sample("versions_1.5")) == ["1.5"]
    assert eras.offered(sample("versions_modern")) == ["39.1", "38.1", "37.0"]
    mixed = versions("9.0", "10.0", "1.5").replace(
        b"</SupportedVersions>", b"<AlphaVersion><Version>40.0.0-alpha-1</Version></AlphaVersion></SupportedVersions>"
    )
    assert eras.offered(mixed) == ["10.0", "9.0", "1.5"]
    with pytest.raises(ServerError) as e:
        eras.offered(sample("session_xml"))
    assert e.value.code == "not_vcloud"


@pytest.mark.parametrize(
    ("offered", "pinned", "chosen"),
    [
        (["9.0", "10.0", "1.5"], None, "10.0"),
        (["39.1", "40.0", "41.0"], None, "39.1"),
        (["38.0", "39.1"], "38", "38.0"),
        (["38.1", "39.1"], "38.1", "38.1"),
        (["1.0", "1.5"], None, "1.5"),
    ],
)
def test_the_version_that_is_chosen(offered: list[str], pinned: str | None, chosen: str) -> None:
    assert eras.choose(offered, pinned) == chosen


def test_versions_that_are_not_to_be_had() -> None:
    with pytest.raises(BadInput, match="38.1, 37.0"):
        eras.choose(["37.0", "38.1", "40.0"], "40.0")
    with pytest.raises(ServerError) as e:
        eras.choose(["0.9", "1.0", "40.0"])
    assert e.value.code == "no_version"


@pytest.mark.parametrize(
    ("offered", "in_use", "at"),
    [
        (["38.1", "39.1"], "39.1", "38.1"),
        (["37.0", "38.0", "39.0"], "39.0", "38.0"),
        (["39.0", "39.1"], "39.1", None),
        (["36.0", "38.1"], "36.0", "36.0"),
        (["1.5"], "1.5", "1.5"),
    ],
)
def test_the_version_of_relocate(offered: list[str], in_use: str, at: str | None) -> None:
    assert eras.relocate_version(offered, in_use) == at


@pytest.mark.parametrize(
    ("version", "cloudapi", "log_out", "relational", "twice"),
    [
        ("1.5", False, ("old",), False, True),
        ("5.1", False, ("old",), True, True),
        ("32.0", False, ("old",), True, True),
        ("33.0", True, ("id", "old"), True, True),
        ("34.0", True, ("id", "old"), True, True),
        ("35.0", True, ("id", "old"), True, False),
        ("36.3", True, ("current", "id", "old"), True, False),
        ("38.0", True, ("current", "id"), True, False),
        ("39.1", True, ("current", "id"), True, False),
    ],
)
def test_eras(version: str, cloudapi: bool, log_out: tuple[str, ...], relational: bool, twice: bool) -> None:
    era = eras.era_of(version)
    assert (era.cloudapi_login, era.log_out, era.relational, era.encoded_twice) == (cloudapi, log_out, relational, twice)


BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><lolz>&b;</lolz>"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html><head><title>Proxy</title></head></html>", "html"),
        (b"\xef\xbb\xbf  <!DOCTYPE html>\n<html/>", "html"),
        (BOMB, "protocol"),
        (b"<a/>" + b"<!DOCTYPE x>", "protocol"),
        (BOMB.decode().encode("utf-16"), "protocol"),
        (b'<?xml version="1.0" encoding="UTF-16"?><a/>', "protocol"),
        (b"<?xml version='1.0' encoding='utf-7'?><a/>", "protocol"),
        (b"", "protocol"),
        (b"{}", "protocol"),
        (b"<a><b></a>", "protocol"),
    ],
)
def test_bodies_that_are_refused(body: bytes, code: str) -> None:
    with pytest.raises(ServerError) as e:
        document.parse(body)
    assert e.value.code == code


def test_a_web_page_is_told_by_its_title() -> None:
    with pytest.raises(ServerError) as e:
        document.parse(b"<html><title>Access denied by proxy</title></html>")
    assert e.value.said == "Access denied by proxy"


@pytest.mark.parametrize("encoding", ["UTF-8", "utf-8", "US-ASCII", "ISO-8859-1"])
def test_encodings_that_are_read(encoding: str) -> None:
    assert document.parse(f"<?xml version='1.0' encoding='{encoding}'?>\n<a b='1'/>".encode()).get("b") == "1"


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("-3", -3), ("1.5E3", 1500), ("nan", None), ("9" * 60, None), ("x", None), (None, None)]
)
def test_numbers(text: str | None, value: int | None) -> None:
    assert document.whole(text) == value


def test_errors_of_the_vcloud_api() -> None:
    e = faults.refusal(400, sample("error_busy"), "abc-123", step="relocate the VM", vm="db01")
    assert (e.code, e.vm) == ("busy_entity", "db01")
    assert e.details == {"status": 400, "major": 400, "minor": "BUSY_ENTITY", "request_id": "abc-123"}
    assert "VAPP_RELOCATE_VM" in str(e)
    assert faults.again_later(e)


@pytest.mark.parametrize(
    ("status", "body", "code", "later"),
    [
        (401, b"", "unauthorized", False),
        (403, b'{"minorErrorCode": "ACCESS", "message": "no"}', "forbidden", False),
        (404, b"[]", "not_found", False),
        (429, b"", "throttled", True),
        (503, b"<html><title>Down</title></html>", "unavailable", True),
        (502, b"<html><title>Bad gateway</title></html>", "html", False),
        (500, b"\xff\xfe", "refused", False),
        (400, b'<Error minorErrorCode="OPERATION_LIMITS_EXCEEDED"/>', "queue_full", True),
    ],
)
def test_other_refusals(status: int, body: bytes, code: str, later: bool) -> None:
    e = faults.refusal(status, body, None, step="ask")
    assert (e.code, faults.again_later(e), e.details["major"]) == (code, later, status)
