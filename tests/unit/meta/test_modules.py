# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every module: its documentation says what its argument spec does, and its action group knows it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils import edge

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
MODULES = sorted(f.stem for f in (PLUGINS / "modules").glob("*.py"))
#: The others are the documentation of an action plugin that does everything itself.
WITH_SPEC = [name for name in MODULES if "def main(" in (PLUGINS / "modules" / f"{name}.py").read_text()]
#: Action group: the doc fragment whose options it is there for.
GROUPS = {"vsphere": "ferry.vmware.vsphere", "vcloud": "ferry.vmware.vcloud", "openstack": "ferry.vmware.openstack"}


class Caught(BaseException):
    """Carries the spec out of a module's main()."""


def argument_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the module would hand to AnsibleModule."""

    def catch(**kwargs: Any) -> None:
        raise Caught(kwargs)

    monkeypatch.setattr(edge, "AnsibleModule", catch)
    with pytest.raises(Caught) as caught:
        importlib.import_module(f"ansible_collections.ferry.vmware.plugins.modules.{name}").main()
    spec: dict[str, Any] = caught.value.args[0]["argument_spec"]
    return spec


def constants(path: Path) -> dict[str, Any]:
    """DOCUMENTATION, EXAMPLES and RETURN of a module, parsed."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name) or not isinstance(node.value, ast.Constant):
            continue
        if node.targets[0].id in ("DOCUMENTATION", "EXAMPLES", "RETURN"):
            found[node.targets[0].id] = yaml.safe_load(str(node.value.value))
    return found


def differences(where: str, spec: dict[str, Any], doc: dict[str, Any]) -> list[str]:
    """Where a spec and a documentation of options do not say the same."""
    found = [f"{where}{name}: only in the spec" for name in spec.keys() - doc.keys()]
    found += [f"{where}{name}: only in the documentation" for name in doc.keys() - spec.keys()]
    for name in sorted(spec.keys() & doc.keys()):
        ours, theirs = spec[name], doc[name]
        for key, unset in (("type", "str"), ("required", False), ("default", None), ("elements", None), ("choices", None), ("aliases", [])):
            a, b = ours.get(key, unset), theirs.get(key, unset)
            if key == "choices" and isinstance(b, dict):
                b = list(b)
            if (list(a) if isinstance(a, tuple) else a) != b:
                found.append(f"{where}{name}: {key} is {a!r} in the spec and {b!r} in the documentation")
        found += differences(f"{where}{name}.", ours.get("options") or {}, theirs.get("suboptions") or {})
    return found


@pytest.mark.parametrize("name", WITH_SPEC)
def test_documentation_and_spec_agree(name: str, documentation: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    doc = documentation[name]["doc"]
    assert differences("", argument_spec(name, monkeypatch), doc["options"]) == []


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(WITH_SPEC)))
def test_documentation_and_action_agree(name: str, documentation: dict[str, dict[str, Any]]) -> None:
    action = importlib.import_module(f"ansible_collections.ferry.vmware.plugins.action.{name}").ActionModule
    assert documentation[name]["doc"]["options"].keys() == action._VALID_ARGS


@pytest.mark.parametrize("name", WITH_SPEC)
def test_secrets_are_not_logged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = argument_spec(name, monkeypatch)
    open_secrets = [o for o in spec if any(word in o for word in ("password", "token", "auth")) and o not in ("auth_type", "auth_org")]
    assert [o for o in open_secrets if not spec[o].get("no_log")] == []


@pytest.mark.parametrize("name", MODULES)
def test_attributes_are_declared(name: str, documentation: dict[str, dict[str, Any]]) -> None:
    attributes = documentation[name]["doc"].get("attributes", {})
    assert {"check_mode", "diff_mode", "idempotency"} <= attributes.keys()
    assert all(attributes[a].get("support") for a in ("check_mode", "diff_mode", "idempotency"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_use_the_module(name: str, top: Path) -> None:
    examples = constants(top / "plugins" / "modules" / f"{name}.py")["EXAMPLES"]
    assert any(f"ferry.vmware.{name}" in task for task in examples)


def test_action_groups_hold_the_modules_that_use_the_fragment(top: Path) -> None:
    wanted: dict[str, list[str]] = {}
    for name in MODULES:
        fragments = constants(top / "plugins" / "modules" / f"{name}.py")["DOCUMENTATION"].get("extends_documentation_fragment", [])
        for group, fragment in GROUPS.items():
            if fragment in fragments:
                wanted.setdefault(group, []).append(name)
    runtime = yaml.safe_load((top / "meta" / "runtime.yml").read_text())
    assert runtime["action_groups"] == wanted


def test_action_plugins_stand_for_a_module(top: Path) -> None:
    actions = {f.stem for f in (top / "plugins" / "action").glob("*.py")} - {"__init__"}
    assert actions <= set(MODULES)


def test_modules_of_vcenter_share_the_session_of_their_run(top: Path) -> None:
    """By an action of their own name: Ansible's main process imports it, which then ends the session with the run."""
    groups = yaml.safe_load((top / "meta" / "runtime.yml").read_text())["action_groups"]
    missing = [name for name in groups["vsphere"] if not (top / "plugins" / "action" / f"{name}.py").is_file()]
    assert missing == []
