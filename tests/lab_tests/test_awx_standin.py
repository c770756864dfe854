# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The AWX of the tests answers as the one did that was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.awx import exchanges, injectors
from tests.lab.awx.server import PASSWORD, USER, running
from tests.lab.awx.store import RECORDED
from tests.lab_tests import awx_site


def test_it_answers_as_the_recorded_one() -> None:
    """Every refusal word for word; of the other answers, that no field is missing."""
    wrong = []
    with running(["playbooks/plan.yml"]) as awx:
        send = exchanges.sender(awx.url, USER, PASSWORD)
        ids, blanks = exchanges.make_blanks(send)
        for kind, blank in blanks.items():
            wrong += [f"{kind} has no {k}" for k in RECORDED["kinds"][kind]["blank"] if k not in blank]
        for (method, path, body), recorded in zip(exchanges.EXCHANGES, RECORDED["exchanges"], strict=True):
            status, answer = send(method, str(exchanges.filled(path, ids)), exchanges.filled(body, ids))
            wanted = recorded["answer"]
            if status != recorded["status"] or (status >= 400 and answer != wanted):
                wrong.append(f"{method} {path}: {status} {answer}, not {recorded['status']} {wanted}")
            elif isinstance(wanted, dict):
                wrong += [f"{method} {path}: no {k}" for k in wanted if k not in answer]
    assert wrong == []


def test_a_user_that_is_none_is_refused() -> None:
    with running([]) as awx:
        assert exchanges.sender(awx.url, USER, "wrong")("GET", "job_templates/", None)[0] == 401


@pytest.mark.parametrize("kind", sorted(awx_site.role_vars()["awx_setup_types"]))
def test_its_credential_types_are_taken(kind: str) -> None:
    type_ = awx_site.role_vars()["awx_setup_types"][kind]
    with running([]) as awx:
        send = exchanges.sender(awx.url, USER, PASSWORD)
        body = {"name": f"ferry {type_['name']}", "kind": "cloud", "inputs": type_["inputs"], "injectors": type_["injectors"]}
        status, made = send("POST", "credential_types/", body)
        assert status == 201, made
        assert made["inputs"] == type_["inputs"] and made["injectors"] == type_["injectors"]


INPUTS: dict[str, dict[str, Any]] = {
    "vcenter": {"host": "h", "username": "u", "password": "p"},
    "vcloud": {"host": "h", "token": "t"},
    "openstack": {"cloud": "c", "clouds_yaml": "clouds: {}"},
    "kubernetes": {"host": "https://h", "token": "t"},
}


def test_what_a_credential_does_not_say_is_the_safe_thing(tmp_path: Path) -> None:
    """Fields left empty: the port is the usual one, certificates are verified, files are nobody else's."""
    types = awx_site.role_vars()["awx_setup_types"]
    env: dict[str, str] = {}
    for kind, inputs in INPUTS.items():
        env |= injectors.inject(types[kind], {**inputs, "ca": ""} if kind != "openstack" else inputs, tmp_path)
    assert (env["VMWARE_PORT"], env["VCD_PORT"], env["VCD_ORG"]) == ("443", "443", "System")
    assert {env[k] for k in ("VMWARE_VALIDATE_CERTS", "VCD_VALIDATE_CERTS", "K8S_AUTH_VERIFY_SSL")} == {"true"}
    assert {env[k] for k in ("VMWARE_CA_PATH", "VCD_CA_PATH", "K8S_AUTH_SSL_CA_CERT", "VCD_USER")} == {""}
    assert Path(env["OS_CLIENT_CONFIG_FILE"]).read_text(encoding="utf-8") == "clouds: {}"
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    assert injectors.inject(types["vcenter"], {**INPUTS["vcenter"], "insecure": True}, tmp_path)["VMWARE_VALIDATE_CERTS"] == "false"
