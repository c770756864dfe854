# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which form a disk is sent to Glance, with which properties, by imports and into several stores; and what is cut in between."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import forms, sending

from .conftest import FakeCloud
from .glance_fake import MIB, FakeGlance, upload


def form(**facts: Any) -> forms.Form:
    return forms.Form(
        **{"path": "x", "kind": "vmdk", "capacity": 1, "disk_format": "vmdk", "disktype": "streamOptimized", **facts, "converted_to": None}
    )


def test_properties_keep_to_one_family() -> None:
    def of(hypervisor: str, adapter: str | None, own: dict[str, Any] | None = None, **machine: Any) -> dict[str, str]:
        return forms.properties_for(form(adapter=adapter), hypervisor=hypervisor, machine=machine, own=own)

    assert of("kvm", "pvscsi") == {"hw_disk_bus": "scsi", "hw_scsi_model": "vmpvscsi"}
    assert of("vmware", "pvscsi") == {"vmware_disktype": "streamOptimized", "vmware_adaptertype": "paraVirtual"}
    assert of("kvm", None) == {}
    assert of("kvm", "lsisas1068") == {"hw_disk_bus": "sata"}  # QEMU's has no disk that Linux sees
    assert of("kvm", "buslogic") == {"hw_disk_bus": "ide"}
    assert of("kvm", "ide", {"hw_disk_bus": "virtio"}) == {"hw_disk_bus": "virtio"}
    assert of("kvm", "pvscsi", {"hw_disk_bus": "virtio"}) == {"hw_disk_bus": "virtio"}
    assert of("kvm", "pvscsi", hardware="virtio", nic_type="vmxnet3") == {"hw_disk_bus": "virtio", "hw_vif_model": "virtio"}
    assert of("kvm", "ide", {"vmware_adaptertype": "lsiLogic"}) == {"vmware_adaptertype": "lsiLogic"}
    assert of("vmware", "ide", {"hw_disk_bus": "scsi", "hw_scsi_model": "vmpvscsi"}) == {
        "vmware_disktype": "streamOptimized",
        "hw_disk_bus": "scsi",
        "hw_scsi_model": "vmpvscsi",
    }
    with pytest.raises(BadInput, match="two controllers"):
        of("kvm", None, {"vmware_adaptertype": "ide", "hw_scsi_model": "vmpvscsi"})


def test_the_machine_around_the_disk() -> None:
    machine = {"guest_id": "rhel9_64Guest", "firmware": "efi", "secure_boot": True, "nic_type": "vmxnet3"}
    assert forms.properties_for(form(adapter="pvscsi"), hypervisor="kvm", machine=machine) == {
        "hw_disk_bus": "scsi",
        "hw_scsi_model": "vmpvscsi",
        "hw_vif_model": "vmxnet3",
        "hw_firmware_type": "uefi",
        "hw_machine_type": "q35",
        "os_secure_boot": "required",
        "os_type": "linux",
        "os_distro": "rhel",
        "os_version": "9",
    }
    assert forms.properties_for(form(adapter="lsisas1068"), hypervisor="vmware", machine=machine) == {
        "vmware_adaptertype": "lsiLogicsas",
        "vmware_disktype": "streamOptimized",
        "vmware_ostype": "rhel9_64Guest",
        "hw_vif_model": "vmxnet3",
        "hw_firmware_type": "uefi",
        "os_type": "linux",
        "os_version": "9",
    }


@pytest.mark.parametrize(
    ("hypervisor", "own", "words"),
    [
        ("kvm", {"hw_disk_bus": "nvme"}, "knows no hw_disk_bus 'nvme'"),
        ("kvm", {"hw_disk_bus": "SCSI"}, "knows no hw_disk_bus"),
        ("kvm", {"hw_scsi_model": "buslogic", "hw_disk_bus": "scsi"}, "no hw_scsi_model buslogic"),
        ("kvm", {"hw_disk_bus": "ide", "hw_scsi_model": "lsilogic"}, "says nothing"),
        ("kvm", {"hw_disk_bus": "ide", "hw_machine_type": "pc-q35-7.2"}, "has no IDE"),
        ("kvm", {"hw_firmware_type": "bios", "os_secure_boot": "required"}, "needs hw_firmware_type"),
        ("vmware", {"hw_disk_bus": "virtio"}, "no disk bus virtio"),
        ("vmware", {"hw_disk_bus": "scsi"}, "needs with hw_disk_bus scsi"),
        ("vmware", {"hw_vif_model": "virtio"}, "no card virtio"),
        ("vmware", {"vmware_ostype": "centos7_64Guest", "os_distro": "centos"}, "reads the second for both"),
        ("vmware", {"vmware_disktype": "preallocated"}, "what is sent is streamOptimized"),
    ],
)
def test_properties_that_nova_would_refuse_or_misread(hypervisor: str, own: dict[str, str], words: str) -> None:
    with pytest.raises(BadInput, match=words) as e:
        forms.properties_for(form(adapter="lsilogic"), hypervisor=hypervisor, own=own)
    assert e.value.code == "conflict"


