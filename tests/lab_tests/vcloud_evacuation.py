# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An evacuation of the lab's Development-1, and what the lab's control port says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import evacuate

from .vcloud_env import Quick, control, switch

COLLECTIONS = Path(__file__).resolve().parents[5]
SOURCE = "Development-1"
TARGETS = ("Production-2", "Development-2")
#: What lives on the source: db01, test01 to test12, paused, and a machine with a second disk elsewhere.
ON_SOURCE = 15


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """The lab as its model has it, with tasks of a tenth of a second."""
    control("POST", "/reset")
    switch(task_seconds=0.1)
    yield
    control("POST", "/reset")


@pytest.fixture
def session() -> Iterator[Quick]:
    with Quick() as found:
        yield found


def wanted(folder: Path, **more: Any) -> evacuate.Wanted:
    values: dict[str, Any] = {"datastore": SOURCE, "targets": TARGETS, "journal": str(folder / "journal"), "max_per_target": 4}
    return evacuate.Wanted(**{**values, **more})


def go(session: Quick, folder: Path, **more: Any) -> dict[str, Any]:
    check, progress = more.pop("check", False), more.pop("progress", None)
    warnings: list[str] = []
    result = evacuate.evacuate(session, wanted(folder, **more), check=check, warn=warnings.append, progress=progress)
    result["warnings"] = warnings
    return dict(json.loads(json.dumps(result)))


def refused(session: Quick, folder: Path, **more: Any) -> FerryError:
    with pytest.raises(FerryError) as caught:
        go(session, folder, **more)
    return caught.value


def all_vms() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = control("GET", "/vms")["vms"]
    return found


def moved_once() -> bool:
    """Whether every VM that was on the source has been relocated once, and no other at all."""
    return sorted(v["relocations"] for v in all_vms() if v["relocations"]) == [1] * ON_SOURCE


def on(datastore: str, vcenter: str = "vc1") -> set[str]:
    return {v["name"] for v in all_vms() if datastore in (v["datastore"], *v["disks"]) and v["vcenter"] == vcenter}
