# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""glance_vmdk_upload against a Glance on loopback that keeps images in a dictionary and can refuse, cut and lie."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.stream_writer import write_stream
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError, Interrupted, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, glance

from .conftest import PROJECT, FakeCloud

MIB = 1 << 20
BASE = {"name": "centos", "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 30}


class FakeGlance:
    def __init__(self, cloud: FakeCloud) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.data: dict[str, bytes] = {}
        self.refuse: tuple[int, Any] | None = None
        self.members: dict[str, set[str]] = {}
        self.count = 0
        self.cloud = cloud
        cloud.handler = self.serve

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = [unquote(p) for p in urlsplit(path).path.split("/") if p][1:]
        if parts == ["info", "import"]:
            return 200, {"import-methods": {"value": ["glance-direct"]}}
        if parts == ["images"] and method == "GET":
            query = parse_qs(urlsplit(path).query)
            return 200, {"images": [i for i in self.images.values() if i["name"] == query["name"][0]]}
        if parts == ["images"]:
            self.count += 1
            image = {
                "id": f"i{self.count}",
                "status": "queued",
                "owner": PROJECT,
                "tags": [],
                "visibility": "shared",
                "protected": False,
                "min_ram": 0,
            }
            self.images[image["id"]] = {**image, **json.loads(body)}
            return 201, self.images[image["id"]]
        image = self.images.get(parts[1], {})
        if not image:
            return 404, {"message": "No image found"}
        return self.one(method, parts[2:], image, body)

    def one(self, method: str, rest: list[str], image: dict[str, Any], body: bytes) -> tuple[int, Any]:
        if rest[:1] == ["members"]:
            group = self.members.setdefault(image["id"], set())
            if method == "POST":
                group.add(json.loads(body)["member"])
            if method == "DELETE":
                group.discard(rest[1])
            return 200, {"members": [{"member_id": m} for m in group]}
        if rest == ["file"] or rest == ["stage"]:
            if self.refuse:
                return self.refuse
            self.data[image["id"]] = body
            image.update(size=len(body), os_hash_algo="sha512", os_hash_value=hashlib.sha512(body).hexdigest())
            image["status"] = "active" if rest == ["file"] else "uploading"
            return 204, b""
        if rest == ["import"]:
            image["status"] = "active"
            return 202, b""
        if method == "DELETE":
            del self.images[image["id"]]
            return 204, b""
        if method == "PATCH":
            for step in json.loads(body):
                key = step["path"][1:].replace("~1", "/").replace("~0", "~")
                if step["op"] == "remove":
                    del image[key]
                else:
                    assert (key in image) == (step["op"] == "replace")
                    image[key] = step["value"]
        return 200, image


@pytest.fixture
def server(fake: FakeCloud) -> FakeGlance:
    return FakeGlance(fake)


@pytest.fixture
def image_conn(fake: FakeCloud) -> Iterator[Any]:
    connection = client.connect(fake.params())
    yield connection
    connection.session.session.close()
    connection.close()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as f:
        f.truncate(8 * MIB)
        for at in (0, 3 * MIB, 7 * MIB):
            f.seek(at)
            f.write(hashlib.shake_128(str(at).encode()).digest(300_000))
        f.seek(510)
        f.write(b"\x55\xaa")
    return path


@pytest.fixture
def stream(raw: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk.vmdk"
    out = io.BytesIO()
    source = FileSource(str(raw))
    write_stream(source, out, adapter_type="lsilogic")
    source.close()
    path.write_bytes(out.getvalue())
    return path


def upload(conn: Any, *, check: bool = False, progress: Any = None, **params: Any) -> dict[str, Any]:
    return glance.Upload(conn, {**BASE, **params}, progress or (lambda phase, done, total: None), check=check).run()


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
        ((410, b"gone"), "server", "the next run uses it", 1),
        ((503, b"storage full"), "server_failed", "the next run uses it", 1),
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


def form(**facts: Any) -> glance.Form:
    return glance.Form(
        **{
            "path": "x",
            "kind": "vmdk",
            "capacity": 1,
            "disk_format": "vmdk",
            "disktype": "streamOptimized",
            **facts,
            "converted_to": None,
            "reasons": [],
        }
    )


def test_properties_keep_to_one_family() -> None:
    def of(hypervisor: str, adapter: str | None, own: dict[str, Any] | None = None, disktype: str | None = None) -> dict[str, str]:
        return glance.properties_for(form(adapter=adapter), hypervisor=hypervisor, disktype=disktype, own=own)

    assert of("kvm", "pvscsi") == {"hw_disk_bus": "scsi", "hw_scsi_model": "vmpvscsi"}
    assert of("vmware", "pvscsi") == {"vmware_disktype": "streamOptimized", "vmware_adaptertype": "paraVirtual"}
    assert of("vmware", None, disktype="sparse") == {"vmware_disktype": "sparse"}
    assert of("kvm", None) == {}
    assert of("kvm", "ide", {"hw_disk_bus": "virtio"}) == {"hw_disk_bus": "virtio"}
    assert of("kvm", "ide", {"vmware_adaptertype": "lsiLogic"}) == {"vmware_adaptertype": "lsiLogic"}
    assert of("vmware", "ide", {"hw_disk_bus": "scsi"}) == {"vmware_disktype": "streamOptimized", "hw_disk_bus": "scsi"}
    with pytest.raises(BadInput, match="two controllers"):
        of("kvm", None, {"vmware_adaptertype": "ide", "hw_scsi_model": "vmpvscsi"})