def test_what_does_not_boot_is_said(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    result = upload(image_conn, src=str(raw), hypervisor="vmware")
    assert (result["bootable"], result["reasons"], result["converted_to"]) == (True, [], "streamOptimized")
    with raw.open("r+b") as f:
        f.seek(446)
        f.write(b"\x80\0\2\0\x83\0\0\0" + (8).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(48))
    flat = upload(image_conn, name="flat", src=str(raw), hypervisor="vmware", convert="never")
    assert (flat["bootable"], flat["converted_to"], flat["image"]["disk_format"]) == (False, None, "raw")
    assert "boots VMDK and ISO only" in " ".join(flat["reasons"])
    with raw.open("r+b") as f:
        f.seek(510)
        f.write(b"\0\0")
    data = upload(image_conn, name="data", src=str(raw))
    assert (data["bootable"], data["reasons"][0][:14]) == (False, "no boot sector")


def test_the_form_that_is_asked_for(server: FakeGlance, image_conn: Any, raw: Path, stream: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No image is preallocated"):
        upload(image_conn, src=str(raw), disktype="preallocated")
    assert upload(image_conn, name="c", src=str(stream), disktype="sparse")["converted_to"] == "monolithicSparse"
    sparse = tmp_path / "sparse.vmdk"
    convert(str(raw), str(sparse), format="monolithicSparse", adapter_type="pvscsi")
    with pytest.raises(BadInput, match="not streamOptimized, and convert is never"):
        upload(image_conn, src=str(sparse), disktype="streamOptimized", convert="never")
    assert upload(image_conn, name="a", src=str(sparse), disktype="sparse")["converted_to"] is None
    assert upload(image_conn, name="b", src=str(sparse), disktype="streamOptimized")["converted_to"] == "streamOptimized"


@pytest.mark.fault(
    "killed between the image's last byte and the note of its digest", where="Glance", ends="known again by what would be sent"
)
@pytest.mark.parametrize("kind", ["raw", "stream"])
def test_whole_but_never_noted(server: FakeGlance, image_conn: Any, raw: Path, stream: Path, kind: str) -> None:
    src = str(raw if kind == "raw" else stream)
    image = upload(image_conn, src=src)["image"]
    stored = server.images[image["id"]]
    stored["ferry_state"] = "copying"
    stored.pop("ferry_digest", None)
    again = upload(image_conn, src=src)
    assert (again["changed"], again["bytes_sent"], again["image"]["id"]) == (True, 0, image["id"])
    assert (stored["ferry_state"], "ferry_digest" in stored) == ("complete", kind == "raw")
    assert upload(image_conn, src=src)["changed"] is False


def test_a_glance_with_another_hash(server: FakeGlance, image_conn: Any, stream: Path) -> None:
    server.algorithm = "sha256"
    first = upload(image_conn, src=str(stream))
    assert first["image"]["ferry_sha512"] == first["sha512"]
    assert upload(image_conn, src=str(stream))["changed"] is False


@pytest.mark.fault("two runs upload one image at once", where="Glance", ends="the later one gives way; one image remains")
@pytest.mark.parametrize("status", ["queued", "active"])
def test_two_runs_at_once(server: FakeGlance, image_conn: Any, raw: Path, status: str) -> None:
    serve = server.serve

    def other(method: str, path: str, body: bytes) -> tuple[int, Any]:
        answer = serve(method, path, body)
        if method == "POST" and path.endswith("/images"):
            # created in the same moment by the other run, which is the first by its id
            server.images = {"i0": {**answer[1], "id": "i0", "status": status}, **server.images}
        return answer

    server.cloud.handler = other
    if status == "active":
        with pytest.raises(Busy, match="finished by somebody else"):
            upload(image_conn, src=str(raw))
    else:
        assert upload(image_conn, src=str(raw))["image"]["id"] == "i0"
    assert list(server.images) == ["i0"]


@pytest.mark.fault("the token ends during the upload", where="Glance", ends="logged in again for what follows; not one byte is sent twice")
def test_a_token_that_ends(server: FakeGlance, image_conn: Any, fake: FakeCloud, raw: Path) -> None:
    serve = server.serve
    said: list[str] = []

    def strict(method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "PUT":
            fake.token = "second"
        if fake.requests[-1][3]["X-Auth-Token"] != fake.token and method != "PUT":
            said.append(method)
            return 401, {"error": {"message": "The token has expired"}}
        return serve(method, path, body)

    fake.handler = strict
    result = upload(image_conn, src=str(raw))
    assert (said, result["image"]["ferry_state"]) == (["GET"], "complete")
    assert len([1 for method, *_rest in fake.requests if method == "PUT"]) == 1
    # One that has not long to live is renewed before anything is sent.
    fake.expires_at = "2026-01-01T00:10:00.000000Z"
    image_conn.session.invalidate()
    image_conn.authorize()
    fake.token, fake.expires_at = "third", "2099-01-01T00:00:00.000000Z"
    upload(image_conn, name="other", src=str(raw))
    assert [r[3]["X-Auth-Token"] for r in fake.requests if r[0] == "PUT"][-1] == "third"


@pytest.mark.fault("Glance cannot import the image", where="Glance", ends="error with its words; the image is removed")
def test_an_import_that_fails(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    server.fail_import = True
    with pytest.raises(ServerError, match="no space in fast") as e:
        upload(image_conn, src=str(raw), import_method="glance-direct")
    assert (e.value.code, e.value.left, server.images) == ("import_failed", None, {})


def test_several_stores(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    with pytest.raises(BadInput, match="no store fast"):
        upload(image_conn, src=str(raw), stores=["fast"])
    server.stores = ["fast", "slow", "far"]
    result = upload(image_conn, src=str(raw), stores=["fast", "slow"])
    assert server.imports == [{"method": {"name": "glance-direct"}, "stores": ["fast", "slow"], "all_stores_must_succeed": True}]
    assert result["image"]["stores"] == "fast,slow"
    assert upload(image_conn, src=str(raw), stores=["slow"])["changed"] is False
    checked = upload(image_conn, src=str(raw), stores=["far"], check=True)
    assert (checked["changed"], checked["diff"]["after"]) == (True, {"stores": ["far", "fast", "slow"]})
    assert upload(image_conn, src=str(raw), stores=["far"])["changed"] is True
    assert server.imports[1:] == [{"method": {"name": "copy-image"}, "stores": ["far"], "all_stores_must_succeed": True}]
    server.methods = []
    upload(image_conn, name="other", src=str(raw), stores=["fast", "slow"])
    assert [i["method"]["name"] for i in server.imports[2:]] == ["copy-image"]


def test_fetched_by_glance_itself(server: FakeGlance, image_conn: Any) -> None:
    params = {
        "src": "http://127.0.0.1/x.vmdk?signature=s3cret",
        "import_method": "web-download",
        "adapter_type": "pvscsi",
        "protected": True,
    }
    assert upload(image_conn, check=True, **params)["changed"] is True
    result = upload(image_conn, **params)
    image = result["image"]
    assert (image["min_disk"], image["hw_scsi_model"], image["protected"], image["ferry_state"]) == (5, "vmpvscsi", True, "complete")
    assert "s3cret" not in json.dumps(result)
    assert upload(image_conn, **params)["changed"] is False
    for src in ("/x.vmdk", "ftp://127.0.0.1/x.vmdk"):
        with pytest.raises(BadInput, match="http or https"):
            upload(image_conn, **{**params, "src": src})
    with pytest.raises(BadInput, match="password"):
        upload(image_conn, **{**params, "src": "http://me:s3cret@127.0.0.1/x.vmdk"})


def test_the_same_disk_in_another_form(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    first = upload(image_conn, src=str(raw), hypervisor="vmware")
    assert first["image"]["ferry_form"] == "streamOptimized"
    with pytest.raises(BadInput, match="as streamOptimized where indexed is wanted") as e:
        upload(image_conn, src=str(raw), hypervisor="kvm")
    assert e.value.code == "other_form"
    sparse = upload(image_conn, name="sparse", src=str(raw), disktype="sparse")
    assert (sparse["converted_to"], sparse["image"]["ferry_form"]) == ("monolithicSparse", "monolithicSparse")
    assert upload(image_conn, name="sparse", src=str(raw), disktype="sparse")["changed"] is False
    assert upload(image_conn, name="sparse", src=str(raw))["changed"] is False  # it does for KVM as well
    with pytest.raises(BadInput, match="as monolithicSparse where indexed is wanted"):
        upload(image_conn, name="sparse", src=str(raw), disktype="streamOptimized")


def test_a_stream_of_which_cinder_makes_no_volume(server: FakeGlance, image_conn: Any, raw: Path, tmp_path: Path) -> None:
    """One with its directory at the end, as vSphere exports it."""
    footed = tmp_path / "footed.vmdk"
    convert(str(raw), str(footed), format="streamOptimized", adapter_type="pvscsi")
    assert upload(image_conn, name="v", src=str(footed), hypervisor="vmware")["converted_to"] is None
    result = upload(image_conn, name="k", src=str(footed))
    assert (result["converted_to"], result["image"]["size"]) == ("streamOptimized", result["bytes_sent"])
    sent = [r for r in server.cloud.requests if r[0] == "PUT"][-1]
    assert sent[3]["x-openstack-image-size"] == str(result["bytes_sent"])
    assert int.from_bytes(sent[2][56:64], "little") * 512 < result["bytes_sent"]
    never = upload(image_conn, name="n", src=str(footed), convert="never")
    assert (never["converted_to"], "Cinder makes no volume" in never["reasons"][0]) == (None, True)


@pytest.mark.fault("the disk's file changes while it is sent", where="source", ends="error; the next run sends all of it")
def test_a_disk_that_changes_on_the_way(server: FakeGlance, image_conn: Any, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a disk that memory does not hold. What it holds is sent as it was read."""
    before = raw.read_bytes()

    def change(phase: str, done: int, total: int) -> None:
        if phase == "measure" and done == total:
            with raw.open("r+b") as f:
                f.seek(5 * MIB)
                f.write(hashlib.shake_128(b"new").digest(200_000))

    monkeypatch.setattr(sending, "KEPT", 0)
    with pytest.raises(FerryError, match="was changed between"):
        upload(image_conn, src=str(raw), progress=change)
    assert upload(image_conn, src=str(raw))["image"]["id"] == "i1"
    monkeypatch.undo()
    raw.write_bytes(before)
    sent = upload(image_conn, name="kept", src=str(raw), progress=change)
    assert disk_of(server, sent["image"]["id"], raw.parent) == before != raw.read_bytes()


def disk_of(server: FakeGlance, image: str, folder: Path) -> bytes:
    path = folder / f"{image}.vmdk"
    path.write_bytes(server.data[image])
    with closing(open_disk(str(path))) as disk:
        return disk.read(0, disk.capacity)


def test_a_stream_of_the_same_disk_as_an_image_in_another_form(server: FakeGlance, image_conn: Any, raw: Path, tmp_path: Path) -> None:
    """By the disk, not by the bytes of the file: the image was converted from flat, now the disk lies there as what Glance takes."""
    first = upload(image_conn, src=str(raw), adapter_type="lsilogic")
    sparse = tmp_path / "sparse.vmdk"
    convert(str(raw), str(sparse), format="monolithicSparse", adapter_type="lsilogic")
    again = upload(image_conn, src=str(sparse))
    assert (again["changed"], again["image"]["id"], again["converted_to"]) == (False, first["image"]["id"], None)
    with pytest.raises(BadInput, match="as indexed where sparse is wanted"):
        upload(image_conn, src=str(sparse), disktype="sparse")
    with raw.open("r+b") as f:
        f.write(b"another disk")
    convert(str(raw), str(sparse), format="monolithicSparse", adapter_type="lsilogic", force=True)
    with pytest.raises(BadInput, match="other content"):
        upload(image_conn, src=str(sparse))


def test_of_several_images_with_the_disk_the_one_that_does(server: FakeGlance, image_conn: Any, raw: Path) -> None:
    wrong = upload(image_conn, src=str(raw), hypervisor="vmware")["image"]["id"]
    server.images[wrong]["name"] = "aside"
    right = upload(image_conn, src=str(raw))["image"]["id"]
    server.images[wrong]["name"] = server.images[right]["name"]
    assert upload(image_conn, src=str(raw))["image"]["id"] == right
    # Nova on vSphere boots both: the one in the very form is taken.
    assert upload(image_conn, src=str(raw), hypervisor="vmware")["image"]["id"] == wrong
    del server.images[wrong]
    assert upload(image_conn, src=str(raw), hypervisor="vmware")["image"]["id"] == right
