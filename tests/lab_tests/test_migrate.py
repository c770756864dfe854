# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook ferry.vmware.migrate as a user runs it, from a vCenter of the tests' own to the lab's OpenStack."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import openstack
import pytest
import yaml

from tests.lab.vcenter import VCenter

from .processes import copying
from .vcenter_lab import MIB, Client, running, write_raw

UUID = "50210a1b-77{0:02d}-4c6e-9f01-7a1e5b1c0001"
RECAP = re.compile(r"^(.+?)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


def write_model(folder: Path) -> Path:
    """VMs of few MiB, each for one purpose."""
    sizes = {"app-root": 48 * MIB + 3 * 512, "app-data": 9 * MIB, "killed": 96 * MIB, "small": 6 * MIB}
    for seed, (name, size) in enumerate(sizes.items()):
        write_raw(folder / f"{name}.raw", size, seed)
    with open(folder / "killed.raw", "r+b") as f:  # no zeroes: each MiB has to travel
        f.write(random.Random(7).randbytes(sizes["killed"]))

    def vm(number: int, name: str, *disks: str, networks: tuple[str, ...] = ("VM Network",), **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "uuid": UUID.format(number),
            "host": "esx1",
            "datastore": "shared",
            "guest_id": "debian12_64Guest",
            "memory_mb": 256,
            "power": "on",
            "shutdown_seconds": 0.1,
            "disks": [{"controller": "pvscsi", "unit": i, "path": f"{d}.raw", "provisioning": "thin"} for i, d in enumerate(disks)],
            "nics": [{"network": n, "mac": f"00:50:56:77:{number:02x}:{9 - i:02x}"} for i, n in enumerate(networks)],
            **more,
        }

    model = {
        "datacenter": "DC lab",
        "clusters": [{"name": "C0", "hosts": ["esx1"]}],
        "networks": ["VM Network", "backend", "unmapped"],
        "datastores": [
            {"name": "shared", "capacity": "2TiB", "hosts": ["esx1"]},
            {"name": "other", "capacity": "10GiB", "hosts": ["esx1"]},
        ],
        "vms": [
            vm(1, "app 在庫", "app-root", "app-data", networks=("VM Network", "backend"), firmware="efi"),
            vm(2, "killed", "killed"),
            vm(3, "twin", "small", folder="a"),
            vm(4, "twin", "small", folder="b", datastore="other"),
            vm(5, "lonely", "small", networks=("unmapped",)),
            vm(6, "large", "small", disks=[{"controller": "pvscsi", "path": "small.raw", "capacity": 900 << 30}]),
            vm(7, "stubborn", "small", tools="hangs"),
            vm(8, "cut", "killed"),
        ],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model), encoding="utf-8")
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

    def result(self, name: str) -> dict[str, Any]:
        return next(vm for vm in self.report["vms"] if vm["name"] == name)


