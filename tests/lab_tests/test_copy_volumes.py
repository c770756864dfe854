# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Warm copies into Cinder volumes, and a second conversion host that takes over from what the volume says of itself."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import Busy
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, volumes
from tests.lab_tests.copy_lab import Lab, lab_of

#: os-brick's libraries import eventlet where it is installed, which warns of every fork thereafter.
pytestmark = pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")

MIB = 1 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['FERRY_LAB_SHIM']}:{os.environ['PATH']}")
        with lab_of(tmp_path_factory.mktemp("lab")) as found:
            yield found


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


@pytest.fixture
def volume(conn: Any, lab: Lab, tmp_path: Path) -> Iterator[str]:
    lab.vcenter.clear()
    lab.folder = tmp_path
    body = {"volume": {"size": 1, "name": f"warm-{uuid.uuid4().hex[:8]}"}}
    made = client.call(conn, "block_storage", "POST", "/volumes", step="make a volume", body=body).json()["volume"]["id"]
    volumes.wait_status(conn, made, ("available",), timeout=60)
    yield made
    for a in volumes.attachments_of(conn, made):
        volumes.delete_attachment(conn, a.id)
    volumes.wait_status(conn, made, ("available", "error"), timeout=60)
    client.call(conn, "block_storage", "DELETE", f"/volumes/{made}", step="clean up")


