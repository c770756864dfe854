# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What vmdk_info says of Glance, beside what the lab's Glance does with the same bytes; and the seed's conversions with their uploads."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client

MIB = 1 << 20
SIZE = 8 * MIB
Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    connection = client.connect({"cloud": "lab"})
    yield connection
    connection.close()


def raw(folder: Path, name: str = "disk.raw", record: bytes | None = None) -> Path:
    """A disk with an MBR, a partition at sector 2048 and a hole; C(record) replaces the four partition entries."""
    path = folder / name
    entry = struct.pack("<B3BB3BII", 0x80, 32, 33, 0, 0x83, 0, 0, 0, 2048, SIZE // 512 - 2048)
    with path.open("wb") as out:
        out.truncate(SIZE)
        out.seek(440)
        out.write(b"ferr\0\0" + (entry.ljust(64, b"\0") if record is None else record.ljust(64, b"\0")) + b"\x55\xaa")
        out.seek(2 * MIB)
        out.write("データ".encode() * 40000)
    return path


def converted(format: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / f"disk.{format}.vmdk"
        convert(str(raw(folder)), str(path), format=format, adapter_type="pvscsi")
        return path

    return make


def by_qemu(fmt: str, *options: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / f"qemu.{fmt}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", fmt, *options, raw(folder), path], check=True)
        return path

    return make


def odd(*entries: tuple[int, int, int, int]) -> Make:
    """A raw disk whose boot record has these entries: (boot flag, kind, first sector, sectors)."""

    def make(folder: Path) -> Path:
        return raw(
            folder, record=b"".join(struct.pack("<B3BB3BII", boot, 0, 2, 0, kind, 0, 0, 0, lba, n) for boot, kind, lba, n in entries)
        )

    return make


def luks(folder: Path) -> Path:
    path = raw(folder)
    with path.open("r+b") as out:
        out.write(b"LUKS\xba\xbe\0\2")
    return path


def edited(pattern: bytes, replacement: bytes) -> Make:
    """A streamOptimized disk whose embedded descriptor was edited, its length kept by the padding."""

    def make(folder: Path) -> Path:
        path = converted("streamOptimized")(folder)
        data = path.read_bytes()
        text = data[512 : 21 * 512]
        new = re.sub(pattern, replacement, text.rstrip(b"\0")).ljust(len(text), b"\0")
        assert new != text
        path.write_bytes(data[:512] + new + data[21 * 512 :])
        return path

    return make


CASES: dict[str, tuple[Make, bool]] = {
    "our stream": (converted("streamOptimized"), True),
    "our sparse": (converted("monolithicSparse"), True),
    "qemu's stream": (by_qemu("vmdk", "-o", "subformat=streamOptimized"), True),
    "qemu's sparse": (by_qemu("vmdk"), True),
    "qcow2": (by_qemu("qcow2"), True),
    "raw": (raw, True),
    "raw, no partition in its table": (odd(), False),
    "raw, odd boot flag": (odd((0x12, 0x83, 2048, 4096)), False),
    "raw, hybrid": (odd((0, 0xEE, 1, 2047), (0x80, 0x83, 2048, 4096)), False),
    "raw, LUKS": (luks, False),
    "a descriptor of a flat disk": (converted("monolithicFlat"), False),
    "a descriptor of a split sparse disk": (converted("twoGbMaxExtentSparse"), False),
    "a descriptor of a split flat disk": (converted("twoGbMaxExtentFlat"), False),
    "a descriptor of a VMFS disk": (converted("vmfs"), False),
    "RDONLY, as vSphere exports it": (edited(rb"\nRW ", b"\nRDONLY "), True),
    "a slash in the extent's name": (edited(rb'"disk\.streamOptimized\.vmdk"', b'"/mnt/export/disk.vmdk"'), False),
    "a comment in Japanese": (edited(rb"# Extent description", "# 範囲の説明".encode()), False),
    "blanks around the type": (edited(rb"createType=", b"createType = "), False),
}


def answer(conn: Any, path: Path, disk_format: str) -> int:
    """HTTP status of uploading the file's bytes as an image of this format."""
    body = {"name": f"verdict-{uuid.uuid4().hex[:8]}", "disk_format": disk_format, "container_format": "bare"}
    image = conn.image.post("/images", json=body).json()["id"]
    try:
        with path.open("rb") as data:
            done = conn.image.put(f"/images/{image}/file", data=data, headers={"Content-Type": "application/octet-stream"})
        return int(done.status_code)
    finally:
        conn.image.delete(f"/images/{image}")


@pytest.mark.parametrize("case", CASES)
def test_glance_does_what_the_verdict_says(conn: Any, case: str, tmp_path: Path) -> None:
    make, accepted = CASES[case]
    path = make(tmp_path)
    verdict = inspect(str(path))["glance"]
    assert verdict["accepted"] == accepted, verdict["reasons"]
    # what is not accepted is offered as what a person would take it for
    status = answer(conn, path, verdict["disk_format"] or "vmdk")
    assert status == (204 if accepted else 415), verdict["reasons"]
    assert accepted or verdict["reasons"]


PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: A cloud image becomes a VMDK that says paravirtual
      ferry.vmware.vmdk_convert:
        src: "{{ folder }}/ubuntu.img"
        dest: "{{ folder }}/ubuntu.vmdk"
        format: streamOptimized
        adapter_type: pvscsi
    - name: An exported stream becomes a sparse disk
      ferry.vmware.vmdk_convert:
        src: "{{ folder }}/ubuntu.vmdk"
        dest: "{{ folder }}/sparse.vmdk"
        format: monolithicSparse
    - name: And a flat one
      ferry.vmware.vmdk_convert:
        src: "{{ folder }}/ubuntu.vmdk"
        dest: "{{ folder }}/flat.vmdk"
        format: monolithicFlat
    - name: Each goes to Glance
      ferry.vmware.glance_vmdk_upload:
        cloud: lab
        name: "{{ item }}-{{ stamp }}"
        src: "{{ folder }}/{{ item }}.vmdk"
        hypervisor: vmware
      loop: [ubuntu, sparse, flat]
"""


def test_the_conversions_of_the_seed_and_their_uploads(conn: Any, tmp_path: Path) -> None:
    disk = raw(tmp_path, "plain.raw")
    wanted = hashlib.sha256(disk.read_bytes()).hexdigest()
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "ubuntu.img"], check=True)
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    stamp = uuid.uuid4().hex[:8]
    variables = tmp_path / "vars.yml"
    variables.write_text(yaml.safe_dump({"folder": str(tmp_path), "stamp": stamp}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", str(play), "-e", f"@{variables}"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    images: list[str] = []
    try:
        for changed in (6, 0):
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=dict(os.environ))
            assert done.returncode == 0, done.stdout[-3000:]
            assert re.search(r"changed=(\d+)", done.stdout) is not None
            assert ("changed=0 " in done.stdout) == (changed == 0), done.stdout[-3000:]
        for name, adapter in (("ubuntu", "paraVirtual"), ("sparse", "paraVirtual"), ("flat", "paraVirtual")):
            image = conn.image.find_image(f"{name}-{stamp}", ignore_missing=False)
            images.append(image.id)
            image = conn.image.get("/images/" + image.id).json()
            assert (image["status"], image["vmware_adaptertype"]) == ("active", adapter)
            back, plain = tmp_path / "back", tmp_path / "back.raw"
            back.write_bytes(conn.image.get(f"/images/{image['id']}/file").content)
            subprocess.run(["qemu-img", "convert", "-f", image["disk_format"], "-O", "raw", back, plain], check=True)
            assert hashlib.sha256(plain.read_bytes()).hexdigest() == wanted
    finally:
        for image_id in images:
            conn.image.delete(f"/images/{image_id}")
