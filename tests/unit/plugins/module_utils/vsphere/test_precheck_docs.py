# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guide's tables of concerns and privileges are those of the catalogues.

With FERRY_WRITE_DOCS set to docs/docsite/rst/precheck.rst it writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import precheck_catalogue as target
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import importer_catalogue as importers
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import precheck_catalogue as source
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.privileges import HARVESTER_NEEDS, MTV_NEEDS, NEEDS, Need

PAGE = Path(__file__).resolve().parents[5] / "docs" / "docsite" / "rst" / "precheck.rst"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'* -' if i == 0 else '  -'} {text}" for i, text in enumerate(row)]
    return "\n".join(lines)


def tables() -> dict[str, str]:
    head = ("Id", "Category", "What", "What to do")
    ours = [(f"``{i}``", k.category + (f", {k.also}" if k.also else ""), k.label, k.advice) for i, k in source.KINDS.items()]
    theirs = [(f"``{i}``", k.category, k.label, k.advice) for i, k in target.KINDS.items()]
    when = {"always": "always", "attributes": "the first time", "nbd": "VDDK", "nfc": "NFC", "encrypted": "encrypted machines"}

    def privileges(needs: Iterable[Need]) -> str:
        rows = [(f"``{n.privilege}``", n.on, ", ".join(when.get(w, w) for w in n.when), f"To {n.why}") for n in needs]
        return table(("Privilege", "On", "When", "Why"), rows)

    there = [
        (
            f"``{i}``",
            row.label,
            row.openshift or "–",
            row.harvester or "–",
            importers.advice_of(i, importers.OPENSHIFT if row.openshift else importers.HARVESTER),
        )
        for i, row in importers.ROWS.items()
        if row.openshift or row.harvester
    ]
    return {
        "privileges": privileges(NEEDS),
        "privileges of MTV": privileges(MTV_NEEDS),
        "privileges of Harvester": privileges(HARVESTER_NEEDS),
        "importers": table(("Id", "Label", "OpenShift", "Harvester", "What to do"), there),
        "source": table(head, ours),
        "target": table(head, theirs),
    }


def written(text: str) -> str:
    for name, made in tables().items():
        begin, end = f".. BEGIN {name}\n", f".. END {name}\n"
        head, found, rest = text.partition(begin)
        assert found
        text = f"{head}{begin}\n{made}\n\n{end}{rest.partition(end)[2]}"
    return text


def test_the_guide_has_every_concern() -> None:
    wanted = os.environ.get("FERRY_WRITE_DOCS")
    page = Path(wanted) if wanted else PAGE
    text = page.read_text(encoding="utf-8")
    if wanted:
        page.write_text(written(text), encoding="utf-8")
        return
    assert written(text) == text
