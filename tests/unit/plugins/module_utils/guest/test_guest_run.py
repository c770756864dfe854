# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A conversion from end to end without a guest: real layers (qemu-img), and programs in the place of guestfish and virt-v2v that answer with
what was recorded of the real ones. What is killed, and what is left then, is in here; that guests start is in the lab's tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.guest import layers, tools
from ansible_collections.ferry.vmware.plugins.module_utils.guest.model import Disk, GuestError
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import guest_convert

FIXTURES = Path(__file__).parents[3] / "fixtures" / "guest"
MIB = 1 << 20
MAC = "00:50:56:7c:01:01"

pytestmark = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("setpriv")), reason="the layers are qemu-img's (qemu-utils), and setpriv is util-linux'"
)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH with the two programs; what they answer is in its files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("guestfish", "virt-v2v-in-place"):
        (folder / name).write_text(f"#!{sys.executable}\n" + (FIXTURES / f"{name}.py").read_text())
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
    answers(folder, (FIXTURES / "debian.json").read_text())
    says(folder, (FIXTURES / "v2v-debian.txt").read_text())
    return folder


def answers(programs: Path, text: str) -> None:
    (programs / "answers.json").write_text(text)


def says(programs: Path, text: str, code: int = 0, **more: Any) -> None:
    (programs / "says.json").write_text(json.dumps({"text": text, "code": code, **more}))


def asked(programs: Path) -> list[str]:
    log = programs / "asked"
    return log.read_text().splitlines() if log.exists() else []


def disks(folder: Path) -> list[dict[str, Any]]:
    found = []
    for number in range(2):
        path = folder / f"disk{number}.raw"
        if not path.exists():
            path.write_bytes(bytes([65 + number]) * MIB + bytes(3 * MIB))
        found.append({"path": str(path)})
    return found


def params(folder: Path, **more: Any) -> dict[str, Any]:
    return {"disks": disks(folder), "vm": "oldvm", "ledger": str(folder / "state"), "nics": [{"mac": MAC, "slot": 192}], **more}


def content(folder: Path) -> list[bytes]:
    return [(folder / f"disk{n}.raw").read_bytes() for n in range(2)]


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "state" / "guests").glob("*/*") if p.name not in ("lock", layers.LOG))


def test_a_guest_is_converted_on_all_its_disks(programs: Path, tmp_path: Path) -> None:
    result = guest_convert.run(params(tmp_path))
    assert (result["changed"], result["converted"], result["action"]) == (True, True, "convert")
    assert result["target"] == {"disk_bus": "virtio", "nic_model": "virtio", "firmware": "bios", "machine": "pc"}
    assert result["os"]["distro"] == "debian" and result["os"]["virtio"] is False
    told = {(c["what"], c.get("before"), c.get("after")) for c in result["changes"]}
    assert ("name bound to its MAC", None, f"ens192 = {MAC}") in told
    assert any(what == "file system named by its UUID" and before == "/dev/sdb1" for what, before, _after in told)
    # What virt-v2v wrote on the layers of both disks has reached both.
    assert [data[:9] for data in content(tmp_path)] == [b"converted"] * 2
    assert [len(data) for data in content(tmp_path)] == [4 * MIB] * 2 and content(tmp_path)[1][512:1024] == b"B" * 512
    assert left(tmp_path) == []
    writes = [line for line in asked(programs) if line.startswith("upload")]
    assert any("10-ferry-ens192.link" in line for line in writes) and any("/etc/fstab" in line for line in writes)


def test_check_mode_only_looks(programs: Path, tmp_path: Path) -> None:
    result = guest_convert.run(params(tmp_path), check=True)
    assert (result["changed"], result["converted"], result["action"]) == (True, False, "convert")
    assert result["changes"] and result["target"]["disk_bus"] == "virtio"
    assert content(tmp_path)[0][:1] == b"A" and not (programs / "v2v-asked").exists()
    assert not any(line.startswith(("upload", "rm-f")) or "readonly:false" in line for line in asked(programs))


