# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import json
import os
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import cells
from ansible_collections.ferry.vmware.plugins.plugin_utils.report import model, page, table

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
GIB = 1 << 30
EVIL = "<script>alert('x')</script>&\x1b[2J\"onload=\"x"


def disk(label: str = "Hard disk 1", **facts: Any) -> dict[str, Any]:
    return {
        "label": label,
        "capacity": 2 * GIB,
        "bytes_read": GIB,
        "bytes_written": GIB // 2,
        "bytes_skipped": GIB,
        "bytes_resumed": GIB // 2,
        "seconds": 4.0,
        "digest": "xxh3-128:00ff",
        "volume_id": "9b1d6a30-1111-2222-3333-444455556666",
        "verified": "full",
        "repaired": 0,
        **facts,
    }


def vm(name: str = "web01", state: str = "migrated", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "source_uuid": "5011",
        "server": {"id": "1f0c", "name": name},
        "seconds": "41.3",
        "disks": [disk()],
        "drift": [],
        "errors": [],
        **facts,
    }


def make(*rows: dict[str, Any]) -> tuple[list[model.Vm], model.Totals]:
    vms = model.vms_of(list(rows))
    return vms, model.totals_of(vms)


def html(*rows: dict[str, Any], title: str = "Wave 3") -> str:
    return page.html(*make(*rows), title, NOW)


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    VOID = ("meta", "link", "br")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)


def test_totals() -> None:
    _vms, totals = make(vm(disks=[disk(), disk("b", repaired=2)]), vm("x", "failed", disks=[], server=None))
    assert (totals.vms, totals.disks, totals.capacity, totals.repaired) == (2, 2, 4 * GIB, 2)
    assert totals.states == {"migrated": 1, "precopied": 0, "mended": 0, "rolled_back": 0, "unchanged": 0, "failed": 1}
    assert totals.rate == pytest.approx(GIB / 4)


def test_table_is_aligned_and_complete() -> None:
    rows = [vm(), vm("旧サーバー", "mended", drift=["MAC put back"], disks=[disk("ハードディスク 1", verified="sample", repaired=3)])]
    failed = {"message": "The target is full.", "next_command": "the same again"}
    vms, totals = make(*rows, vm("db01", "failed", disks=[], errors=[failed, "Copy: gone. Next: try it again"]))
    lines = table.render(vms, totals, "Wave 3", {"report": "/tmp/r.html"}).splitlines()
    assert lines[1] == "  Wave 3 · 3 VMs: 1 migrated, 1 mended, 1 failed"
    head = next(line for line in lines if line.startswith("  VM"))
    at = cells(head[: head.index("volume")])
    for name in ("web01", "旧サーバー"):
        line = next(line for line in lines if line.startswith(f"  {name} "))
        assert cells(line[: line.index("9b1d6a30 ")]) == at
    assert any(line.endswith("mended, sample verified, 3 repaired") for line in lines)
    assert "  旧サーバー: MAC put back" in lines
    assert lines[lines.index("  db01: The target is full.") + 1] == "    next: the same again"
    assert lines[lines.index("  db01: Copy: gone.") + 1] == "    next: try it again"
    assert lines[-1] == "  report: /tmp/r.html"


def test_empty_table_and_page() -> None:
    assert table.render(*make(), "Wave 3").split("\n") == ["", "  Wave 3 · 0 VMs"]
    assert "No machine was in this run." in " ".join(Page(html()).words)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"results\[0\] is not.*results\[1\] has no name.*results\[1\]: state must be.*results\[2\]: disks"
    ) as e:
        model.vms_of(["one", {"state": "gone"}, vm(disks=["x"])])
    assert "'gone'" in str(e.value)
    for wrong in ("text", {"name": "x"}, 5, None):
        with pytest.raises(ValueError, match="must be a list"):
            model.vms_of(wrong)


def test_odd_numbers_do_not_break_it() -> None:
    odd = disk(
        capacity="x", bytes_read=None, bytes_written=-5, bytes_skipped=float("nan"), seconds=float("inf"), repaired=[], verified=None
    )
    vms, totals = make(vm(disks=[odd], seconds="soon", server="x"))
    assert (totals.capacity, totals.bytes_read, totals.bytes_written, totals.seconds) == (0, 0, 0, 0)
    assert "migrated" in table.render(vms, totals, "t")
    assert "NaN" not in page.as_json(model.plain([{"a": float("nan")}]), totals, "t", NOW)
    Page(html(vm(disks=[odd], seconds="soon")))


def test_page_asks_nobody_and_escapes_everything() -> None:
    error = {"message": EVIL, "step": EVIL, "said": EVIL, "left": EVIL, "next_command": EVIL, "disk": EVIL}
    facts = {"server": {"id": EVIL, "name": EVIL}, "source_uuid": EVIL, "drift": [EVIL, {EVIL: EVIL}], "errors": [EVIL, error]}
    source = html(vm(EVIL, "failed", disks=[disk(EVIL, digest=EVIL, volume_id=EVIL, transport=EVIL, verified=EVIL)], **facts), title=EVIL)
    found = Page(source)
    assert {tag for tag, _attrs in found.tags} <= {
        *(
            "html",
            "head",
            "meta",
            "link",
            "title",
            "style",
            "body",
            "main",
            "header",
            "footer",
            "section",
            "div",
            "h1",
            "h2",
            "h3",
            "p",
            "sup",
        ),
        *("span", "b", "i", "br", "table", "thead", "tbody", "tr", "th", "td", "a", "dl", "dt", "dd", "ul", "li", "code"),
    }
    for _tag, attrs in found.tags:
        assert not {name for name in attrs if name.startswith("on") or name == "src"}
        assert (attrs.get("href") or "#").startswith(("#", "data:,"))
    assert "\x1b" not in source
    assert "://" not in source.replace(EVIL, "")
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src 'none'" in source


