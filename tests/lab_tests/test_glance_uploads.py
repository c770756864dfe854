# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Uploads that are cut, refused, robbed of their image or of their token, on a real Glance with small limits and three stores."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, Interrupted, ServerError
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import glance, images
from tests.lab_tests.glance_lab import CAP, Glance

MIB = 1 << 20
#: A child that uploads argv[2] as argv[1] to the Glance that stdin names, and dies in the middle of it without a word.
KILLED = """
import json, os, signal, sys
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client, glance
def die(phase, done, total):
    if phase == "upload" and done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
params = {"name": sys.argv[1], "src": sys.argv[2], "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 60}
glance.Upload(client.connect({"cloud": json.load(sys.stdin)}), params, die).run()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glance]:
    started = Glance(tmp_path_factory.mktemp("glance"))
    yield started
    started.stop()


@pytest.fixture
def conn(server: Glance) -> Iterator[Any]:
    connection = server.connect()
    yield connection
    connection.session.session.close()
    connection.close()


@pytest.fixture
def name(conn: Any) -> Iterator[str]:
    chosen = f"upload-{uuid.uuid4().hex[:8]}"
    yield chosen
    for image in images.find(conn, chosen):
        images.delete(conn, image)


def disk(folder: Path, size: int = MIB, name: str = "disk.raw") -> Path:
    """A flat disk of 16 MiB with C(size) bytes that do not shrink."""
    path = folder / name
    with path.open("wb") as out:
        out.truncate(16 * MIB)
        for at in range(0, size, MIB // 4):
            out.seek(4 * at)
            out.write(hashlib.shake_128(b"%d %d" % (size, at)).digest(MIB // 4))
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disk(tmp_path)


def upload(conn: Any, name: str, *, progress: Any = None, check: bool = False, **params: Any) -> dict[str, Any]:
    defaults = {"name": name, "state": "present", "hypervisor": "kvm", "convert": "auto", "timeout": 60}
    return glance.Upload(conn, {**defaults, **params}, progress or (lambda phase, done, total: None), check=check).run()


def left(conn: Any, name: str) -> str:
    """ID of the one image, which has no data."""
    found = images.find(conn, name)
    assert [(i["status"], i["ferry_state"]) for i in found] == [("queued", "copying")]
    return str(found[0]["id"])


@pytest.mark.fault("SIGKILL in the middle of an upload", where="Glance", ends="the same image ID gets all of it")
def test_killed_in_the_middle(server: Glance, conn: Any, name: str, raw: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(raw)], input=json.dumps(server.cloud()), text=True, check=False, timeout=120
    )
    assert child.returncode == -signal.SIGKILL
    before = images.find(conn, name)
    assert len(before) == 1
    result = upload(conn, name, src=str(raw))
    assert (result["image"]["id"], result["image"]["status"]) == (before[0]["id"], "active")


@pytest.mark.fault(
    "somebody deletes the image during its upload", where="Glance", ends="error; nothing is left; the next run makes it anew"
)
def test_deleted_meanwhile(conn: Any, name: str, raw: Path) -> None:
    def steal(phase: str, done: int, total: int) -> None:
        for image in images.find(conn, name) if phase == "upload" and done == total else ():
            images.delete(conn, image)

    with pytest.raises(ServerError, match="somebody deleted the image") as e:
        upload(conn, name, src=str(raw), progress=steal)
    assert (e.value.code, images.find(conn, name)) == ("not_found", [])
    assert upload(conn, name, src=str(raw))["image"]["status"] == "active"


@pytest.mark.fault("the image is larger than Glance takes (413)", where="Glance", ends="error with what to do; its image is used again")
def test_larger_than_glance_takes(conn: Any, name: str, tmp_path: Path) -> None:
    large = disk(tmp_path, CAP + MIB)
    with pytest.raises(ServerError, match="image_size_cap") as e:
        upload(conn, name, src=str(large))
    assert e.value.code == "too_large"
    kept = left(conn, name)
    assert upload(conn, name, src=str(disk(tmp_path, MIB, "small.raw")))["image"]["id"] == kept


@pytest.mark.fault("the quota of image storage is used up (413)", where="Glance", ends="error with what to do; the next run goes on")
@pytest.mark.parametrize("hypervisor", ["kvm", "vmware"])
def test_more_than_the_quota(conn: Any, name: str, tmp_path: Path, hypervisor: str) -> None:
    other = f"{name}-other"
    upload(conn, other, src=str(disk(tmp_path, CAP - MIB // 2)))
    try:
        with pytest.raises(ServerError, match="image quota") as e:
            upload(conn, name, src=str(disk(tmp_path, CAP - MIB // 4)), hypervisor=hypervisor)
        assert e.value.code == "quota"
        if hypervisor == "kvm":  # its size is told before, so that nothing travels
            left(conn, name)
        else:
            # Glance finds it out at the end, and then leaves the image saving for ever.
            assert (e.value.left or "").startswith("nothing: Glance would have left the image saving")
            assert images.find(conn, name) == []
    finally:
        upload(conn, other, state="absent")
    assert upload(conn, name, src=str(tmp_path / "disk.raw"), hypervisor=hypervisor)["image"]["status"] == "active"


@pytest.mark.fault("Glance's store is full", where="Glance", ends="error with what to do; the same image gets its data when there is room")
def test_a_full_store(server: Glance, conn: Any, name: str, raw: Path) -> None:
    with server.full(MIB // 2), pytest.raises(ServerError, match="Free space in Glance's store") as e:
        upload(conn, name, src=str(raw))
    assert e.value.code == "store_full"
    kept = left(conn, name)
    assert upload(conn, name, src=str(raw))["image"]["id"] == kept


@pytest.mark.long
@pytest.mark.fault("Glance answers 500 to an upload", where="Glance", ends="error; the next run uses the same image")
def test_an_internal_error(server: Glance, conn: Any, name: str, raw: Path) -> None:
    with server.broken(), pytest.raises(ServerError) as e:
        upload(conn, name, src=str(raw))
    assert (e.value.code, e.value.details["status"]) == ("server_failed", 500)
    kept = left(conn, name)
    assert upload(conn, name, src=str(raw))["image"]["id"] == kept


@pytest.mark.long
@pytest.mark.fault("Glance goes away during an upload", where="Glance", ends="error; the next run uses the same image")
def test_glance_goes_away(server: Glance, conn: Any, name: str, raw: Path) -> None:
    def kill(phase: str, done: int, total: int) -> None:
        if phase == "upload" and server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.wait(30)

    try:
        with pytest.raises(ServerError) as e:
            upload(conn, name, src=str(raw), progress=kill)
        assert e.value.code == "unreachable"
    finally:
        server.start()
    before = images.find(conn, name)
    assert len(before) == 1
    # The Glance that died can give nothing back: its image says saving, until somebody tells that nobody does.
    if before[0]["status"] == "saving":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(glance, "FREE_SECONDS", 0.0)
            with pytest.raises(Busy, match="somebody sends its data"):
                upload(conn, name, src=str(raw))
        images.delete(conn, before[0])
    assert upload(conn, name, src=str(raw))["image"]["status"] == "active"


@pytest.mark.fault(
    "the token is revoked during an upload", where="OpenStack", ends="logged in again for what follows; the upload is sent once"
)
def test_a_token_that_ends_on_the_way(conn: Any, name: str, raw: Path) -> None:
    ended = []

    def revoke(phase: str, done: int, total: int) -> None:
        if phase == "upload" and not ended:
            ended.append(conn.session.get_token())
            conn.identity.delete("/auth/tokens", headers={"X-Subject-Token": ended[0]})

    result = upload(conn, name, src=str(raw), progress=revoke)
    assert (result["image"]["status"], result["image"]["ferry_state"]) == ("active", "complete")
    assert conn.session.get_token() != ended[0]


def test_what_glance_refuses_is_415(conn: Any, name: str) -> None:
    made = images.create(conn, {"name": name, "disk_format": "vmdk", "container_format": "bare"})
    with pytest.raises(ServerError) as e:
        images.send(conn, made["id"], iter([b"QFI\xfb\0\0\0\3" + bytes(MIB)]))
    assert (e.value.code, e.value.details["status"]) == ("unsupported", 415)


@pytest.mark.parametrize(
    "kind",
    ["twoGbMaxExtentFlat", *(pytest.param(k, marks=pytest.mark.long) for k in ("vmfs", "monolithicFlat", "monolithicSparse")), "raw"],
)
def test_check_mode_tells_the_size(conn: Any, name: str, raw: Path, tmp_path: Path, kind: str) -> None:
    src = raw if kind == "raw" else tmp_path / "disk.vmdk"
    if kind != "raw":
        convert(str(raw), str(src), format=kind, adapter_type="pvscsi")
    said = upload(conn, name, src=str(src), check=True, tags=["t"], min_ram=64)
    assert (said["changed"], said["image"], images.find(conn, name)) == (True, None, [])
    assert (said["diff"]["after"]["tags"], said["diff"]["after"]["min_ram"], said["diff"]["after"]["min_disk"]) == (["t"], 64, 1)
    sent = upload(conn, name, src=str(src), tags=["t"], min_ram=64)
    assert abs(sent["bytes_sent"] - said["bytes_predicted"]) <= 0.05 * sent["bytes_sent"]
    assert upload(conn, name, src=str(src), tags=["t"], min_ram=64)["changed"] is False
    with raw.open("r+b") as f:
        f.write(b"other")
    if kind == "raw":
        with pytest.raises(BadInput, match="other content"):
            upload(conn, name, src=str(src), tags=["t"], min_ram=64)


def test_several_stores_by_their_owner(server: Glance, conn: Any, name: str, raw: Path) -> None:
    result = upload(conn, name, src=str(raw), stores=["fast", "far"])
    image = result["image"]
    assert (image["stores"].split(","), result["sha512"]) == (["fast", "far"], image["os_hash_value"])
    for store in ("fast", "far"):
        assert hashlib.sha512((server.folder / store / image["id"]).read_bytes()).hexdigest() == result["sha512"]
    assert not (server.folder / "files" / image["id"]).exists()
    assert upload(conn, name, src=str(raw), stores=["far"])["changed"] is False
    assert upload(conn, name, src=str(raw), stores=["files"], check=True)["diff"]["after"] == {"stores": ["far", "fast", "files"]}
    with pytest.raises(ServerError, match="only administrators copy images") as e:
        upload(conn, name, src=str(raw), stores=["files"])
    assert e.value.code == "forbidden"
    with pytest.raises(BadInput, match="no store tape"):
        upload(conn, name, src=str(raw), stores=["tape"])


def test_a_further_store_by_an_administrator(server: Glance, raw: Path) -> None:
    admin = server.connect("lab-admin")
    name = f"upload-{uuid.uuid4().hex[:8]}"
    try:
        first = upload(admin, name, src=str(raw), stores=["far"], visibility="public")
        assert (first["image"]["stores"], first["image"]["visibility"]) == ("far", "public")
        second = upload(admin, name, src=str(raw), stores=["far", "fast"], visibility="public")
        assert (second["changed"], sorted(second["image"]["stores"].split(","))) == (True, ["far", "fast"])
        assert upload(admin, name, src=str(raw), stores=["far", "fast"], visibility="public")["changed"] is False
    finally:
        upload(admin, name, state="absent")
        admin.close()


@pytest.mark.long
@pytest.mark.fault("one of several stores is full", where="Glance", ends="error; the image is in none of them and removed")
def test_an_import_that_fails(server: Glance, conn: Any, name: str, raw: Path) -> None:
    with server.broken("far"), pytest.raises(ServerError) as e:
        upload(conn, name, src=str(raw), stores=["fast", "far"])
    assert (e.value.code, images.find(conn, name)) == ("import_failed", [])
    assert upload(conn, name, src=str(raw), stores=["fast", "far"])["image"]["status"] == "active"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{files.server_port}"
    files.shutdown()
    files.server_close()
    thread.join()


def test_glance_fetches_it(conn: Any, name: str, raw: Path, tmp_path: Path, web: str) -> None:
    convert(str(raw), str(tmp_path / "disk.vmdk"), format="streamOptimized", adapter_type="pvscsi")
    params = {"src": f"{web}/disk.vmdk", "import_method": "web-download", "hypervisor": "vmware", "adapter_type": "pvscsi"}
    result = upload(conn, name, **params)
    image = result["image"]
    assert (image["status"], image["min_disk"], image["vmware_adaptertype"]) == ("active", 1, "paraVirtual")
    assert result["sha512"] == hashlib.sha512((tmp_path / "disk.vmdk").read_bytes()).hexdigest()
    assert upload(conn, name, **params)["changed"] is False
    for bad in ("nothing.vmdk", "disk.raw"):
        with pytest.raises(ServerError) as e:
            upload(conn, f"{name}-bad", **{**params, "src": f"{web}/{bad}"})
        assert (e.value.code, images.find(conn, f"{name}-bad")) == ("import_failed", []), bad


@pytest.mark.long
def test_stopped_by_its_user(conn: Any, name: str, raw: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        upload(conn, name, src=str(raw), progress=stop)
    before = images.find(conn, name)[0]["id"]
    assert upload(conn, name, src=str(raw))["image"]["id"] == before
