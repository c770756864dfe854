# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vCloud Director modules as Ansible runs them: a process with its arguments on stdin, against a server over TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..module_utils.vcloud.conftest import BEARER, PASSWORD, VCLOUD, Answer, Asked, FakeVcd, sample, vcd, vcd_authority, vcd_params
from .test_vmdk_info import run_module

__all__ = ["vcd", "vcd_authority", "vcd_params"]

HREF = "https://vcd.example/api/vApp/vm-1111aaaa-0000-4000-8000-000000000001"


def page(text: bytes, total: int) -> bytes:
    """C(text) as the only page."""
    return text.replace(b'total="86"', f'total="{total}"'.encode()).replace(b'rel="nextPage"', b'rel="other"')


@pytest.fixture
def served(vcd: FakeVcd) -> FakeVcd:
    """The fake with the samples: one VM on gold-01, the datastore gold-02."""

    def answer(asked: Asked) -> Answer:
        if "type=adminVM" in asked.path:
            return Answer(200, page(sample("adminVM_1.5"), 1))
        if "type=datastore" in asked.path:
            return Answer(200, sample("datastore_modern"))
        return Answer(200, f'<QueryResultRecords xmlns="{VCLOUD}" total="0"/>'.encode())

    vcd.handlers["GET /api/query"] = answer
    vcd.handlers["GET /api/vApp/vm-1111aaaa-0000-4000-8000-000000000001"] = lambda a: Answer(200, sample("vm"))
    return vcd


def test_vms(top: Path, served: FakeVcd, vcd_params: dict[str, Any]) -> None:
    result = run_module(top, "vcd_vm_info", **vcd_params, name="db*")
    assert result["vms"] == [
        {
            "name": "db01",
            "href": HREF,
            "id": "urn:vcloud:vm:1111aaaa-0000-4000-8000-000000000001",
            "vapp": "erp",
            "vdc": "2222bbbb-0000-4000-8000-000000000002",
            "org": "2222bbbb-0000-4000-8000-000000000002",
            "status": "POWERED_ON",
            "is_template": False,
            "datastore": {"name": "gold-01"},
            "vcenter": "vc1",
            "moref": "vm-191",
        }
    ]
    assert result["api_version"] == "39.1"
    assert any("filter=name==db*" in a.path for a in served.asked)
    assert PASSWORD not in json.dumps(result)
    assert BEARER not in json.dumps(result)


def test_datastores(top: Path, served: FakeVcd, vcd_params: dict[str, Any]) -> None:
    for given in ({}, {"datastore": "datastore-42"}, {"name": "gold-*", "filter": "isEnabled==true"}):
        result = run_module(top, "vcd_datastore_info", **vcd_params, **given)
        assert [(d["name"], d["total_mb"], d["vcenter"]) for d in result["datastores"]] == [("gold-02", 2097152, "vc1")]
    assert "filter=name==gold-*;(isEnabled==true)" in " ".join(a.path for a in served.asked)


def test_relocate_in_check_mode(top: Path, served: FakeVcd, vcd_params: dict[str, Any]) -> None:
    result = run_module(top, "vcd_relocate", check=True, **vcd_params, vm=HREF, datastore="gold-02")
    assert (result["changed"], result["datastore"]) == (True, {"before": "datastore-41", "after": "gold-02"})
    assert (result["vm"]["name"], result["task"], result["method"], result["affected"]) == ("db01", None, "relocate", [])
    assert not [a for a in served.asked if a.method == "POST" and "/vApp/" in a.path]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hostname": None}, "VCD_HOST"),
        ({"auth_org": "acme"}, "only a system administrator"),
        ({"api_version": "31.0"}, "39.1, 38.1, 36.0"),
        ({"ca_path": None}, "is not trusted"),
    ],
)
def test_errors(
    top: Path, served: FakeVcd, vcd_params: dict[str, Any], given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VCD_HOST", raising=False)
    monkeypatch.delenv("VCD_CA_PATH", raising=False)
    result = run_module(top, "vcd_vm_info", **{**vcd_params, **given})
    assert result["failed"]
    assert said in result["msg"]
    assert result["failure"]["code"] != "defect"
    assert PASSWORD not in json.dumps(result)


def test_policy_needs_a_policy(top: Path, vcd_params: dict[str, Any]) -> None:
    result = run_module(top, "vcd_relocate", **vcd_params, vm="db01", datastore="gold-02", method="policy")
    assert "policy" in result["msg"]
