# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""glance_vmdk_upload against a Glance on loopback: what is sent, compared, refused and mended."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError, Interrupted, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import glance

from .conftest import FakeCloud
from .glance_fake import MIB, FakeGlance, upload


def test_a_stream_is_sent_as_it_is(server: FakeGlance, image_conn: Any, stream: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = upload(image_conn, src=str(stream), progress=lambda *what: seen.append(what))
    image = result["image"]
    assert (result["changed"], result["converted_to"], result["bytes_sent"]) == (True, None, stream.stat().st_size)
    assert server.data[image["id"]] == stream.read_bytes()
    assert result["sha512"] == image["os_hash_value"] == hashlib.sha512(stream.read_bytes()).hexdigest()
    assert (image["disk_format"], image["hw_disk_bus"], image["hw_scsi_model"], image["min_disk"]) == ("vmdk", "scsi", "lsilogic", 1)
    assert image["ferry_state"] == "complete"
    assert seen[-1] == ("upload", stream.stat().st_size, stream.stat().st_size)
    again = upload(image_conn, src=str(stream))
    assert (again["changed"], again["bytes_sent"], again["image"]["id"], again["sha512"]) == (False, 0, image["id"], result["sha512"])


def test_a_raw_disk_is_converted_on_the_fly(server: FakeGlance, image_conn: Any, raw: Path, tmp_path: Path) -> None:
    predicted = upload(image_conn, src=str(raw), check=True)
    assert server.images == {}
    assert predicted["changed"] is True
    result = upload(image_conn, src=str(raw), adapter_type="pvscsi")
    assert result["converted_to"] == "streamOptimized"
    assert abs(predicted["bytes_predicted"] - result["bytes_sent"]) < 0.1 * result["bytes_sent"]
    assert result["bytes_sent"] < 2 * MIB
    back = tmp_path / "back.vmdk"
    back.write_bytes(server.data[result["image"]["id"]])
    disk = open_disk(str(back))
    assert disk.read(0, disk.capacity) == raw.read_bytes()
    disk.close()
    assert (result["image"]["hw_disk_bus"], result["image"]["hw_scsi_model"]) == ("scsi", "vmpvscsi")
    again = upload(image_conn, src=str(raw), adapter_type="pvscsi")
    assert (again["changed"], again["sha512"]) == (False, result["sha512"])
    assert len(server.data) == 1


def test_the_level_of_compression(server: FakeGlance, image_conn: Any, tmp_path: Path) -> None:
    raw = tmp_path / "text.raw"
    raw.write_bytes(b"".join(b"line %d of %d\n" % (i, i * i % 977) for i in range(40_000)).ljust(4 * MIB, b"\0"))
    sent = {}
    for hypervisor in ("kvm", "vmware"):  # the directory in front, and at the end
        for level in (1, 9):
            name = f"{hypervisor}-{level}"
            params = {"src": str(raw), "name": name, "hypervisor": hypervisor, "compression_level": level}
            predicted = upload(image_conn, check=True, **params)["bytes_predicted"]
            sent[name] = upload(image_conn, **params)["bytes_sent"]
            assert abs(predicted - sent[name]) < 0.1 * sent[name]
            assert upload(image_conn, **{**params, "compression_level": 10 - level})["changed"] is False
    assert sent["kvm-9"] < 0.95 * sent["kvm-1"]
    assert sent["vmware-9"] < 0.95 * sent["vmware-1"]
    assert upload(image_conn, src=str(raw), hypervisor="kvm")["bytes_sent"] == sent["kvm-1"]


@pytest.mark.parametrize("level", [0, 10, -1])
def test_no_such_level_of_compression(server: FakeGlance, image_conn: Any, raw: Path, level: int) -> None:
    with pytest.raises(BadInput, match="from 1 to 9"):
        upload(image_conn, src=str(raw), compression_level=level)
    assert server.images == {}


def test_other_content_under_the_name_is_an_error(server: FakeGlance, image_conn: Any, raw: Path, stream: Path) -> None:
    upload(image_conn, src=str(stream))
    with raw.open("r+b") as f:
        f.write(b"other")
    with pytest.raises(BadInput) as e:
        upload(image_conn, src=str(raw))
    assert e.value.code == "other_content"
    assert len(server.images) == 1


def test_what_was_altered_by_hand_is_mended(server: FakeGlance, image_conn: Any, stream: Path) -> None:
    params = {
        "src": str(stream),
        "visibility": "shared",
        "members": ["a", "b"],
        "tags": ["y", "x"],
        "protected": True,
        "properties": {"k/~": "1"},
    }
    image = upload(image_conn, **params)["image"]
    assert upload(image_conn, **params)["changed"] is False
    stored = server.images[image["id"]]
    stored.update(tags=["z"], hw_disk_bus="ide", protected=False, vmware_adaptertype="ide")
    stored["k/~"] = "2"
    server.members[image["id"]] = {"a", "c"}
    checked = upload(image_conn, check=True, **params)
    assert stored["tags"] == ["z"]
    result = upload(image_conn, **params)
    for found in (checked, result):
        assert found["changed"] is True
        assert found["diff"]["before"] == {
            "protected": False,
            "tags": ["z"],
            "hw_disk_bus": "ide",
            "k/~": "2",
            "vmware_adaptertype": "ide",
            "members": ["a", "c"],
        }
    assert server.members[image["id"]] == {"a", "b"}
    assert "vmware_adaptertype" not in result["image"]
    assert upload(image_conn, **params)["changed"] is False


def test_a_cut_upload_goes_on_under_the_same_id(server: FakeGlance, image_conn: Any, fake: FakeCloud, raw: Path) -> None:
    fake.cut_after = 200_000
    with pytest.raises(ServerError) as e:
        upload(image_conn, src=str(raw))
    assert e.value.code == "unreachable"
    assert "the next run uses it" in str(e.value)
    left = next(iter(server.images.values()))
    assert (left["status"], left["ferry_state"]) == ("queued", "copying")
    fake.cut_after = None
    assert upload(image_conn, src=str(raw))["image"]["id"] == left["id"]


def test_interrupted_by_the_progress_hook(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted, match="stopped"):
        upload(image_conn, src=str(raw), progress=stop)
    assert [i["status"] for i in server.images.values()] == ["queued"]


def test_somebody_else_sends_the_image(server: FakeGlance, image_conn: Any, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "FREE_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        upload(image_conn, src=str(raw), progress=_raise)
    next(iter(server.images.values()))["status"] = "saving"
    with pytest.raises(Busy, match="somebody sends"):
        upload(image_conn, src=str(raw))


def _raise(phase: str, done: int, total: int) -> None:
    raise Interrupted("stopped")


@pytest.mark.parametrize(
    ("answer", "code", "words", "left"),
    [
        ((415, b"<html>415 Unsupported Media Type: Image failed safety checks</html>"), "unsupported", "vmdk_info", 0),
        ((413, b"<html>413 Request Entity Too Large</html>"), "too_large", "image_size_cap", 1),
        ((413, b"Image storage media is full: There is not enough disk space"), "store_full", "Free space", 1),
        ((413, b"Image exceeds the storage quota: The size of the data exceeds it"), "quota", "image quota", 1),
        ((401, b"Authentication error - the token may have expired during file upload"), "unauthorized", "live longer", 1),
        ((409, b"Image status transition from saving to saving is not allowed"), "conflict", "somebody else sends", 1),
        ((410, b"gone"), "server", "the next run uses it", 1),
        ((410, b"The image may have been deleted during the upload"), "not_found", "somebody deleted the image", 1),
        ((503, b"no storage"), "server_failed", "the next run uses it", 1),
    ],
)
def test_refusals_say_what_to_do(server: FakeGlance, image_conn: Any, raw: Path, answer: Any, code: str, words: str, left: int) -> None:
    server.refuse = answer
    with pytest.raises(FerryError) as e:
        upload(image_conn, src=str(raw))
    assert e.value.code == code
    assert words in str(e.value)
    assert len(server.images) == left
    server.refuse = None
    assert upload(image_conn, src=str(raw))["changed"] is True
    assert len(server.images) == 1


def test_a_server_that_stores_other_bytes(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    serve = server.one

    def lie(method: str, rest: list[str], image: dict[str, Any], body: bytes) -> tuple[int, Any]:
        answer = serve(method, rest, image, body)
        if rest == ["file"]:
            image["os_hash_value"] = "0" * 128
        return answer

    server.one = lie  # type: ignore[method-assign]  # the wire's other end, not ours
    with pytest.raises(ServerError) as e:
        upload(image_conn, src=str(raw))
    assert e.value.code == "corrupt"
    assert server.images == {}


def test_import_through_the_staging_area(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    result = upload(image_conn, src=str(raw), import_method="glance-direct")
    assert result["image"]["status"] == "active"
    assert [p for method, p, *_rest in server.cloud.requests if method == "PUT"] == [f"/image/images/{result['image']['id']}/stage"]
    server.methods = []
    with pytest.raises(BadInput, match="no import method web-download"):
        upload(image_conn, name="other", src="http://127.0.0.1/x.vmdk", import_method="web-download")


def test_absent(server: FakeGlance, image_conn: Any, stream: Path) -> None:
    image = upload(image_conn, src=str(stream), protected=True)["image"]
    with pytest.raises(BadInput) as e:
        upload(image_conn, state="absent")
    assert e.value.code == "protected"
    upload(image_conn, src=str(stream), protected=False)
    assert upload(image_conn, state="absent", check=True)["changed"] is True
    assert image["id"] in server.images
    assert upload(image_conn, state="absent")["changed"] is True
    assert upload(image_conn, state="absent")["changed"] is False


def test_never_convert(server: FakeGlance, image_conn: Any, raw: Path, tmp_path: Path) -> None:
    descriptor = tmp_path / "flat.vmdk"
    raw.rename(tmp_path / "flat-flat.vmdk")
    sectors = 8 * MIB // 512
    descriptor.write_text(
        '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        f'RW {sectors} FLAT "flat-flat.vmdk" 0\nddb.virtualHWVersion = "4"\nddb.adapterType = "ide"\n'
    )
    with pytest.raises(BadInput, match="convert is never"):
        upload(image_conn, src=str(descriptor), convert="never")
    result = upload(image_conn, src=str(descriptor))
    assert (result["converted_to"], result["image"]["hw_disk_bus"]) == ("streamOptimized", "ide")
    assert "hw_scsi_model" not in result["image"]
