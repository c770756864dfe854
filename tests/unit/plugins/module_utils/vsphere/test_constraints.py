# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.constraints import Rules, of_clusters, parse, rules_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.site_model import Cluster, DrsRule, Site

from .placement_sites import rule, site


def three() -> Site:
    return site({"h1": 8, "h2": 8, "h3": 8}, {"a": ("h1", 1), "b": ("h2", 1), "c": ("h3", 1), "在庫": ("h1", 1)})


def test_the_schema() -> None:
    found = three()
    found.vms["b"] = replace(found.vms["b"], custom={"ferry.group": "db"})
    data: list[dict[str, Any]] = [
        {"name": "x", "kind": "EQ", "vms": ["a", "在庫"]},
        {"kind": "NE", "vms": ["a", "b", "c"]},
        {"kind": "Pin", "vms": "uuid-a", "hosts": "C0/h1"},
        {"kind": "avoid", "group": "db", "hosts": ["h3"]},
        {"kind": "hold", "vms": ["c"], "required": False},
    ]
    rules = parse(found, data)
    assert [r.kind for r in rules] == ["together", "apart", "pin", "avoid", "hold"]
    assert rules[0].vms == {"a", "在庫"}
    assert rules[1].name == "apart 2"
    assert (rules[2].vms, rules[2].hosts) == ({"a"}, {"h1"})
    assert rules[3].vms == {"b"}
    assert [r.required for r in rules] == [True, True, True, True, False]
    assert parse(found, None) == ()


def test_everything_that_is_wrong_is_said_at_once() -> None:
    data: list[Any] = [
        {"kind": "near", "vms": ["a"]},
        {"kind": "apart", "vms": ["a", "nobody"], "hosts": ["h1"]},
        {"kind": "pin", "vms": ["a"]},
        {"kind": "hold"},
        {"kind": "hold", "group": "none", "wms": 1, "required": "yes"},
        "together",
        {"kind": "pin", "vms": ["a"], "hosts": ["h9"]},
    ]
    with pytest.raises(BadInput) as e:
        parse(three(), data)
    said = "\n".join(e.value.details["problems"])
    for words in (
        "not near",
        "There is no VM nobody",
        "hosts has no meaning for apart",
        "hosts is missing",
        "vms or group is missing",
        "in the group none",
        "not known: wms",
        "required is true or false",
        "constraint 6 is no mapping",
        "There is no host h9",
    ):
        assert words in said


def test_two_vms_of_one_name_are_listed() -> None:
    found = three()
    found.vms["vm-9"] = replace(found.vms["a"], moref="vm-9", uuid="other", path="/DC/vm/x/a")
    with pytest.raises(BadInput) as e:
        parse(found, [{"kind": "hold", "vms": ["a"]}])
    assert "2 VMs answer to a" in str(e.value)


def test_two_hosts_of_one_name_in_two_clusters() -> None:
    found = three()
    found.hosts["host-9"] = replace(found.hosts["h1"], moref="host-9", cluster="c1", cluster_name="C1")
    assert found.host("C1/h1").moref == "host-9"
    assert found.where("host-9") == "C1/h1"
    assert found.where("h2") == "h2"


def test_rules_of_clusters() -> None:
    drs = (
        DrsRule("eq", "together", frozenset(("a", "b"))),
        DrsRule("ne", "apart", frozenset(("a", "gone"))),
        DrsRule("must", "run_on", frozenset(("a",)), frozenset(("h1",))),
        DrsRule("should not", "keep_off", frozenset(("b",)), frozenset(("h2",)), required=False),
    )
    found = replace(three(), clusters={"c0": Cluster("C0", drs=False, rules=drs)})
    rules = of_clusters(found)
    assert [(r.kind, r.required, r.source) for r in rules] == [
        ("together", True, "cluster C0"),
        ("apart", True, "cluster C0"),
        ("pin", True, "cluster C0"),
        ("avoid", False, "cluster C0"),
    ]
    assert rules[1].vms == {"a"}
    assert len(rules_of(found, [{"kind": "hold", "vms": ["c"]}]).all) == 5


def test_units_are_joined_across_constraints() -> None:
    rules = Rules(three(), [rule("together", "a", "b"), rule("together", "b", "c"), rule("together", "在庫", "a", required=False)])
    assert rules.unit("a") == {"a", "b", "c"}
    assert rules.unit("在庫") == {"在庫"}


