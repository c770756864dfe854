# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a wave as data, as a table and as a page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import build, page, table
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import Terms
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.words_ja import WORDS

from .plan_rows import GIB, VCENTER, disk, given, plan_of, usage, uuid

EVIL = "<script>alert('x')</script>&\x1b[2J\"onload=\"x"
RATES = {"throughput": {"transports": {"https": {"rate": 100_000_000, "count": 4}}, "steps": {}}, "budget": None, "disks": []}
CONCERN = {"id": "vmware.x", "category": "critical", "label": "bad", "assessment": "it is bad", "advice": "mend it"}


def test_the_contract_of_the_file() -> None:
    plan = plan_of(given(1), given(2, terms=Terms(strategy="warm")))
    assert set(plan) >= {"version", "made", "title", "wave", "vms", "quotas", "totals", "concerns", "vcenter", "forks"}
    assert plan["version"] == 1 and plan["wave"] == ["vm0001", "vm0002"] and plan["vcenter"] == VCENTER
    vm = plan["vms"][0]
    wanted = {
        "name",
        "moref",
        "disks",
        "conversion_host",
        "strategy",
        "flavor",
        "ports",
        "volumes",
        "phases",
        "downtime_seconds",
        "concerns",
    }
    assert set(vm) >= wanted
    assert set(vm["disks"][0]) >= {"label", "key", "capacity", "allocated", "changed", "transport", "volume"}
    assert vm["disks"][0]["volume"] == {"type": "ssd", "size_gib": 40}
    assert set(vm["phases"][0]) >= {"name", "seconds", "bytes", "basis"}
    assert json.loads(json.dumps(plan)) == plan


def test_times_are_on_the_clock_and_in_order() -> None:
    plan = plan_of(*(given(n) for n in range(4)), forks=2, machines={"localhost": RATES})
    first, second, third, _fourth = plan["vms"]
    assert first["begins"] == second["begins"] == 0 and third["begins"] == pytest.approx(first["ends"], abs=0.2)
    assert plan["totals"]["seconds"] == pytest.approx(2 * first["ends"], abs=1)
    copy = next(p for p in first["phases"] if p["name"] == "copy")
    assert copy["seconds"] == pytest.approx(40 * GIB / 1e8 + 45, abs=1) and copy["basis"] == "measured"


def test_a_budget_makes_it_longer() -> None:
    slow = {**RATES, "budget": {"overall": {"rate": 10}, "hosts": {}, "datastores": {}}}
    fast, limited = (plan_of(given(1), given(2), machines={"localhost": m})["totals"]["seconds"] for m in (RATES, slow))
    assert limited == pytest.approx(160 * GIB / 1e7, rel=0.01) and limited > 10 * fast


def test_a_budget_of_nothing_is_critical() -> None:
    never = {**RATES, "budget": {"overall": {"rate": 0}, "hosts": {}, "datastores": {}}}
    plan = plan_of(given(1), machines={"localhost": never})
    assert plan["totals"]["seconds"] is None and plan["vms"][0]["ends"] is None
    assert [c["id"] for c in plan["concerns"]] == ["ferry.budget.never"]
    assert "no end in sight" in table.render(plan) and "no end" in page.html(plan)


def test_downtime_of_cold_and_warm() -> None:
    cold, warm = plan_of(given(1), given(2, terms=Terms(strategy="warm")), machines={"localhost": RATES})["vms"]
    assert cold["downtime_seconds"] == pytest.approx(
        sum(p["seconds"] for p in cold["phases"] if p["name"] not in ("prepare", "note")), abs=0.3
    )
    assert 0 < warm["downtime_seconds"] < cold["downtime_seconds"] / 3
    assert plan_of(given(1, power="off"))["vms"][0]["downtime_seconds"] == 0


def test_quotas_before_and_after() -> None:
    rows = [{"what": "gigabytes", "needed": 80, "used": 20, "limit": 90}, {"what": "cores", "needed": 2, "used": 1, "limit": -1}]
    plan = plan_of(given(1), landing={"quotas": rows})
    assert plan["quotas"][0] == {"resource": "gigabytes", "used": 20, "limit": 90, "after": 100}
    said = table.render(plan)
    assert "too much" in said and said.count("too much") == 1 and "none" in said


