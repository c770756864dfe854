# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VMs given as files, made small; and the playbook ferry.vmware.vmdk_import run against the lab's OpenStack."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_raw
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.stream_writer import write_stream
from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud import client

MIB = 1 << 20
#: A key pair of the tests; nobody has its other half.
KEY = "ferry-test-key"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUJ0dN3c7bDXg1HhC7RrZBqk3n7Q9v3p2yGZ1Qy1b2c ferry-test"
RECAP = re.compile(r"^(.+?)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)

OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>{files}</References>
  <DiskSection><Info>disks</Info>{disks}</DiskSection>
  <NetworkSection><Info>networks</Info></NetworkSection>
  <VirtualSystem ovf:id="{name}"><Info>a machine</Info><Name>{name}</Name>
    <OperatingSystemSection ovf:id="96" vmw:osType="debian12_64Guest"><Info>guest</Info></OperatingSystemSection>
    <VirtualHardwareSection><Info>hardware</Info>
      <System><vssd:VirtualSystemType>vmx-19</vssd:VirtualSystemType></System>
      <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity><vmw:CoresPerSocket ovf:required="false">2</vmw:CoresPerSocket></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      {items}
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{firmware}"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


def raw_disk(path: Path, size: int, seed: int) -> Path:
    """A disk with a boot sector of one partition, data at its begin and end, and a hole."""
    pattern = hashlib.sha256(str(seed).encode()).digest()
    sector = bytearray(512)
    sector[446:462] = bytes([0x80, 0, 2, 0, 0x83, 0, 3, 0]) + (2048).to_bytes(4, "little") + (2048).to_bytes(4, "little")
    sector[510:] = b"\x55\xaa"
    with open(path, "wb") as f:
        f.write(sector)
        f.seek(MIB)
        f.write(pattern * (MIB // 4 // len(pattern)))
        f.truncate(size)
        f.seek(size - 64 * 1024)
        f.write(pattern * (64 * 1024 // len(pattern)))
    return path


def stream(raw: Path, path: Path) -> Path:
    """The disk as ovftool exports it."""
    with closing(open_raw(str(raw))) as disk, open(path, "wb") as out:
        write_stream(disk, out, adapter_type="lsilogic", threads=1)
    return path


def descriptor(name: str, disks: list[tuple[str, int]], nics: list[tuple[str, str | None]], *, firmware: str = "bios") -> str:
    """OVF text. disks: (file, bytes); nics: (network, MAC or None)."""
    items = [
        f"<Item><rasd:AddressOnParent>{i}</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d{i}</rasd:HostResource>"
        f"<rasd:InstanceID>{10 + i}</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>"
        for i in range(len(disks))
    ] + [
        "<Item>" + (f"<rasd:Address>{mac}</rasd:Address>" if mac else "") + f"<rasd:Connection>{network}</rasd:Connection>"
        f"<rasd:ElementName>Network adapter {i + 1}</rasd:ElementName><rasd:InstanceID>{50 + i}</rasd:InstanceID>"
        "<rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>"
        for i, (network, mac) in enumerate(nics)
    ]
    return OVF.format(
        name=name,
        files="".join(f'<File ovf:id="f{i}" ovf:href="{file}"/>' for i, (file, _size) in enumerate(disks)),
        disks="".join(f'<Disk ovf:diskId="d{i}" ovf:fileRef="f{i}" ovf:capacity="{size}"/>' for i, (_file, size) in enumerate(disks)),
        items="".join(items),
        firmware=firmware,
    )


def ova(folder: Path, name: str, sizes: list[int], nics: list[tuple[str, str | None]], *, firmware: str = "bios") -> Path:
    """An OVA whose disks are streamOptimized; the raw ones stay beside it as NAME-N.raw."""
    disks = []
    path = folder / f"{name}.ova"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for i, size in enumerate(sizes):
            raw = raw_disk(folder / f"{name}-{i}.raw", size, len(name) + i)
            disks.append((stream(raw, folder / f"{name}-disk{i}.vmdk"), size))
        text = folder / f"{name}.ovf"
        text.write_text(descriptor(name, [(d.name, s) for d, s in disks], nics, firmware=firmware), encoding="utf-8")
        for member in (text, *(d for d, _s in disks)):
            archive.add(member, arcname=member.name)
            member.unlink()
    return path


@dataclass
class Run:
    """What ansible-playbook said."""

    code: int
    out: str
    report: dict[str, Any]

    @property
    def changed(self) -> dict[str, int]:
        return {name.strip(): int(changed) for name, _ok, changed, _unreachable, _failed in RECAP.findall(self.out)}


@dataclass
class ImportSite:
    """A folder of files, and the member's cloud."""

    folder: Path
    conn: Any

    def run(self, hosts: dict[str, dict[str, Any]], *arguments: str, **variables: Any) -> Run:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        inventory = {
            "wave": {
                "hosts": hosts,
                "vars": {
                    "ferry_network_map": {"VM Network": "net-web", "backend": "net-backend"},
                    "ferry_report_json": str(report),
                    "ferry_progress_interval": 1,
                    **variables,
                },
            }
        }
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory, allow_unicode=True), encoding="utf-8")
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTEST"))} | {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "PATH": os.pathsep.join([os.environ["FERRY_LAB_SHIM"], str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        command = [playbook, "ferry.vmware.vmdk_import", "-i", str(path), "-e", "ferry_wave=wave", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
        print(done.stdout, done.stderr)
        return Run(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()) if report.exists() else {})

    def server(self, name: str) -> dict[str, Any] | None:
        rows = client.get(self.conn, "compute", "/servers/detail", step="look", params={"name": f"^{name}$"}, microversion="2.47")[
            "servers"
        ]
        return rows[0] if rows else None

    def volumes(self, name: str) -> list[dict[str, Any]]:
        """The volumes of the VM, by disk."""
        rows = client.listing(self.conn, "block_storage", "/volumes/detail", "volumes", step="look")
        mine = [v for v in rows if (v.get("metadata") or {}).get("ferry_vm") == name]
        return sorted(mine, key=lambda v: str(v["metadata"]["ferry_disk"]))

    def ports(self, name: str) -> list[dict[str, Any]]:
        """The ports of the VM, by their names."""
        rows = client.listing(self.conn, "network", "/ports", "ports", step="look")
        return sorted((p for p in rows if str(p["name"]).startswith(f"{name}-nic")), key=lambda p: str(p["name"]))

    def images(self, name: str) -> list[dict[str, Any]]:
        rows = client.listing(self.conn, "image", "/images", "images", step="look")
        return [i for i in rows if i.get("ferry_vm") == name]

    def bytes_of(self, volume: str, size: int) -> bytes:
        export = Path(os.environ["FERRY_LAB_DIR"]) / "openstack" / "cinder" / "export"
        with open(export / f"volume-{volume}", "rb") as f:
            return f.read(size)

    def remove(self, *names: str) -> None:
        """What the tests made of these VMs, so that they can run again in the same lab."""
        conn = self.conn
        for name in names:
            server = self.server(name)
            if server is not None:
                client.call(conn, "compute", "DELETE", f"/servers/{server['id']}", step="clean up", allow=(404,))
                while client.call(conn, "compute", "GET", f"/servers/{server['id']}", step="clean up", allow=(404,)).status_code != 404:
                    time.sleep(0.3)  # between two looks
            for port in self.ports(name):
                client.call(conn, "network", "DELETE", f"/ports/{port['id']}", step="clean up", allow=(404,))
            for volume in self.volumes(name):
                client.call(conn, "block_storage", "DELETE", f"/volumes/{volume['id']}", step="clean up", allow=(400, 404))
            for image in self.images(name):
                client.call(conn, "image", "DELETE", f"/images/{image['id']}", step="clean up", allow=(404, 409))
        for group in client.get(conn, "compute", "/os-server-groups", step="clean up")["server_groups"]:
            if str(group["name"]).startswith("ferry:"):
                client.call(conn, "compute", "DELETE", f"/os-server-groups/{group['id']}", step="clean up", allow=(404,))