@pytest.mark.fault("virt-v2v fails", "guest", "its layers are thrown away, the disks are as they were, and its words are told")
@pytest.mark.parametrize(
    ("file", "code"),
    [("v2v-no-boot-loader.txt", "no_boot_loader"), ("v2v-no-space.txt", "no_space"), ("v2v-read-only.txt", "hibernated")],
)
def test_a_conversion_that_fails_changes_nothing(programs: Path, tmp_path: Path, file: str, code: str) -> None:
    says(programs, (FIXTURES / file).read_text(), code=1)
    before = content(tmp_path) if disks(tmp_path) else []
    with pytest.raises(GuestError) as e:
        guest_convert.run(params(tmp_path))
    assert e.value.code == code and e.value.said and e.value.next_command and e.value.vm == "oldvm"
    assert content(tmp_path) == before and left(tmp_path) == []


def test_windows_without_drivers_gets_other_hardware_though_virt_v2v_succeeds(programs: Path, tmp_path: Path) -> None:
    answers(programs, (FIXTURES / "windows.json").read_text())
    says(programs, (FIXTURES / "v2v-windows-without.txt").read_text())
    result = guest_convert.run(params(tmp_path))
    assert result["converted"] and result["target"] == {"disk_bus": "ide", "nic_model": "e1000", "firmware": "bios", "machine": "pc"}
    assert any("no virtio drivers" in w for w in result["remarks"]) and any("IDE disks and e1000" in w for w in result["remarks"])


def test_windows_with_drivers_gets_virtio_and_its_address(programs: Path, tmp_path: Path) -> None:
    answers(programs, (FIXTURES / "windows.json").read_text())
    says(programs, (FIXTURES / "v2v-windows.txt").read_text())
    (tmp_path / "virtio-win").mkdir()
    nics = [{"mac": MAC, "static": "10.7.0.6,10.7.0.1,24,10.7.0.3"}]
    result = guest_convert.run(params(tmp_path, virtio=str(tmp_path / "virtio-win"), nics=nics))
    assert result["target"]["disk_bus"] == "virtio" and not [w for w in result["remarks"] if "no virtio" in w]
    called = json.loads((programs / "v2v-asked").read_text())
    assert called["argv"][-2:] == ["--mac", f"{MAC}:ip:10.7.0.6,10.7.0.1,24,10.7.0.3"]
    assert called["virtio_win"] == str(tmp_path / "virtio-win") and called["xml"].count("<disk ") == 2


def test_an_unknown_system_is_an_error_or_left_as_it_is(programs: Path, tmp_path: Path) -> None:
    answers(programs, json.dumps({"list-devices": "/dev/sda\n", "list-partitions": "/dev/sda1\n", "vfs-type /dev/sda1": "ext4"}))
    with pytest.raises(GuestError) as e:
        guest_convert.run(params(tmp_path))
    assert e.value.code == "unknown_os" and "/dev/sda1 ext4" in str(e.value)
    result = guest_convert.run(params(tmp_path, unsupported="skip"))
    assert (result["action"], result["changed"], result["target"]) == ("skipped", False, None)


@pytest.mark.fault("libguestfs' appliance dies", "guest", "said, and not taken for a guest without a system; the disks are as they were")
def test_an_appliance_that_dies_is_no_guest_without_a_system(programs: Path, tmp_path: Path) -> None:
    known = json.loads((FIXTURES / "debian.json").read_text())
    del known["inspect-os"]
    answers(programs, json.dumps({**known, "dies": ["inspect-os"]}))
    with pytest.raises(GuestError) as e:
        guest_convert.run(params(tmp_path, unsupported="skip"))
    assert e.value.code == "appliance" and left(tmp_path) == []