def test_allowed_hosts_and_reasons() -> None:
    rules = Rules(three(), [rule("pin", "a", hosts=("h1", "h2")), rule("avoid", "a", hosts=("h2",)), rule("hold", "b", name="dongle")])
    assert rules.allowed("a") == {"h1"}
    assert rules.allowed("c") is None
    assert len(rules.against("a", "h2")) == 1
    assert len(rules.against("a", "h3")) == 1
    assert rules.against("a", "h1") == []
    assert "dongle" in rules.against("b", "h1")[0]
    assert rules.against("b", "h2") == []


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ([rule("together", "a", "b", name="T"), rule("apart", "a", "b", name="A")], {"T", "A"}),
        (
            [rule("together", "a", "b", name="T1"), rule("together", "b", "c", name="T2"), rule("apart", "a", "c", name="A")],
            {"T1", "T2", "A"},
        ),
        ([rule("pin", "a", hosts=("h1",), name="P1"), rule("pin", "a", hosts=("h2",), name="P2")], {"P1", "P2"}),
        ([rule("pin", "a", hosts=("h1",), name="P"), rule("avoid", "a", hosts=("h1",), name="V")], {"P", "V"}),
        (
            [
                rule("together", "a", "b", name="T"),
                rule("pin", "a", hosts=("h1",), name="P1"),
                rule("pin", "b", hosts=("h2",), name="P2"),
            ],
            {"T", "P1", "P2"},
        ),
        ([rule("apart", "a", "b", "c", "在庫", name="A")], {"A"}),
        (
            [
                rule("apart", "a", "b", "c", name="A"),
                rule("pin", "a", "b", "c", hosts=("h1", "h2"), name="P"),
            ],
            {"A", "P"},
        ),
        ([rule("apart", "a", "在庫", name="A"), rule("hold", "a", "在庫", name="H")], {"A", "H"}),
        ([rule("pin", "a", hosts=("h2",), name="P"), rule("hold", "a", name="H")], {"P", "H"}),
    ],
)
def test_contradictions_name_the_constraints(rules: list[Any], names: set[str]) -> None:
    found = Rules(three(), rules)
    assert {n for c in found.contradictions() for n in c.rules} == names
    with pytest.raises(BadInput) as e:
        found.check()
    assert e.value.code == "contradiction"
    assert all(n in str(e.value) for n in names)


@pytest.mark.parametrize(
    "rules",
    [
        [rule("apart", "a", "b", "c")],
        [rule("together", "a", "b"), rule("apart", "a", "c")],
        [rule("together", "a", "b"), rule("apart", "a", "b", required=False)],
        [rule("pin", "a", hosts=("h1", "h2")), rule("pin", "a", hosts=("h2", "h3"))],
        [rule("apart", "a", "b"), rule("pin", "a", "b", hosts=("h1", "h2"))],
        [rule("hold", "a"), rule("pin", "a", hosts=("h1",))],
    ],
)
def test_what_can_hold_is_no_contradiction(rules: list[Any]) -> None:
    Rules(three(), rules).check()


def test_a_contradiction_of_a_cluster_concerns_its_vms_only() -> None:
    pair = frozenset(("a", "b"))
    found = replace(three(), clusters={"c0": Cluster("C0", rules=(DrsRule("t", "together", pair), DrsRule("n", "apart", pair)))})
    rules = rules_of(found)
    rules.check(["c"])
    with pytest.raises(BadInput):
        rules.check(["a"])


def test_what_is_broken_now() -> None:
    found = three()
    where: dict[str, str | None] = {m: vm.host for m, vm in found.vms.items()}
    rules = Rules(
        found,
        [
            rule("together", "a", "b", name="T"),
            rule("apart", "a", "在庫", name="A"),
            rule("pin", "c", hosts=("h1",), name="P"),
            rule("apart", "a", "b", name="kept"),
            rule("together", "a", "c", name="wish", required=False),
        ],
    )
    broken = " ".join(rules.broken(where))
    assert all(n in broken for n in ("T (", "A (", "P ("))
    assert "kept" not in broken
    assert "wish" not in broken
    assert [r.name for r in rules.wishes_broken("a", "h2", ["b"])] == ["wish"]
    assert rules.wishes_broken("a", "h3", ["c"]) == []
