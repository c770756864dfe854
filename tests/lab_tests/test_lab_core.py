# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as its user sees it: command line, state, models, disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.lab import ca, disks, model
from tests.lab.common import ROOT, LabError, Place, Process, need
from tests.lab.fat import Fat16
from tests.lab.vcenter import CONTROL_OFFSET, HTTPS_OFFSET, VCenter
from tests.lab_tests.vcenter_lab import HELD, Client, free_base, give_back, small_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Cli:
    """``python -m tests.lab`` on a state folder of its own."""

    def __init__(self, folder: Path, base: int) -> None:
        self.state, self.base = folder / "state", base
        self.env = {**os.environ, "FERRY_LAB_DIR": str(self.state), "FERRY_LAB_BASE": str(base)}

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tests.lab", *args]
        return subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=300, check=False)

    @property
    def pid(self) -> int | None:
        return Process(self.state / "vcenter", "vcenter").pid()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    one = Cli(tmp_path, free_base())
    yield one
    one("wipe", "vcenter")
    give_back(one.base)


def test_parts_that_start_together_get_one_certificate(tmp_path: Path) -> None:
    for turn in range(10):
        with ThreadPoolExecutor(4) as pool:
            files = list(pool.map(ca.ensure, [tmp_path / str(turn)] * 4))
        (_ca, cert, key) = files[0]
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)  # refuses a key of another certificate
        assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(files[0][0]) is None


def test_up_status_down_wipe(cli: Cli, tmp_path: Path) -> None:
    model_file = str(small_model(tmp_path))
    up = cli("up", "vcenter", "--model", model_file)
    assert up.returncode == 0, up.stderr
    env = (cli.state / "env.sh").read_text()
    assert (cli.state / "env.sh").stat().st_mode & 0o777 == 0o600
    assert f"export VMWARE_PORT={cli.base + HTTPS_OFFSET}\n" in env
    assert f"export FERRY_VCENTER_CONTROL=http://127.0.0.1:{cli.base + CONTROL_OFFSET}\n" in env
    first = cli.pid
    assert first is not None
    # The password is nowhere but in files of ours.
    password = (cli.state / "password").read_text().strip()
    assert f"export VMWARE_PASSWORD={password}\n" in env
    assert (
        password not in up.stdout + up.stderr + Path(f"/proc/{first}/cmdline").read_text() + (cli.state / "vcenter/vcenter.log").read_text()
    )
    assert password.encode() not in Path(f"/proc/{first}/environ").read_bytes()
    assert os.getsid(first) == first
    assert "running" in cli("status", "vcenter").stdout
    # Up again does nothing, quickly; another model is an error; so is a second lab on the same ports.
    started = time.monotonic()
    assert cli("up", "vcenter", "--model", model_file).returncode == 0
    assert time.monotonic() - started < 5
    assert cli.pid == first
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"clusters": [{"name": "C", "hosts": ["h"]}], "datastores": [{"name": "d"}]}))
    assert "another model" in cli("up", "vcenter", "--model", str(other)).stderr
    second = Cli(tmp_path / "second", cli.base)
    refused = second("up", "vcenter", "--model", str(other))
    assert (refused.returncode, "FERRY_LAB_BASE" in refused.stderr) == (1, True)
    # One that was killed starts again; the CA and the password stay.
    ca = (cli.state / "ca.pem").read_bytes()
    os.kill(first, signal.SIGKILL)
    assert cli("up", "vcenter", "--model", model_file).returncode == 0
    assert cli.pid not in (None, first)
    assert (cli.state / "ca.pem").read_bytes() == ca
    assert cli("down").returncode == 0
    assert cli.pid is None
    assert "stopped" in cli("status", "vcenter").stdout
    assert cli("wipe").returncode == 0
    assert not cli.state.exists()


def test_two_labs_run_beside_each_other(cli: Cli, tmp_path: Path) -> None:
    model_file = str(small_model(tmp_path))
    second = Cli(tmp_path / "second", free_base())
    assert cli("up", "vcenter", "--model", model_file).returncode == 0
    assert second("up", "vcenter", "--model", model_file).returncode == 0
    assert second("wipe").returncode == 0
    assert cli.pid is not None


def test_a_recycled_pid_is_never_killed(tmp_path: Path) -> None:
    process = Process(tmp_path, "other")
    process.pid_file.write_text(json.dumps({"pid": os.getpid(), "start": "1"}))
    assert process.pid() is None
    assert process.stop() is False


