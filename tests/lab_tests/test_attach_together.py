# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The volumes of one VM are attached at the same time: each disk is in its own, and where one cannot be had, none stays attached."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, volumes
from tests.lab_tests.copy_lab import JAPANESE, Lab, lab_of

#: os-brick's libraries import eventlet where it is installed, which warns of every fork thereafter.
pytestmark = pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")
KEYS = (2000, 3001)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['FERRY_LAB_SHIM']}:{os.environ['PATH']}")
        with lab_of(tmp_path_factory.mktemp("lab")) as found:
            found.power(JAPANESE, False)
            yield found


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


@pytest.fixture
def pair(conn: Any) -> Iterator[list[str]]:
    """Two volumes."""
    made = []
    for _key in KEYS:
        body = {"volume": {"size": 1, "name": f"pair-{uuid.uuid4().hex[:8]}"}}
        made.append(client.call(conn, "block_storage", "POST", "/volumes", step="make a volume", body=body).json()["volume"]["id"])
    for volume in made:
        volumes.wait_status(conn, volume, ("available",), timeout=60)
    yield made
    for volume in made:
        for a in volumes.attachments_of(conn, volume):
            volumes.delete_attachment(conn, a.id)
        volumes.wait_status(conn, volume, ("available", "error"), timeout=60)
        client.call(conn, "block_storage", "DELETE", f"/volumes/{volume}", step="clean up")


def options(lab: Lab, ids: list[str]) -> dict[str, Any]:
    disks = [{"disk": str(key), "dest": {"volume": volume}} for key, volume in zip(KEYS, ids, strict=True)]
    return {"disks": disks, "ledger": str(lab.folder / "state"), "cloud": "lab", "root_helper": "", "patience": 10}


def test_each_disk_comes_into_its_own(lab: Lab, conn: Any, pair: list[str]) -> None:
    found = lab.copy(JAPANESE, **options(lab, pair))["disks"]
    assert [row["dest"] for row in found] == [{"volume": volume} for volume in pair]
    for row, volume in zip(found, pair, strict=True):
        assert (volumes.get_volume(conn, volume)["status"], volumes.attachments_of(conn, volume)) == ("available", [])
        with volumes.attached(conn, volume, state_dir=str(lab.folder / "look"), root_helper="") as held, open(held.path, "rb") as f:
            assert hashlib.sha256(f.read(row["capacity"])).hexdigest() == lab.source_sha(JAPANESE, int(row["key"]))


@pytest.mark.fault(
    "one of a VM's volumes is held by somebody else",
    where="OpenStack",
    ends="error with the disk and the holder; the others are given back at once",
)
@pytest.mark.parametrize("held", [0, 1])
def test_one_that_cannot_be_had(lab: Lab, conn: Any, pair: list[str], held: int) -> None:
    with volumes.attached(conn, pair[held], state_dir=str(lab.folder / "other"), root_helper="", host="mover9"):
        with pytest.raises(Busy, match="mover9") as e:
            lab.copy(JAPANESE, **options(lab, pair))
        assert e.value.disk == f"Hard disk {held + 1}"
        assert volumes.attachments_of(conn, pair[1 - held]) == []
    assert {row["mode"] for row in lab.copy(JAPANESE, **options(lab, pair))["disks"]} == {"full"}


def test_what_no_volume_is(lab: Lab, pair: list[str]) -> None:
    with pytest.raises(BadInput, match="not the id of a volume"):
        lab.copy(JAPANESE, **options(lab, [pair[0], "../servers"]))