def test_page_tells_all() -> None:
    rows = [vm(disks=[disk(), disk("Hard disk 2", repaired=1)]), vm("旧", "failed", errors=["it broke. Next: run it again"])]
    found = Page(html(*rows))
    words = " ".join(found.words)
    for expected in (
        "Wave 3",
        "9b1d6a30-1111-2222-3333-444455556666",
        "xxh3-128:00ff",
        "1 chunk repaired",
        "it broke.",
        "run it again",
        "旧",
    ):
        assert expected in words
    ids = [attrs["id"] for _tag, attrs in found.tags if "id" in attrs]
    assert ids == ["vm2", "vm1"]  # the failed one first
    assert {attrs.get("href") for tag, attrs in found.tags if tag == "a"} == {"#vm1", "#vm2"}
    labels = [attrs["aria-label"] for _tag, attrs in found.tags if "aria-label" in attrs]
    assert "25 % written, 25 % from an earlier run, 50 % skipped" in labels


def test_five_hundred_machines_stay_small() -> None:
    rows = [vm(f"vm{n:03d}", disks=[disk(f"Hard disk {d}", digest="xxh3-128:" + "0" * 32) for d in range(3)]) for n in range(500)]
    assert len(html(*rows).encode()) < 3_000_000


def test_json_keeps_what_came_in() -> None:
    row = vm(disks=[disk(source_sha256="ab")], more={"x": 1})
    _vms, totals = make(row)
    content = json.loads(page.as_json(model.plain([row]), totals, "Wave 3", NOW))
    assert content["vms"] == [row]
    assert (content["version"], content["title"], content["totals"]["vms"]) == (1, "Wave 3", 1)
    assert datetime.datetime.fromisoformat(content["time"]) == NOW


def test_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    page.write(str(path), "one")
    page.write(str(path), "二")
    assert path.read_text() == "二"
    assert os.listdir(path.parent) == ["report.html"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    folder = tmp_path / "taken.html"
    folder.mkdir()
    with pytest.raises(OSError, match="directory"):
        page.write(str(folder), "x")
    assert sorted(os.listdir(tmp_path)) == ["new", "taken.html"]


def warm(**facts: Any) -> dict[str, Any]:
    cycles = [
        {"cycle": 1, "mode": "full", "bytes_written": GIB, "seconds": 40.0, "throughput": 250_000_000, "churn": None},
        {"cycle": 2, "mode": "incremental", "changed_bytes": 41 << 20, "churn": 1_100_000, "seconds": 5.5, "predicted_downtime": 21.4},
    ]
    downtime = {"seconds": "20.3", "shutdown": 9.9, "copy": 4.0, "predicted": 21.4, "budget": 60, "changed_bytes": 6 << 20}
    return vm("db01", strategy="warm", cycles=cycles, downtime={**downtime, "outside_checked": 21, "outside_wrong": 0}, **facts)


def test_a_warm_migration_tells_its_cycles_and_its_downtime() -> None:
    words = html(warm(), vm("web01"))
    assert "Copied while it ran" in words and "1.1 MB/s" in words and "21.4 s" in words
    assert "<b>20.3 s</b>, 21.4 s predicted, 01:00:00 allowed" not in words and "<b>20.3 s</b>, 21.4 s predicted, 00:01:00 allowed" in words
    assert "21 chunks outside the changed areas compared with the source, 0 differed" in words
    line = next(x for x in table.render(*make(warm()), "Wave").splitlines() if "cycles" in x)
    assert line == (
        "  db01: 2 cycles while it ran; away for 20.3 s (21.4 s predicted, 00:01:00 allowed), 6.0 MiB copied meanwhile"
        " and 21 chunks outside compared"
    )


def test_one_that_was_only_precopied_has_no_downtime() -> None:
    row = warm(state="precopied", server=None) | {"downtime": None}
    assert "away for" not in html(row) and "precopied" in html(row)
    assert "2 cycles while it ran" in table.render(*make(row), "Wave")


def test_one_that_was_brought_back() -> None:
    rows = [vm(), vm("db01", "rolled_back", disks=[], server=None)]
    vms, totals = make(*rows)
    lines = table.render(vms, totals, "Wave 3").splitlines()
    assert lines[1] == "  Wave 3 · 2 VMs: 1 migrated, 1 rolled back"
    assert any(line.startswith("  db01 ") and line.endswith("rolled back") for line in lines)
    shown = Page(html(*rows))
    assert [attrs["class"] for _tag, attrs in shown.tags if "rolled_back" in str(attrs.get("class"))] == ["tag rolled_back"] * 3
    assert "rolled_back" not in "".join(shown.words) and "1 rolled back" in " ".join(shown.words)
