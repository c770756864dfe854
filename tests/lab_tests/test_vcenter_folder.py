# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of the lab's datastores over https: bytes, ranges, sessions, locks, faults; also as govmomi's own govc sees them."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.vcenter import USER, VCenter, build
from tests.lab_tests.vcenter_lab import JAPANESE, MIB, Client, running, small_model

FLAT = "golden/golden-flat.vmdk"
SIZE = 3 * MIB

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vcenter")


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[VCenter]:
    with running(folder, small_model(folder)) as vcenter:
        yield vcenter


@pytest.fixture
def client(lab: VCenter) -> Iterator[Client]:
    lab.clear()
    one = Client(lab)
    yield one
    lab.clear()
    one.close()


@pytest.fixture(scope="module")
def raw(folder: Path) -> bytes:
    return (folder / "even.raw").read_bytes()


def span(first: int, last: int) -> dict[str, str]:
    return {"Range": f"bytes={first}-{last}"}


def test_a_whole_disk_and_its_descriptor(client: Client, raw: bytes, folder: Path) -> None:
    whole = client.file(FLAT)
    assert (whole.status, hashlib.sha256(whole.body).digest()) == (200, hashlib.sha256(raw).digest())
    text = client.file("golden/golden.vmdk").body.decode()
    assert text.startswith("# Disk DescriptorFile\nversion=1\n")
    assert re.search(r'^createType="vmfs"$', text, re.M)
    assert re.search(rf'^RW {SIZE // 512} VMFS "golden-flat.vmdk"$', text, re.M)
    assert re.search(r'^ddb.adapterType = "lsilogic"$', text, re.M)
    assert "thinProvisioned" not in text
    ide = client.file(f"{JAPANESE}/{JAPANESE}.vmdk", ds="nfs 1").body.decode()
    assert 'ddb.adapterType = "ide"' in ide
    assert f'VMFS "{JAPANESE}-flat.vmdk"' in ide
    vmx = client.file("plain/plain.vmx").body.decode()
    assert 'annotation = "first line|0Asecond line"' in vmx
    assert 'ethernet1.networkName = "backend"' in vmx
    assert folder.joinpath("even.raw").read_bytes() == raw


def test_holes_stay_holes(client: Client) -> None:
    disk = next(d for v in client.lab.get("/state")["vms"] if v["name"] == "golden" for d in v["disks"])
    stat = os.stat(disk["local"])
    assert stat.st_size == SIZE
    assert stat.st_blocks * 512 < 2 * MIB


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (0, 511), (1, MIB), (MIB - 3, MIB + 70_001), (SIZE - 1, SIZE - 1), (SIZE - 77, SIZE + 999)]
)
def test_ranges_are_exact(client: Client, raw: bytes, first: int, last: int) -> None:
    answer = client.file(FLAT, **span(first, last))
    end = min(last, SIZE - 1)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{end}/{SIZE}"
    assert answer.headers["Content-Length"] == str(end - first + 1)
    assert answer.body == raw[first : end + 1]


def test_head_etag_and_a_range_that_is_not_there(client: Client) -> None:
    head = client.file(FLAT, method="HEAD")
    assert (head.status, head.headers["Content-Length"], head.headers["Accept-Ranges"]) == (200, str(SIZE), "bytes")
    again = client.file(FLAT, **span(5, 6))
    assert again.headers["ETag"] == head.headers["ETag"]
    assert again.headers["Last-Modified"] == head.headers["Last-Modified"]
    assert client.file(FLAT, **span(SIZE, SIZE + 5)).status == 416
    changed = client.file(FLAT, **span(0, 9), **{"If-Range": '"other"'})
    assert (changed.status, len(changed.body)) == (200, SIZE)