def on(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this machine has that name, and with it the copies."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)


def options(lab: Lab, volume: str, state: str) -> dict[str, Any]:
    disk = {"disk": "2000", "dest": {"volume": volume}, "format": "raw"}
    return {"disks": [disk], "ledger": str(lab.folder / state), "cloud": "lab", "root_helper": "", "patience": 10}


def content(conn: Any, lab: Lab, volume: str, capacity: int) -> str:
    """SHA-256 of the first bytes of the volume."""
    with volumes.attached(conn, volume, state_dir=str(lab.folder / "look"), root_helper="") as held, open(held.path, "rb") as f:
        return hashlib.sha256(f.read(capacity)).hexdigest()


def metadata(conn: Any, volume: str) -> dict[str, str]:
    found: dict[str, str] = volumes.get_volume(conn, volume)["metadata"]
    return found


def test_cycles_into_a_volume_and_the_last_copy(lab: Lab, conn: Any, volume: str) -> None:
    lab.track("one")
    more = options(lab, volume, "state")
    first = lab.row("one", **more)
    said = metadata(conn, volume)
    assert (said["ferry_state"], said["ferry_change_id"], said["ferry_digest"]) == ("copying", first["change_id"], first["digest"])
    lab.scribble("one", 1)
    assert lab.row("one", **more)["mode"] == "incremental"
    lab.scribble("one", 2)
    lab.power("one", False)
    try:
        row = lab.row("one", **more)
        assert row["mode"] == "incremental" and row["outside_checked"] > 0
        assert metadata(conn, volume)["ferry_state"] == "complete"
        again = lab.row("one", **more)
        assert (again["changed"], again["mode"]) == (False, "none")
        # nor does a host that has no ledger do it again
        assert lab.row("one", **{**more, "ledger": str(lab.folder / "elsewhere")})["mode"] == "none"
        assert content(conn, lab, volume, row["capacity"]) == lab.source_sha("one")
    finally:
        lab.power("one", True)


@pytest.mark.fault(
    "the conversion host and its ledger are gone, between two copies",
    where="controller",
    ends="a second one takes the digests from the volume, finds them proven by its metadata, and reads only what has changed: equal",
)
def test_a_second_host_goes_on(lab: Lab, conn: Any, volume: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.track("large")
    on("mover1", monkeypatch)
    lab.row("large", **options(lab, volume, "mover1"))
    lab.scribble("large", 11, end=60 * MIB)
    on("mover2", monkeypatch)
    row = lab.row("large", **options(lab, volume, "mover2"))
    assert (row["mode"], row["adopted"]) == ("incremental", "proven")
    assert row["bytes_read"] <= 1.1 * row["changed_bytes"]
    assert content(conn, lab, volume, row["capacity"]) == lab.source_sha("large")


@pytest.mark.fault(
    "the conversion host dies in the middle of a delta, its attachment and snapshot stay",
    where="controller",
    ends="refused with its name; with take_over a second one removes the snapshot, reads the changes since the last whole copy: equal",
)
def test_a_second_host_takes_over_from_a_dead_one(lab: Lab, conn: Any, volume: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.track("large")
    on("mover1", monkeypatch)
    lab.row("large", **options(lab, volume, "mover1"))
    lab.fill("large", 60 * MIB, 128 << 10)
    lab.vcenter.clear()
    process = lab.start("large", host="mover1", **options(lab, volume, "mover1"), budget={"overall": {"rate": 3}}, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > 2 * MIB, process)
    lab.kill(process)
    (left,) = lab.snapshots("large")
    lab.scribble("large", 12, end=60 * MIB)
    on("mover2", monkeypatch)
    with pytest.raises(Busy, match="mover1"):
        lab.row("large", **options(lab, volume, "mover2"))
    found = lab.copy("large", **options(lab, volume, "mover2"), take_over=True)
    row = found["disks"][0]
    assert (row["mode"], row["adopted"]) == ("incremental", "assumed")
    assert any(left in r for r in found["remarks"]) and lab.snapshots("large") == []
    assert content(conn, lab, volume, row["capacity"]) == lab.source_sha("large")


@pytest.mark.fault(
    "the conversion host dies while it compares the whole disk, because tracking was not to be trusted",
    where="controller",
    ends="a second one does not believe the changeId of before: it compares the whole disk as well: equal",
)
def test_a_second_host_believes_no_change_id_that_the_first_distrusted(
    lab: Lab, conn: Any, volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.track("large")
    on("mover1", monkeypatch)
    lab.row("large", **options(lab, volume, "mover1"))
    lab.vcenter.switch("cbt_miss", "every:1", vm="large")
    lab.fill("large", 60 * MIB, 64 << 10)
    lab.vcenter.clear()
    lab.vcenter.fault("soap_fault", match="QueryChangedDiskAreas", fault="FileFault", times=0)
    process = lab.start("large", host="mover1", **options(lab, volume, "mover1"), budget={"overall": {"rate": 8}}, chunk_size=MIB)
    lab.wait_for(lambda: lab.served() > 8 * MIB, process)
    lab.kill(process)
    lab.vcenter.clear()
    on("mover2", monkeypatch)
    row = lab.row("large", **options(lab, volume, "mover2"), take_over=True)
    assert row["mode"] == "compare"
    assert content(conn, lab, volume, row["capacity"]) == lab.source_sha("large")


@pytest.mark.fault(
    "the first conversion host comes back with its ledger, after a second one has gone on",
    where="controller",
    ends="its ledger is of another time: the digests are taken from the volume anew, equal",
)
def test_the_first_host_comes_back(lab: Lab, conn: Any, volume: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is again what the first host copied, and the volume what the second one did."""
    lab.track("large")
    lab.vcenter.write("large", 2000, 8 * MIB, b"first" * 51200)
    on("mover1", monkeypatch)
    lab.row("large", **options(lab, volume, "mover1"))
    lab.vcenter.write("large", 2000, 8 * MIB, b"other" * 51200)
    on("mover2", monkeypatch)
    lab.row("large", **options(lab, volume, "mover2"))
    lab.vcenter.write("large", 2000, 8 * MIB, b"first" * 51200)
    lab.vcenter.post("/cbt/reset", vm="large")
    on("mover1", monkeypatch)
    row = lab.row("large", **options(lab, volume, "mover1"))
    assert row["adopted"] == "proven"
    assert content(conn, lab, volume, row["capacity"]) == lab.source_sha("large")