@dataclass
class Site:
    """A source, a target, and a folder for a conversion host's state."""

    folder: Path
    vcenter: VCenter
    client: Client
    cloud: Any
    seen: set[str] = field(default_factory=set)

    def environment(self, **more: str) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "PYTEST"))} | {
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
            "ANSIBLE_NOCOLOR": "true",
            "VMWARE_HOST": "127.0.0.1",
            "VMWARE_PORT": str(self.vcenter.port),
            "VMWARE_PASSWORD": self.password,
            "VMWARE_CA_PATH": str(self.vcenter.place.state / "ca.pem"),
            "PATH": os.pathsep.join([os.environ["FERRY_LAB_SHIM"], str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        return env | more

    @property
    def password(self) -> str:
        return self.vcenter.place.password()

    def command(self, *hosts: str, arguments: tuple[str, ...] = (), **variables: Any) -> list[str]:
        inventory = {
            "wave": {
                "hosts": {h: {"ferry_vm": v} if isinstance(v, str) else v for h, v in ((h, self.vms.get(h, h)) for h in hosts)},
                "vars": {
                    "ferry_network_map": {"VM Network": "net-web", "backend": "net-backend"},
                    "ferry_storage_map": {"shared": None},
                    "ferry_ledger": str(self.folder / "ferry"),
                    "ferry_report_json": str(self.folder / "report.json"),
                    "ferry_progress_interval": 0.5,
                }
                | variables,
            }
        }
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory, allow_unicode=True), encoding="utf-8")
        playbook = str(Path(sys.executable).parent / "ansible-playbook")
        return [playbook, "ferry.vmware.migrate", "-i", str(path), "-e", "ferry_wave=wave", *arguments]

    #: Inventory name to the VM's, or to all of its variables.
    vms: ClassVar[dict[str, Any]] = {"app": "app 在庫", "twin": "twin"}
    #: Seconds for a playbook before the test gives up.
    patience: ClassVar[int] = 300

    def migrate(self, *hosts: str, arguments: tuple[str, ...] = (), env: dict[str, str] | None = None, **variables: Any) -> Run:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        command = self.command(*hosts, arguments=arguments, **variables)
        done = subprocess.run(
            command, env=self.environment(**(env or {})), capture_output=True, text=True, timeout=self.patience, check=False
        )
        print(done.stdout, done.stderr)
        return Run(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()) if report.exists() else {})

    def control(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.vcenter.port + 1}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def flat(self, vm: str, disk: int = 0) -> Path:
        found = next(v for v in self.control("GET", "/state")["vms"] if v["name"] == vm)
        return Path(found["disks"][disk]["local"])

    def power(self, vm: str) -> str:
        return str(next(v for v in self.control("GET", "/state")["vms"] if v["name"] == vm)["power"])

    def volumes(self, number: int) -> dict[str, Any]:
        """Volumes of a VM, by disk key."""
        rows = self.cloud.block_storage.volumes(details=True)
        return {v.metadata["ferry_disk"]: v for v in rows if v.metadata.get("ferry_source") == UUID.format(number)}

    def server(self, number: int) -> Any:
        return next((s for s in self.cloud.compute.servers() if s.metadata.get("ferry_source") == UUID.format(number)), None)

    def remove_all(self) -> None:
        """What the tests made in the lab's cloud, so that they can run again in the same lab."""
        for number in range(1, 9):
            server = self.server(number)
            if server is not None:
                self.cloud.compute.delete_server(server)
                self.cloud.compute.wait_for_delete(server, interval=0.5)
            for port in self.cloud.network.ports(tags=f"ferry_source={UUID.format(number)}"):
                self.cloud.network.delete_port(port)
            for volume in self.volumes(number).values():
                self.cloud.block_storage.delete_volume(volume)

    def assert_equal(self, vm: str, number: int) -> None:
        """Each volume's file begins with the bytes of the disk's file on the datastore."""
        for index, (_key, volume) in enumerate(sorted(self.volumes(number).items())):
            source = self.flat(vm, index).read_bytes()
            with open(Path(os.environ["FERRY_LAB_DIR"]) / "openstack" / "cinder" / "export" / f"volume-{volume.id}", "rb") as f:
                assert hashlib.sha256(f.read(len(source))).digest() == hashlib.sha256(source).digest(), volume.name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with running(folder, write_model(folder)) as vcenter, openstack.connect(cloud="lab") as cloud:
        made = Site(folder, vcenter, Client(vcenter), cloud)
        yield made
        made.client.close()
        made.remove_all()


class Watch(threading.Thread):
    """Looks at every process' arguments for secrets, as ps would show them, while something runs."""

    def __init__(self, secrets: list[str]) -> None:
        super().__init__(daemon=True)
        self.secrets = [s.encode() for s in secrets]
        self.found: list[bytes] = []
        self.looked = 0
        self.end = threading.Event()

    def run(self) -> None:
        while not self.end.wait(0.1):  # a module lives longer than that
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue  # it ended
                self.looked += 1
                self.found += [line for s in self.secrets if s in line]


def clouds_passwords() -> list[str]:
    clouds = yaml.safe_load(Path(os.environ["OS_CLIENT_CONFIG_FILE"]).read_text())["clouds"]
    return [c["auth"]["password"] for c in clouds.values()]