def test_a_busy_port_is_a_clear_error(cli: Cli, tmp_path: Path) -> None:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the test before may have had a server there, a moment ago
        s.bind(("127.0.0.1", cli.base + CONTROL_OFFSET))
        s.listen()
        refused = cli("up", "vcenter", "--model", str(small_model(tmp_path)))
    assert refused.returncode == 1
    assert f"port {cli.base + CONTROL_OFFSET} is in use" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_ports_of_tests_are_theirs_alone_and_none_of_an_outgoing_connection() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    bases = [free_base() for _ in range(10)]
    assert len(set(bases)) == 10 and max(bases) + CONTROL_OFFSET < first
    for base in bases:
        give_back(base)
    assert not set(bases) & HELD.keys()


def test_every_mistake_in_a_model_is_told(tmp_path: Path) -> None:
    vm: dict[str, Any] = {
        "name": "a",
        "host": "nowhere",
        "nics": [{"network": "none", "mac": "x"}],
        "disks": [{"path": "missing.raw"}, {"unit": 7}],
        "colour": 1,
    }
    data = {"clusters": [{"name": "C", "hosts": ["h"]}], "datastores": [{"name": "d", "capacity": "much"}], "vms": [vm, vm]}
    with pytest.raises(LabError) as e:
        model.check(data, tmp_path)
    said = str(e.value)
    for part in ("nowhere", "network none", "MAC", "missing.raw", "unit 7", "colour", "much", "two VMs have the name a"):
        assert part in said


def test_a_thousand_vms(cli: Cli, tmp_path: Path) -> None:
    data = {"clusters": [{"name": "C0", "hosts": ["a", "b", "c"]}], "datastores": [{"name": "d"}], "bulk": {"vms": 1000, "prefix": "bulk"}}
    (tmp_path / "bulk.json").write_text(json.dumps(data))
    started = time.monotonic()
    up = cli("up", "vcenter", "--model", str(tmp_path / "bulk.json"))
    assert up.returncode == 0, up.stderr
    assert time.monotonic() - started < 30
    client = Client(VCenter(Place(cli.state, cli.base)))
    assert len(client.content.viewManager.CreateContainerView(client.content.rootFolder, [vim.VirtualMachine], True).view) == 1000
    vm = client.content.searchIndex.FindByInventoryPath("DC0/vm/bulk0999")
    assert [d.macAddress for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualEthernetCard)] == ["00:50:56:20:03:e7"]
    client.close()


def test_the_demos_disks_hold_their_files(tmp_path: Path) -> None:
    image = disks.build("web01-root")
    assert image.stat().st_size == 512 * disks.MIB + 3 * 512
    head = image.read_bytes()[:512]
    assert head[510:] == b"\x55\xaa"
    assert int.from_bytes(head[454:458], "little") == 2048
    debugfs = need("debugfs", "e2fsprogs", "reads ext4")

    for name, part in (("web01-root", 0), ("legacy01-root", 0), ("db01-root", 1), ("db01-data", 0)):
        recipe = disks.RECIPES[name].parts[part]
        found = tmp_path / name
        found.mkdir()
        subprocess.run([debugfs, "-R", f'rdump / "{found}"', f"{disks.build(name)}?offset={recipe.start}"], capture_output=True, check=True)
        for path, file in recipe.tree.items():
            expected = tmp_path / "expected"
            file.write(expected)
            assert (found / path).read_bytes() == expected.read_bytes(), (name, path)


def test_building_a_disk_again_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = disks.build("legacy01-root")
    monkeypatch.setattr(disks, "CACHE", tmp_path)
    again = disks.build("legacy01-root")
    assert again != kept
    assert again.read_bytes() == kept.read_bytes()
    assert again.stat().st_blocks * 512 < 40 * disks.MIB


def test_the_esp_is_a_sound_fat(tmp_path: Path) -> None:
    esp = disks.RECIPES["db01-root"].parts[0]
    image = tmp_path / "esp"
    with open(image, "wb") as f:
        f.truncate(esp.size)
    with open(image, "r+b") as f:
        Fat16(esp.size // 512, 1, "ESP").write(f, 0, {n: x.content() for n, x in esp.tree.items()})
    with open(disks.build("db01-root"), "rb") as f:
        f.seek(esp.start + 512)
        assert f.read(4) == b"\xf8\xff\xff\xff"
    fsck = shutil.which("fsck.vfat") or shutil.which("fsck.vfat", path="/usr/sbin:/sbin")
    if fsck is None:
        pytest.skip("fsck.vfat (dosfstools) is not installed")
    done = subprocess.run([fsck, "-n", str(image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "7 files" in done.stdout


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="sudo apt-get install nothing-like-it"):
        need("no-such-program", "nothing-like-it", "does nothing")


def test_parts_that_start_side_by_side_have_one_password(tmp_path: Path) -> None:
    for n in range(30):
        place = Place(tmp_path / str(n), 23000)
        with ThreadPoolExecutor(6) as pool:
            said = set(pool.map(lambda _n, place=place: place.password(), range(6)))
        assert len(said) == 1 and os.listdir(place.state) == ["password"]