def test_a_disk_that_cannot_be_read_that_way_is_critical() -> None:
    plan = plan_of(given(1, terms=Terms(transport="https"), disks=[disk(datastore_type="vsan")]))
    vm = plan["vms"][0]
    assert not vm["ready"] and vm["disks"][0]["transport"] == "none" and vm["concerns"][0]["id"] == "ferry.transport.none"
    assert plan["totals"]["ready"] == 0 and plan["totals"]["critical"] == 1


@pytest.mark.parametrize(
    ("kind", "terms", "way"), [("vsan", Terms(), "nfc"), ("vsan", Terms(nbd=True), "nbd"), ("VMFS", Terms(nbd=True), "https")]
)
def test_transports(kind: str, terms: Terms, way: str) -> None:
    assert plan_of(given(1, terms=terms, disks=[disk(datastore_type=kind)]))["vms"][0]["disks"][0]["transport"] == way


def test_concerns_of_the_precheck_and_errors_of_the_landing_are_told_once() -> None:
    one = given(1)
    landing = {"errors": [{"vm": "vm0001", "id": "vmware.x", "what": "it is bad"}, {"vm": "vm0001", "id": "ferry.y", "what": "worse"}]}
    one = build.Given(one.host, one.facts, {**one.entry, "errors": ["it is bad", "worse"]}, one.terms)
    checked = {"vms": [{"moref": "vm-1", "concerns": [CONCERN]}], "wave_concerns": [{**CONCERN, "id": "w"}]}
    plan = plan_of(one, precheck=checked, landing=landing)
    assert sorted(c["id"] for c in plan["vms"][0]["concerns"]) == ["ferry.y", "vmware.x"] and not plan["vms"][0]["ready"]
    assert [c["id"] for c in plan["concerns"]] == ["w"]
    alone = plan_of(one, landing={"errors": [*landing["errors"], {"vm": None, "what": "quota"}]})
    assert len(alone["vms"][0]["concerns"]) == 2 and alone["concerns"][0]["assessment"] == "quota"


def test_what_is_said_of_a_vm_that_is_not_there_is_of_the_wave() -> None:
    checked = {"vms": [{"moref": None, "name": "ghost", "concerns": [CONCERN]}, {"moref": "vm-1", "name": "vm0001", "concerns": []}]}
    plan = plan_of(given(1), precheck=checked)
    assert [(c["id"], c["device"]) for c in plan["concerns"]] == [("vmware.x", "ghost")] and plan["totals"]["critical"] == 1


def test_a_precheck_that_failed_is_said() -> None:
    (found,) = plan_of(given(1), precheck={"msg": "no such host", "failed": False})["concerns"]
    assert found["id"] == "ferry.precheck.failed" and found["assessment"] == "no such host"
    assert plan_of(given(1), precheck={"skipped": True, "skip_reason": "Conditional result was False"})["concerns"] == []


def test_a_ledger_counts_for_its_volume_only() -> None:
    one = given(1)
    volumes = [{**one.entry["volumes"][0], "id": "v1", "state": "copying"}]
    one = build.Given(one.host, one.facts, {**one.entry, "volumes": volumes}, one.terms)
    kept = {"source": uuid(1), "disk": "2000", "state": "copying", "left": 7, "history": [], "change_id": None}
    for target, reads in (("volume:v1", 7), ("volume:other", 40 * GIB)):
        machines = {"localhost": {**RATES, "disks": [{**kept, "target": target}]}}
        assert plan_of(one, machines=machines)["vms"][0]["disks"][0]["reads"] == reads


def test_where_all_is_there_nothing_is_to_do() -> None:
    one = given(1)
    done = build.Given(
        one.host,
        one.facts,
        {**one.entry, "to_copy": [], "volumes": [{**one.entry["volumes"][0], "state": "complete"}], "server": {"id": "s", "changes": {}}},
        one.terms,
    )
    plan = plan_of(done)
    assert plan["vms"][0]["phases"] == [] and plan["totals"]["seconds"] == 0 and "nothing to do" in table.render(plan)


def test_a_wave_of_none() -> None:
    plan = plan_of()
    assert "0 VMs" in table.render(plan) and "<h1>" in page.html(plan)