@pytest.fixture(scope="module")
def arrived(site: Site) -> Run:
    """One VM of two disks and two cards has been migrated, with -vvv."""
    secrets = [site.password, *clouds_passwords()]
    watch = Watch(secrets)
    watch.start()
    run = site.migrate("app", arguments=("-vvv",), ferry_report=str(site.folder / "wave.html"), ferry_report_interval=1)
    watch.end.set()
    watch.join()
    assert run.code == 0, run.out[-6000:]
    assert watch.looked > 1000 and not watch.found
    everything = run.out + (site.folder / "report.json").read_text() + "".join(p.read_text("utf-8", "replace") for p in ledger_files(site))
    assert not [s for s in secrets if s in everything]
    return run


def ledger_files(site: Site) -> list[Path]:
    return [
        p for p in (site.folder / "ferry").rglob("*") if p.is_file() and p.stat().st_size < 16 * MIB
    ]  # not the volumes below its mounts


def test_every_byte_arrives_and_the_server_runs(site: Site, arrived: Run) -> None:
    site.assert_equal("app 在庫", 1)
    server = site.server(1)
    assert (server.status, server.name) == ("ACTIVE", "app 在庫")
    volumes = site.volumes(1)
    assert {v.metadata["ferry_state"] for v in volumes.values()} == {"complete"}
    assert volumes["2000"].is_bootable and volumes["2000"].volume_image_metadata["hw_firmware_type"] == "uefi"
    devices = {a.device: a.volume_id for a in site.cloud.compute.volume_attachments(server)}
    assert [devices[d] for d in sorted(devices)] == [volumes["2000"].id, volumes["2001"].id], devices
    disks = arrived.result("app 在庫")["disks"]
    assert [d["capacity"] for d in disks] == [48 * MIB + 3 * 512, 9 * MIB]
    assert all(d["verified"] == "full" and d["repaired"] == 0 and d["digest"].startswith("xxh3-128:") for d in disks)
    assert sum(d["bytes_written"] for d in disks) < 6 * MIB < sum(d["bytes_skipped"] for d in disks)


def test_cards_keep_their_addresses_and_their_order(site: Site, arrived: Run) -> None:
    interfaces = list(site.cloud.compute.server_interfaces(site.server(1)))
    found = {i.mac_addr: site.cloud.network.get_network(i.net_id).name for i in interfaces}
    assert found == {"00:50:56:77:01:09": "net-web", "00:50:56:77:01:08": "net-backend"}
    ports = {p.mac_address: p for p in site.cloud.network.ports(device_id=site.server(1).id)}
    tags = {mac: sorted(t for t in p.tags) for mac, p in ports.items()}
    assert all(f"ferry_source={UUID.format(1)}" in t for t in tags.values()), tags


def test_the_source_is_off_and_says_where_it_went(site: Site, arrived: Run) -> None:
    vm = site.client.vm("app 在庫")
    assert vm.runtime.powerState == "poweredOff"
    assert site.server(1).id in vm.config.annotation
    cards = [d.connectable for d in vm.config.hardware.device if hasattr(d, "macAddress")]
    assert [(c.connected, c.startConnected) for c in cards] == [(False, False)] * 2, "fenced: a power-on cannot take its addresses"


def test_progress_is_shown_for_each_disk(site: Site, arrived: Run) -> None:
    for label in ("Hard disk 1", "Hard disk 2"):
        assert re.search(rf"app 在庫 · {label} +done +[\d.]+ MiB", arrived.out), arrived.out[-3000:]


def test_the_report_tells_each_phase_and_the_downtime(site: Site, arrived: Run) -> None:
    result = arrived.result("app 在庫")
    phases = [p["name"] for p in result["phases"]]
    assert [name for name in phases if name != "verify"] == ["prepare", "copy", "land", "ready", "note"], phases
    assert all(a["ended"] == b["began"] for a, b in zip(result["phases"], result["phases"][1:], strict=False))
    page = (site.folder / "wave.html").read_text()
    assert "location.reload()" not in page and "1 migrated" in page and "away for" in page and "<svg" in page
    began, ended = result["phases"][phases.index("copy")]["began"], result["phases"][-1]["ended"]
    assert 0 < result["downtime"]["seconds"] <= ended - began + 1