def test_missing_programs_are_named_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_ELSEWHERE", ())
    with pytest.raises(FerryError, match="virt-v2v-in-place") as e:
        guest_convert.run(params(tmp_path))
    assert e.value.code == "missing_program" and "apt-get install libguestfs-tools virt-v2v" in str(e.value.next_command)
    assert guest_convert.run(params(tmp_path, missing_tools="skip"))["action"] == "skipped"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"disks": []}, "each disk"),
        ({"disks": [{"path": "x"}, {"path": "x"}]}, "each disk"),
        ({"disks": [{"path": "x", "volume": "y"}]}, "one of path and volume"),
        ({"disks": [{"volume": "../etc"}]}, "not the id of a volume"),
        ({"disks": [{"path": "no/such/file"}]}, "no such disk"),
        ({"root": "C:"}, "root is first"),
        ({"nics": [{"mac": "x"}]}, "no MAC"),
        ({"addresses": {"10.0.0.1": "nowhere"}}, "no address"),
    ],
)
def test_what_cannot_be_meant_is_refused(programs: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        guest_convert.run(params(tmp_path, **more))


_CHILD = """
import json, sys
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import guest_convert
print(json.dumps(guest_convert.run(json.loads(sys.argv[1]))))
"""


def child(folder: Path, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(params(folder, **more))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def name_of(folder: Path) -> str:
    """What the layers of these disks are called: a run that is refused when it has opened them tells it."""
    guest_convert.run(params(folder), check=True)
    return next(p.name for p in (folder / "state" / "guests").iterdir())


def wait_for(there: Any) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end, "it does not come so far"
        time.sleep(0.05)


@pytest.mark.fault("kill -9 while virt-v2v runs", "guest", "virt-v2v dies too, nothing has changed; the next run begins anew and says so")
def test_killed_while_it_converts_the_next_run_begins_anew(programs: Path, tmp_path: Path) -> None:
    says(programs, (FIXTURES / "v2v-debian.txt").read_text(), wait=600)
    disks(tmp_path)
    before = content(tmp_path)
    process = child(tmp_path)
    wait_for((programs / "v2v-asked").exists)
    started = json.loads((programs / "v2v-asked").read_text())["pid"]
    with pytest.raises(Busy):
        guest_convert.run(params(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not _alive(started))
    assert content(tmp_path) == before and "journal.json" in left(tmp_path)
    says(programs, (FIXTURES / "v2v-debian.txt").read_text())
    result = guest_convert.run(params(tmp_path))
    assert result["undone"] and result["converted"] and content(tmp_path)[0][:9] == b"converted"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.fault("kill -9 while a conversion is written down", "guest", "the next run writes the rest, and does not convert again")
def test_killed_while_it_is_written_down_the_next_run_writes_the_rest(programs: Path, tmp_path: Path) -> None:
    """The first disk is written, the second is not: made by hand of what the journal keeps."""
    disks(tmp_path)
    own = layers.Layers(str(tmp_path / "state" / "guests"), name_of(tmp_path))
    real = [Disk(str(tmp_path / f"disk{n}.raw")) for n in range(2)]
    with own:
        for disk in own.make(real):
            subprocess.run(["qemu-io", "-c", "write -P 0x5a 0 64k", "-f", "qcow2", disk.path], check=True, capture_output=True)
        fields = '{"disk_bus":"virtio","firmware":"bios","machine":"pc","nic_model":"virtio"}'
        own.note(layers.COMMITTING, target=fields, disks=2, outcome={"changes": [{"what": "w", "where": "x"}]})
        subprocess.run(["qemu-img", "commit", "-q", "-d", own.layer(0)], check=True)
    assert [d[:1] for d in content(tmp_path)] == [b"Z", b"B"]
    result = guest_convert.run(params(tmp_path))
    assert result["converted"] and result["changes"] == [{"what": "w", "where": "x"}] and result["target"]["disk_bus"] == "virtio"
    assert [d[: 64 << 10] for d in content(tmp_path)] == [b"Z" * (64 << 10)] * 2
    assert left(tmp_path) == [] and not (programs / "v2v-asked").exists()
