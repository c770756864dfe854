# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor's page and table: what is said first, what names cannot do, how large it gets, and what a browser says of it."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.doctor import findings, shown

from .browser import browser, needs_browser

WHEN = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.timezone.utc)
HOSTILE = "<script>alert(1)</script>\x1b[31m 在庫"
SCREENS = Path(os.environ.get("FERRY_SCREENS") or Path(__file__).parents[4] / "build" / "screens")


def vm(number: int, name: str = "", **more: Any) -> dict[str, Any]:
    ways = [
        {"transport": "https", "off": True, "running": True, "delta": True, "why": []},
        {"transport": "nfc", "off": True, "running": True, "delta": False, "why": ["changes: an export is one stream of the whole disk"]},
        {"transport": "nbd", "off": False, "running": False, "delta": False, "why": ["Hard disk 1: VDDK was not given (ferry_vddk)"]},
    ]
    return {
        "name": name or f"vm{number:03d}",
        "moref": f"vm-{number}",
        "host": f"esx{number % 4}",
        "power": "on",
        "template": False,
        "snapshots": 0,
        "hw_version": "vmx-19",
        "capacity": 40 << 30,
        "tracking": {"supported": True, "enabled": False, "disks": 0, "of": 1},
        "paths": ways,
        "best": {"cold": "https", "warm": "https"},
        **more,
    }


def looked(vms: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    reads = [
        {
            "host": f"esx{n}",
            "host_moref": f"host-{n}",
            "transport": transport,
            "vm": "still",
            "disk": "Hard disk 1",
            "datastore": "vmfs",
            "bytes": 1 << 30,
            "zero_bytes": 0,
            "seconds": 10.0,
            "rate": rate if n else None,
            "kept": bool(n),
            "error": None if n else "on this host nothing lies still",
        }
        for n in range(4)
        for transport, rate in (("https", 210_000_000), ("nfc", 105_000_000))
    ]
    return {
        "vcenter": {"name": "vcenter.example.com", "version": "8.0.3", "build": "24022515", "api_type": "VirtualCenter"},
        "hosts": [
            {
                "name": f"esx{n}",
                "moref": f"host-{n}",
                "version": "8.0.3",
                "build": "24022510",
                "bad_build": None,
                "connection": "connected",
                "maintenance": False,
                "vms": 9,
            }
            for n in range(4)
        ],
        "datastores": [
            {"name": "vmfs", "moref": "d-1", "type": "VMFS", "capacity": 4 << 40, "free": 1 << 40, "accessible": True, "vms": 9}
        ],
        "vms": vms,
        "privileges": [
            {
                "privilege": "VirtualMachine.State.CreateSnapshot",
                "why": "freeze its disks",
                "when": ["warm"],
                "granted": False,
                "lacking": 12,
                "lacking_on": ["vm001", "vm002"],
            },
            {"privilege": "VApp.Export", "why": "read disks as a stream", "when": ["nfc"], "granted": True, "lacking": 0, "lacking_on": []},
        ],
        "reads": reads,
        **more,
    }


def scene(count: int = 12) -> dict[str, Any]:
    nowhere = {"transport": "https", "off": False, "running": False, "delta": False, "why": ["Hard disk 1: a raw device mapping"]}
    vms = [vm(n) for n in range(count)]
    vms[1] = vm(1, HOSTILE)
    vms[2] = vm(2, "rdm", paths=[nowhere] * 3, best={"cold": None, "warm": None})
    concern = {
        "id": "vmware.usb.detected",
        "category": "warning",
        "label": "USB",
        "assessment": f"It has {HOSTILE}.",
        "advice": "Take it off.",
    }
    checked = {
        "vms": [{"moref": v["moref"], "concerns": [concern] if n < 3 else [], "ready": n != 2} for n, v in enumerate(vms)],
        "wave_concerns": [{**concern, "category": "critical"}],
    }
    pilot = {
        "name": "web01",
        "passed": False,
        "said": "no answer on port 5432",
        "disks": [{"disk": "Hard disk 1", "capacity": 1 << 30, "digest": "xxh3-128:00"}],
    }
    return findings.build([looked(vms)], title="A look at vCenter", when=WHEN, checked=checked, pilot=pilot)


def test_what_has_to_be_known_comes_first() -> None:
    found = scene()
    assert found["totals"] == {
        "vms": 12,
        "capacity": 11 * (40 << 30) + (40 << 30),
        "cold": 11,
        "warm": 11,
        "none": 1,
        "critical": 1,
        "privileges": 2,
        "lacking": 1,
        "speeds": {"https": 210_000_000, "nfc": 105_000_000},
        "reading_seconds": round(12 * (40 << 30) / 210_000_000),
    }
    said = findings.verdicts(found)
    assert said[0] == ("information", "11 of 12 VMs can be copied while they are off, 11 of them while they run, in cycles.")
    assert [kind for kind, _text in said[1:]] == ["critical", "critical", "critical", "critical"]
    assert "it failed" in said[-1][1]


def test_no_figure_and_no_answer_are_said() -> None:
    found = findings.build(
        [looked([vm(1)], reads=[{"host": "esx1", "transport": "https", "rate": None, "error": "none"}], privileges=[])],
        title="x",
        when=WHEN,
    )
    texts = " ".join(text for _kind, text in findings.verdicts(found))
    assert "no speed could be measured" in texts and "vCenter does not tell what the account may do" in texts
    assert found["totals"]["reading_seconds"] is None


@pytest.mark.parametrize("wrong", [[], [{}], [{"vms": 3}]])
def test_what_is_no_result_is_refused(wrong: list[Any]) -> None:
    with pytest.raises(ValueError, match="doctor_read"):
        findings.build(wrong, title="x", when=WHEN)


def test_names_are_shown_and_do_nothing() -> None:
    page = shown.html(scene(), WHEN)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "\x1b" not in page
    assert not re.search(r'(?:src|href)="https?://', page)
    table = shown.table(scene(), {"page": "/tmp/doctor.html"})
    assert "\x1b" not in table and "rdm: no way; Hard disk 1: a raw device mapping" in table
    assert "missing: VirtualMachine.State.CreateSnapshot" in table and "no answer on port 5432" in table and "210.0 MB/s" in table


def test_five_hundred_vms_are_a_page_of_few_megabytes() -> None:
    assert len(shown.html(scene(500), WHEN).encode()) < 3_000_000


@needs_browser
@pytest.mark.slow
def test_a_browser_shows_it(tmp_path: Path) -> None:
    page = tmp_path / "doctor.html"
    page.write_text(shown.html(scene(60), WHEN), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        for name, width, dark, paper in (
            ("light", 1200, False, False),
            ("dark", 1200, True, False),
            ("phone", 390, False, False),
            ("print", 800, False, True),
        ):
            tab.look(width, dark=dark, paper=paper)
            tab.open(page)
            assert tab.evaluate("document.querySelectorAll('#speeds .time i').length") == 6
            assert tab.evaluate("document.querySelector('#speeds .time i').getBoundingClientRect().width") > 10
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), f"{name}: it is wider than the screen"
            tab.picture(SCREENS / f"doctor-{name}.png", 2600)
        assert tab.said == [] and {a for a in tab.asked if not a.startswith(("file:", "data:"))} == set()
