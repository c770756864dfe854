# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of VMs straight into images of the lab's Glance: sent once, compared the next time, begun anew where they were cut."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, images
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import cleanup, disk_copy
from tests.lab_tests.copy_lab import JAPANESE, MIB, Lab, lab_of

pytestmark = pytest.mark.filterwarnings("ignore:Using fork:DeprecationWarning")
#: A rate (MiB/s) at which there is a middle of a copy.
SLOWLY = {"budget": {"overall": {"rate": 6}}, "chunk_size": MIB}
AT_ONCE = {"budget": {"overall": {"rate": 1000}}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


@pytest.fixture
def name(conn: Any, lab: Lab, tmp_path: Path) -> Iterator[str]:
    """The beginning of the images' names."""
    lab.vcenter.clear()
    lab.folder = tmp_path
    chosen = f"disk-{uuid.uuid4().hex[:8]}"
    yield chosen
    for image in client.listing(conn, "image", "/images", "images", step="clean up"):
        if str(image["name"]).startswith(chosen):
            images.delete(conn, image)


def to_images(name: str, keys: tuple[int, ...] = (2000,), *, form: str | None = None, **image: Any) -> dict[str, Any]:
    """Options of vm_disk_copy: these disks into images, as the module gives them."""
    disks = [{"disk": str(k), "dest": {"image": f"{name}-{k}"}, "format": form, "image": image or None} for k in keys]
    return {"disks": disks, "cloud": "lab", "patience": 10}


def plain(conn: Any, row: dict[str, Any], folder: Path) -> bytes:
    """The disk that the image of C(row) holds."""
    data = b"".join(images.data_of(conn, row["image"]["id"]))
    if row["image"]["disk_format"] == "raw":
        return data
    path = folder / "back.vmdk"
    path.write_bytes(data)
    with closing(open_disk(str(path))) as disk:
        return disk.read(0, disk.capacity)


def holds(conn: Any, lab: Lab, vm: str, row: dict[str, Any]) -> bool:
    """Whether the image holds the VM's disk as it is now."""
    return hashlib.sha256(plain(conn, row, lab.folder)).hexdigest() == lab.source_sha(vm, int(row["key"]))


def test_disks_of_a_vm_become_images(lab: Lab, conn: Any, name: str) -> None:
    lab.power(JAPANESE, False)
    try:
        more = to_images(name, (2000, 3001))
        said = lab.copy(JAPANESE, check=True, **more)
        assert said["changed"] is True and [d["image"] for d in said["disks"]] == [None, None]
        assert images.find(conn, f"{name}-2000") == []
        found = lab.copy(JAPANESE, **more)
        for row in found["disks"]:
            assert (row["changed"], row["mode"], row["verified"], row["image"]["status"]) == (True, "full", "hash", "active")
            assert row["bytes_read"] == row["capacity"], "compressed once, so read once"
            assert 0 < row["bytes_written"] == row["image"]["size"] < row["capacity"]
            assert holds(conn, lab, JAPANESE, row)
        image = images.get_image(conn, found["disks"][0]["image"]["id"])
        assert (image["ferry_digest"], image["ferry_disk"], image["ferry_state"]) == (found["disks"][0]["digest"], "2000", "complete")
        assert (image["hw_firmware_type"], image["min_disk"], image["os_hash_value"]) == ("bios", 1, found["disks"][0]["sha512"])
        # Again: the images say themselves that they have this state, and no byte of a disk is read.
        lab.vcenter.clear()
        again = lab.copy(JAPANESE, **more, verify="full")
        assert again["changed"] is False and lab.served() == 0
        assert {d["mode"] for d in again["disks"]} == {"none"} and {d["verified"] for d in again["disks"]} == {"full"}
        assert [d["digest"] for d in again["disks"]] == [d["digest"] for d in found["disks"]]
        # What somebody altered beside the bytes is mended.
        images.change(conn, image, {"hw_firmware_type": "uefi", "ferry_disk": "2000"})
        mended = lab.copy(JAPANESE, **more)
        assert [(d["changed"], d["bytes_written"]) for d in mended["disks"]] == [(True, 0), (False, 0)]
        assert images.get_image(conn, image["id"])["hw_firmware_type"] == "bios"
    finally:
        lab.power(JAPANESE, True)


def test_of_a_running_vm_at_a_snapshot(lab: Lab, conn: Any, name: str) -> None:
    """An image and a file of one moment; again: the disk is compared, nothing is sent, no snapshot stays."""
    path = lab.target(JAPANESE, 3001)
    more = to_images(name, visibility="shared", tags=["golden"], min_ram=64)
    more["disks"].append({"disk": "3001", "dest": {"path": str(path)}})
    found = lab.copy(JAPANESE, **more)
    row = found["disks"][0]
    assert holds(conn, lab, JAPANESE, row) and lab.equal(JAPANESE, 3001)
    assert (row["transport"], row["image"]["visibility"], lab.snapshots(JAPANESE)) == ("https", "shared", [])
    again = lab.copy(JAPANESE, **more)["disks"][0]
    assert (again["changed"], again["mode"], again["bytes_written"], again["image"]["id"]) == (False, "compare", 0, row["image"]["id"])
    lab.vcenter.write(JAPANESE, 2000, 4096, b"something else".ljust(512))
    with pytest.raises(BadInput, match="with other content") as e:
        lab.copy(JAPANESE, **more)
    assert (e.value.code, e.value.disk, lab.snapshots(JAPANESE)) == ("other_content", "Hard disk 1", [])
    with pytest.raises(Busy, match="holds another disk") as busy:
        lab.copy("one", **to_images(name))
    assert busy.value.code == "other_disk"
    # It was asked for, so it is nothing that a cleanup removes, whatever migration is given up.
    where = {"cloud": "lab", "where": ["openstack"], "abandon": [str(lab.ref(JAPANESE).instance_uuid)], "rehearsal_age": 3600.0}
    rows = cleanup.run({**where, "ledger": str(lab.folder / "state")}, check=True)
    assert [r["why"][:16] for r in rows["kept"] if r["id"] == row["image"]["id"]] == ["it was asked for"]


@pytest.mark.fault("SIGKILL while a disk is sent into an image", where="Glance", ends="the same image ID gets all of it: equal")
@pytest.mark.parametrize("form", ["raw", None])
def test_killed_in_the_middle(lab: Lab, conn: Any, name: str, form: str | None) -> None:
    """Of a raw image in the middle of its bytes; of a compressed one while the disk is read for its sizes."""
    more = to_images(name, form=form)
    process = lab.start("one", **more, **SLOWLY)
    lab.wait_for(lambda: bool(images.find(conn, f"{name}-2000")) and lab.served() > 3 * MIB, process)
    lab.kill(process)
    (left,) = images.find(conn, f"{name}-2000")
    assert left["status"] in ("queued", "saving")
    found = lab.copy("one", **more, **AT_ONCE)
    row = found["disks"][0]
    assert (row["image"]["id"], row["image"]["status"]) == (left["id"], "active")
    assert any("a killed run had left" in r for r in found["remarks"])
    assert lab.snapshots("one") == []
    assert holds(conn, lab, "one", row)


@pytest.mark.long
@pytest.mark.fault(
    "a VM is started while its disk is sent into an image",
    where="vCenter",
    ends="error; the image is removed: it may hold no state of the disk",
)
def test_started_in_the_middle(lab: Lab, conn: Any, name: str) -> None:
    """Right after the last byte, so that it was read without an error, and before the VM is looked at again."""
    lab.power("one", False)
    ref = lab.ref("one").ref

    def there(*statuses: str) -> bool:
        return any(i["status"] in statuses for i in images.find(conn, f"{name}-2000"))

    def start() -> None:
        lab.wait_for(lambda: there("queued", "saving", "active"))
        lab.vcenter.fault("soap_delay", match="RetrieveProperties", delay_ms=1500, times=0)
        lab.wait_for(lambda: there("active"))
        ref.PowerOnVM_Task(None)

    thread = threading.Thread(target=start)
    try:
        thread.start()
        with pytest.raises(ServerError) as e:
            lab.copy("one", **to_images(name), **SLOWLY)
        assert (e.value.code, images.find(conn, f"{name}-2000")) == ("vm_started", [])
    finally:
        thread.join()
        lab.vcenter.clear()
        lab.power("one", True)
    assert lab.row("one", **to_images(name), **AT_ONCE)["image"]["status"] == "active"


def test_a_disk_that_comes_as_a_stream(lab: Lab, conn: Any, name: str) -> None:
    """On vSAN there is NFC alone: read once, so there is no index in front of what is sent."""
    with pytest.raises(BadInput, match="read twice") as e:
        lab.copy("modern", **to_images(name))
    assert (e.value.code, images.find(conn, f"{name}-2000")) == ("needs_ranges", [])
    row = lab.row("modern", **to_images(name, form="raw"))
    assert (row["transport"], row["bytes_written"]) == ("nfc", row["capacity"])
    assert holds(conn, lab, "modern", row)
    assert lab.row("modern", **to_images(name, form="raw"))["mode"] == "compare"
    other = lab.row("modern", **to_images(f"{name}-vmware", hypervisor="vmware"))
    assert other["image"]["disk_format"] == "vmdk" and holds(conn, lab, "modern", other)
    known = images.get_image(conn, other["image"]["id"])
    assert (known["vmware_disktype"], known["vmware_adaptertype"]) == ("streamOptimized", "paraVirtual")


def test_a_file_too(lab: Lab, conn: Any, name: str) -> None:
    raw = lab.folder / "disk.raw"
    raw.write_bytes(b"file system" * 100_000 + bytes(3 * MIB - 1_100_000))
    more = {**lab.params("one"), **to_images(name), "vm": None, "source": str(raw)}
    more["disks"][0]["disk"] = None
    first = disk_copy.run(more)["disks"][0]
    assert plain(conn, first, lab.folder) == raw.read_bytes()
    again = disk_copy.run(more)
    assert (again["changed"], again["disks"][0]["mode"]) == (False, "none")
    assert disk_copy.run(more, check=True)["changed"] is False
    raw.touch()
    compared = disk_copy.run(more)["disks"][0]
    assert (compared["changed"], compared["mode"], compared["bytes_written"]) == (False, "compare", 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": "incremental"}, "mode incremental has no image"),
        ({"checksum": "sha256"}, "an image has others than its disk"),
        ({"form": "vmfs"}, "raw or streamOptimized"),
        ({"form": "raw", "hypervisor": "vmware"}, "boots no raw image"),
        ({"hypervisor": "kvm", "properties": {"hw_disk_bus": "floppy"}}, "Nova knows no hw_disk_bus"),
    ],
)
def test_what_no_image_can_be(lab: Lab, conn: Any, name: str, change: dict[str, Any], said: str) -> None:
    top = {k: v for k, v in change.items() if k in ("mode", "checksum")}
    rest = {k: v for k, v in change.items() if k not in top}
    with pytest.raises(BadInput, match=said):
        lab.copy("one", **to_images(name, **rest), **top)
    assert images.find(conn, f"{name}-2000") == [] and lab.snapshots("one") == []