@pytest.mark.parametrize(
    "said", [{"throughput": "fast"}, {"throughput": -1}, {"landing_seconds": "inf"}, {"cutover_at": "tomorrow"}, {"min_cycles": "x"}]
)
def test_terms_that_cannot_be(said: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        build.terms_of(said)


def test_terms_come_as_strings() -> None:
    terms = build.terms_of({"throughput": "1e8", "landing_seconds": "", "min_cycles": "3", "outside_sample": "50", "phases": ["precopy"]})
    assert (terms.throughput, terms.landing, terms.least, terms.outside, terms.phases) == (1e8, None, 3, 0.5, ["precopy"])


# -- the table ----------------------------------------------------------------------------------------------------------


def test_columns_stand_below_each_other_also_with_wide_names() -> None:
    lines = table.render(plan_of(given(1, name="在庫 01 管理"), given(2, name="a" * 30), given(3, name=EVIL))).splitlines()
    rule = next(n for n, line in enumerate(lines) if "──" in line)
    ends = {cells(line[: line.index("https")]) for line in lines[rule + 1 : rule + 4]}
    assert len(ends) == 1 and "\x1b" not in "\n".join(lines)


def test_what_the_times_rest_on_is_said() -> None:
    assert "~ is a guess" in table.render(plan_of(given(1)))
    assert "was stated" in table.render(plan_of(given(1, terms=Terms(throughput=1e6, landing=900.0))))


def test_many_concerns_do_not_flood_the_terminal() -> None:
    checked = {"vms": [{"moref": f"vm-{n}", "concerns": [{**CONCERN, "id": f"c{i}"} for i in range(10)]} for n in range(30)]}
    said = table.render(plan_of(*(given(n) for n in range(30)), precheck=checked))
    assert said.count("mend it") == table.SHOWN and "240 more" in said


# -- the page -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_names_are_escaped_and_nothing_is_asked_of_anybody() -> None:
    checked = {"vms": [{"moref": "vm-1", "concerns": [{**CONCERN, "assessment": EVIL, "label": EVIL, "device": EVIL}]}]}
    plan = plan_of(given(1, name=EVIL, host=EVIL, disks=[disk(label=EVIL, datastore=EVIL)]), precheck=checked, title=EVIL)
    found = Page(page.html(plan, [{"text": EVIL}]))
    assert not [t for t, _a in found.tags if t == "script"] and "\x1b" not in "".join(found.words)
    assert not [a for _t, attrs in found.tags for a in attrs if a.startswith("on")]
    links = [v for _t, attrs in found.tags for k, v in attrs.items() if k in ("href", "src")]
    assert all(v is not None and v.startswith(("#", "data:")) for v in links)
    policy = next(a["content"] for _t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy
    assert any("alert" in w for w in found.words)


def test_the_picture_has_a_bar_for_each_phase() -> None:
    found = Page(page.html(plan_of(given(1), given(2), machines={"localhost": RATES})))
    bars = [a["class"] for t, a in found.tags if t == "rect"]
    assert bars.count("ph-copy") == 2 and bars.count("ph-verify") == 2


def test_five_hundred_machines_make_a_page_below_three_megabytes() -> None:
    wave = [given(n, name=f"データベース-{n:04}", disks=[disk(2000 + k) for k in range(4)]) for n in range(500)]
    checked = {
        "vms": [{"moref": f"vm-{n}", "concerns": [{**CONCERN, "category": "warning", "assessment": "x" * 150}] * 3} for n in range(500)]
    }
    source = page.html(plan_of(*wave, precheck=checked, usage=usage(wave)))
    assert len(source.encode()) < 3_000_000


def test_the_other_language_and_one_that_is_not_known() -> None:
    assert '<html lang="ja">' in page.html(plan_of(given(1)), language="ja")
    with pytest.raises(ValueError, match="language"):
        page.html(plan_of(given(1)), language="fr")


def test_every_word_of_the_page_has_its_japanese() -> None:
    source = (Path(page.__file__).parent / "plan.html.j2").read_text()
    words = {*re.findall(r"\bt\('([^']*)'", source), *page.BASIS.values(), *page.PHASES}
    assert len(words) > 40 and sorted(words - WORDS.keys()) == []