def test_only_with_a_session_or_the_right_password(client: Client) -> None:
    def basic(user: str, password: str) -> dict[str, str]:
        return {"Cookie": "", "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    assert client.file(FLAT, Cookie="").status == 401
    assert client.file(FLAT, Cookie="vmware_soap_session=guessed").status == 401
    wrong = client.file(FLAT, **basic(USER, "wrong"))
    assert (wrong.status, wrong.headers["WWW-Authenticate"].partition(" ")[0]) == (401, "Basic")
    assert client.file(FLAT, **basic("root", client.lab.place.password())).status == 401
    assert client.file(FLAT, **basic(USER, client.lab.place.password())).status == 200
    cookie = client.cookie
    client.close()
    assert client.file(FLAT, Cookie=cookie).status == 401


def test_a_session_that_expires(client: Client) -> None:
    client.lab.fault("session_expire", match="golden-flat")
    assert client.file("golden/golden.vmdk").status == 200
    assert client.file(FLAT).status == 401
    assert client.file("golden/golden.vmdk").status == 401


def test_what_is_not_there(client: Client) -> None:
    assert client.file("golden/none-flat.vmdk").status == 404
    assert client.file("golden/golden.vmdk/x").status == 404
    assert client.file(FLAT, ds="other").status == 404
    assert client.file(FLAT, dc="other").status == 404
    assert client.file("../../../../etc/passwd").status == 404
    assert client.file("golden/../../../config.json").status == 404


def test_listings(client: Client) -> None:
    assert "golden-flat.vmdk" in client.file("golden").body.decode()
    top = client.file("").body.decode()
    assert {"plain/", "controllers/"} <= set(re.findall(r">([^<>]+)</a>", top))
    assert f"{JAPANESE}/" in client.file("", ds="nfs 1").body.decode()


def test_names_with_spaces_and_japanese(client: Client, raw: bytes) -> None:
    vm = client.vm(JAPANESE)
    client.wait(vm.PowerOffVM_Task())
    answer = client.file(f"{JAPANESE}/{JAPANESE}-flat.vmdk", ds="nfs 1", **span(100, 299))
    assert answer.body == raw[100:300]
    client.wait(vm.PowerOnVM_Task())


def test_a_running_vm_locks_its_disk(client: Client) -> None:
    vm = client.vm("hung")
    flat = "hung/hung-flat.vmdk"
    assert client.file(flat).status == 500
    assert client.file("hung/hung.vmdk").status == 200
    client.wait(vm.PowerOffVM_Task())
    assert client.file(flat).status == 200
    client.wait(vm.PowerOnVM_Task())
    assert client.file(flat).status == 500


def test_put_makes_a_new_file(client: Client, folder: Path, raw: bytes) -> None:
    assert client.file("upload/新.bin", method="PUT", data=b"abc").status == 201
    assert client.file("upload/新.bin").body == b"abc"
    assert client.file(FLAT, method="PUT", data=b"x" * 512).status == 200
    assert client.file(FLAT).body == b"x" * 512
    assert folder.joinpath("even.raw").read_bytes() == raw  # the model's own file is never written
    assert client.file(FLAT, method="PUT", data=raw).status == 200


def test_a_connection_that_breaks(client: Client) -> None:
    client.lab.fault("folder_cut", match="golden-flat", after_bytes=MIB + 5)
    with pytest.raises(http.client.IncompleteRead) as e:
        client.file(FLAT)
    assert len(e.value.partial) == MIB + 5
    assert client.file(FLAT).status == 200
    # The bytes of several requests count together.
    client.lab.fault("folder_cut", match="golden-flat", after_bytes=1000)
    assert client.file(FLAT, **span(0, 899)).status == 206
    with pytest.raises(http.client.IncompleteRead):
        client.file(FLAT, **span(900, 1799))


def test_other_faults_of_files(client: Client, raw: bytes) -> None:
    client.lab.fault("folder_status", match="golden-flat", status=503, retry_after=2, times=2)
    first = client.file(FLAT, **span(0, 9))
    assert (first.status, first.headers["Retry-After"]) == (503, "2")
    assert [client.file(FLAT, **span(0, 9)).status for _ in range(2)] == [503, 206]
    client.lab.fault("folder_short", match="golden-flat", after_bytes=100)
    short = client.file(FLAT, **span(1000, 1999))
    assert (short.status, short.body, short.headers["Content-Range"]) == (206, raw[1000:1100], f"bytes 1000-1099/{SIZE}")
    tag = client.file(FLAT, **span(0, 9)).headers["ETag"]
    client.lab.fault("folder_etag", match="golden-flat")
    assert [client.file(FLAT, **span(0, 9)).headers["ETag"] == tag for _ in range(2)] == [False, True]


def test_what_was_read_is_counted(client: Client) -> None:
    for first in (0, 1000):
        client.file(FLAT, **span(first, first + 499))
    assert client.lab.get("/stats")["files"][f"[shared] {FLAT}"] == {"bytes": 1000, "requests": 2}


def test_govc(client: Client, tmp_path: Path, raw: bytes) -> None:
    """A client that is not ours: govmomi's own command line."""
    lab = client.lab
    env: dict[str, Any] = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GOVC_URL": f"https://127.0.0.1:{lab.port}/sdk",
        "GOVC_USERNAME": USER,
        "GOVC_PASSWORD": lab.place.password(),
        "GOVC_TLS_CA_CERTS": str(lab.place.state / "ca.pem"),
        "GOVC_DATACENTER": "DC lab",
    }

    def govc(*args: str) -> str:
        done = subprocess.run([str(build("./govc", "govc")), *args], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"/DC lab/vm/{JAPANESE}" in govc("ls", "/DC lab/vm").splitlines()
    info = json.loads(govc("vm.info", "-json", "plain"))["virtualMachines"][0]
    assert info["config"]["firmware"] == "efi"
    assert info["runtime"]["powerState"] == "poweredOn"
    govc("datastore.download", "-ds", "shared", FLAT, str(tmp_path / "disk"))
    assert (tmp_path / "disk").read_bytes() == raw
    assert "Hard disk 9" in govc("device.info", "-vm", "controllers")
    env.update(GOVC_PASSWORD="wrong", GOVC_PERSIST_SESSION="false")
    with pytest.raises(AssertionError, match="incorrect user name or password|Login failure"):
        govc("ls")