def test_what_was_altered_by_hand_is_named_and_mended_and_then_nothing_changes(site: Site, arrived: Run) -> None:
    volumes, server = site.volumes(1), site.server(1)
    storage, network = site.cloud.block_storage, site.cloud.network
    storage.update_volume(volumes["2001"], name="somebody's")
    storage.delete_volume_metadata(volumes["2001"], ["ferry_role"])
    storage.post(f"/volumes/{volumes['2000'].id}/action", json={"os-unset_image_metadata": {"key": "hw_firmware_type"}})
    port = next(p for p in network.ports(device_id=server.id) if p.mac_address == "00:50:56:77:01:09")
    site.cloud.compute.delete_server_interface(port.id, server=server)
    deadline = time.monotonic() + 60
    while network.get_port(port.id).device_id:
        assert time.monotonic() < deadline, "the port is still bound"
        time.sleep(0.2)
    with openstack.connect(cloud="lab-admin") as admin:  # a member may not
        admin.network.update_port(port.id, mac_address="fa:16:3e:00:00:01")
    mended = site.migrate("app")
    assert mended.code == 0, mended.out[-5000:]
    result = mended.result("app 在庫")
    assert result["state"] == "mended"
    assert {(d["kind"], d["field"]) for d in result["drift"]} == {
        ("volume", "name"),
        ("volume", "metadata ferry_role"),
        ("volume", "image property hw_firmware_type"),
        ("port", "mac_address"),
        ("port", "device_id"),
    }, result["drift"]
    told = json.dumps(result["drift"], ensure_ascii=False)
    assert all(word in told for word in ("somebody's", "ferry_role", "hw_firmware_type", "fa:16:3e:00:00:01")), told
    assert sum(d["bytes_read"] for d in result["disks"]) == 0
    site.assert_equal("app 在庫", 1)
    test_cards_keep_their_addresses_and_their_order(site, arrived)
    after = site.volumes(1)
    assert after["2001"].name == "app 在庫-disk1" and after["2001"].metadata["ferry_role"] == "data"
    assert after["2000"].volume_image_metadata["hw_firmware_type"] == "uefi"
    assert {v.id for v in after.values()} == {v.id for v in volumes.values()} and site.server(1).id == server.id
    again = site.migrate("app")
    assert again.code == 0 and set(again.changed.values()) == {0}, again.out[-3000:]
    assert again.result("app 在庫")["state"] == "unchanged"


def copy_processes(site: Site) -> list[int]:
    """The processes that copy from this vCenter: those of the module, wherever Ansible put it."""
    return copying(f"VMWARE_PORT={site.vcenter.port}")


def killed_in_the_middle(site: Site, seed: int) -> int:
    """SIGKILL to the playbook and the copy, in the middle of the disk of killed; how many bytes had been served."""
    flat = site.flat("killed").name
    site.control("POST", "/faults", kind="folder_delay", match=flat, delay_ms=150, times=0)
    process = subprocess.Popen(
        site.command("killed", ferry_workers=2),
        env=site.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    served = random.Random(seed).randrange(20, 70) * MIB
    deadline = time.monotonic() + 120
    while served_bytes(site, flat) < served:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate(timeout=5)[0][-3000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    for pid in copy_processes(site):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=30)
    site.control("DELETE", "/faults")
    before = served_bytes(site, flat)
    assert served <= before < 96 * MIB, "it was killed in the middle"
    return before


def served_bytes(site: Site, name: str) -> int:
    return sum(int(row["bytes"]) for path, row in site.control("GET", "/stats")["files"].items() if name in path)


def cut_off_in_the_middle(site: Site) -> None:
    """The vCenter goes away in the middle of the disk of cut, which is told; then it is back."""
    flat = site.flat("cut").name
    site.control("POST", "/faults", kind="folder_delay", match=flat, delay_ms=100, times=0)

    def kill() -> None:
        while served_bytes(site, flat) < 20 * MIB:
            time.sleep(0.02)
        pid = site.vcenter.process.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run = site.migrate("cut", ferry_patience=1)
    killer.join(1)
    assert run.code != 0
    said = json.dumps(run.result("cut")["errors"][0], ensure_ascii=False)
    assert "cut" in said and "Hard disk 1" in said and "did not deliver" in said and "goes on" in said, said
    assert "Traceback" not in run.out and site.server(8) is None
    site.client.si._stub.DropConnections()
    site.vcenter.up(site.folder / "model.json")
    site.client = Client(site.vcenter)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_cut_off_or_killed_at_a_random_point_it_goes_on(site: Site, seed: int) -> None:
    """Either in the middle of a disk; the next run, of both, reads of the killed one only what was missing."""
    cut_off_in_the_middle(site)
    before = killed_in_the_middle(site, seed)
    again = site.migrate("cut", "killed")
    assert again.code == 0, again.out[-6000:]
    site.assert_equal("cut", 8)
    assert len(site.volumes(8)) == 1 and site.power("cut") == "poweredOff"
    site.assert_equal("killed", 2)
    # Two workers had 8 MiB each in hand; all else that was served before the kill is not asked for again.
    assert served_bytes(site, site.flat("killed").name) <= 96 * MIB + 2 * 8 * MIB + MIB
    assert again.result("killed")["disks"][0]["bytes_resumed"] >= before - 2 * 8 * MIB - MIB


def nothing_made(site: Site, *numbers: int) -> bool:
    return not any(site.volumes(n) or site.server(n) for n in numbers)


def test_errors_of_the_whole_wave_before_anything_starts(site: Site) -> None:
    run = site.migrate("lonely", "large", "stubborn")
    assert run.code != 0
    assert "unmapped" in run.out and re.search(r"quota|gigabytes", run.out), run.out[-3000:]
    assert nothing_made(site, 5, 6, 7)
    assert {site.power(v) for v in ("lonely", "large", "stubborn")} == {"poweredOn"}


def test_unknown_and_ambiguous_names_are_listed_together(site: Site) -> None:
    run = site.migrate("twin", "nobody")
    assert run.code != 0
    assert "nobody" in run.out and "/DC lab/vm/a/twin" in run.out and "/DC lab/vm/b/twin" in run.out, run.out[-3000:]
    assert nothing_made(site, 3, 4)


def test_a_guest_that_does_not_shut_down(site: Site) -> None:
    run = site.migrate("stubborn", ferry_shutdown_timeout=2)
    assert run.code != 0
    said = json.dumps(run.result("stubborn")["errors"][0], ensure_ascii=False)
    assert "stubborn" in said and "2 s" in said, said
    assert site.power("stubborn") == "poweredOn" and site.server(7) is None


@pytest.mark.long
def test_a_guest_that_does_not_shut_down_is_powered_off_where_told(site: Site) -> None:
    forced = site.migrate("stubborn", ferry_shutdown_timeout=2, ferry_on_timeout="poweroff")
    assert forced.code == 0, forced.out[-3000:]
    site.assert_equal("stubborn", 7)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"VMWARE_PASSWORD": "wrong-secret-7"}, "password"),
        pytest.param({"VMWARE_CA_PATH": ""}, "certificate", marks=pytest.mark.long),
        pytest.param({"VMWARE_PORT": "9"}, "vCenter", marks=pytest.mark.long),
    ],
    ids=["wrong password", "untrusted certificate", "nobody answers"],
)
def test_a_source_that_cannot_be_reached(site: Site, env: dict[str, str], words: str) -> None:
    run = site.migrate("lonely", env=env)
    assert run.code != 0
    failed = re.search(r'fatal: .*"msg": "([^"]*)"', run.out)
    assert failed is not None and words in failed[1], run.out[-2000:]
    assert "wrong-secret-7" not in run.out and "Traceback" not in run.out


def test_nothing_is_moved_by_accident(site: Site) -> None:
    command = [c for c in site.command("lonely") if c not in ("-e", "ferry_wave=wave")]
    done = subprocess.run(command, env=site.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "Say what is to move" in done.stdout


def test_check_mode_is_a_plan_and_touches_nothing(site: Site) -> None:
    run = site.migrate("lonely", arguments=("--check",), ferry_network_map={"unmapped": "net-web"})
    assert run.code == 0, run.out[-3000:]
    assert nothing_made(site, 5) and site.power("lonely") == "poweredOn"
    assert run.changed["lonely"] == 1 and "lonely-disk0" in run.out
