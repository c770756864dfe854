# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role vddk with a tarball made up for it. VDDK itself was never run: its export is compared with nbdkit-vddk-plugin(1), and an
export of nbdkit's file plugin, by the same units, is activated and read."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
import trustme
import yaml

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import MissingLibrary
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources import nbd_wire
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.nbd import NbdSource

pytestmark = pytest.mark.slow

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
VERSION = "8.0.3-23950268"
DISTRIB = "vmware-vix-disklib-distrib"


def tarball(folder: Path, *, library: bool = True) -> Path:
    """A tarball with the names that the vendor's has."""
    made = folder / DISTRIB
    (made / "lib64").mkdir(parents=True)
    (made / "FILES").write_text("made up")
    if library:
        (made / "lib64" / "libvixDiskLib.so.8.0.3").write_bytes(b"\x7fELF")
        (made / "lib64" / "libvixDiskLib.so").symlink_to("libvixDiskLib.so.8.0.3")
    path = folder / f"VMware-vix-disklib-{VERSION}.x86_64.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(made, DISTRIB)
    shutil.rmtree(made)
    return path


class Play:
    """Runs the playbook on this machine, into a folder."""

    def __init__(self, top: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.folder = folder
        self.variables: dict[str, Any] = {
            "ferry_become": False,
            "ansible_python_interpreter": sys.executable,
            "vddk_folder": str(folder / "opt"),
            "vddk_secrets": str(folder / "secrets"),
            "vddk_systemd_folder": str(folder),
            "vddk_socket_folder": str(folder),
            "vddk_install_packages": False,
            "vddk_manage_units": False,
        }
        self.environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(top.parents[2]),
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
        }

    def __call__(self, *options: str, ok: bool = True, **more: Any) -> tuple[int, str]:
        """(tasks that changed something, all that was said)."""
        file = self.folder / "variables.yml"
        file.write_text(yaml.safe_dump({**self.variables, **more}))
        done = subprocess.run(
            [str(PLAYBOOK), "ferry.vmware.vddk", "-i", "localhost,", "-c", "local", "-e", f"@{file}", *options],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        file.unlink()
        assert (done.returncode == 0) is ok, said
        found = re.search(r"changed=(\d+)", said)
        return int(found[1]) if found else -1, said


@pytest.fixture
def play(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    if not PLAYBOOK.exists():
        pytest.skip("ansible-playbook is not installed")
    return Play(top, tmp_path, monkeypatch)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.long
def test_unpacked_once_to_a_folder_of_its_version(play: Play, tmp_path: Path) -> None:
    path = tarball(tmp_path)
    wanted = {"ferry_vddk_tarball": str(path), "ferry_vddk_checksum": f"sha256:{sha256(path)}"}
    planned, _said = play("--check", **wanted)
    assert planned > 0
    assert not (tmp_path / "opt").exists()
    changed, _said = play(**wanted)
    assert changed > 0
    libdir = tmp_path / "opt" / "current" / DISTRIB
    assert libdir.resolve() == tmp_path / "opt" / VERSION / DISTRIB
    assert (libdir / "lib64" / "libvixDiskLib.so").resolve().is_file()
    assert play(**wanted)[0] == 0
    assert play("--check", **wanted)[0] == 0
    # somebody broke it: what says which tarball it was is gone
    (tmp_path / "opt" / VERSION / ".ferry-sha256").unlink()
    (libdir / "lib64" / "libvixDiskLib.so").unlink()
    assert play(vddk_tarball_remote=True, **wanted)[0] > 0
    assert (libdir / "lib64" / "libvixDiskLib.so").exists()
    assert sorted(p.name for p in (tmp_path / "opt").iterdir()) == [VERSION, "current"]


@pytest.mark.long
def test_another_tarball_is_refused(play: Play, tmp_path: Path) -> None:
    path = tarball(tmp_path, library=False)
    for checksum, words in (
        ("", "has to be the SHA-256"),
        ("0" * 64, "has the SHA-256"),
        (sha256(path), "no VDDK for Linux"),
    ):
        _changed, said = play(ok=False, vddk_tarball=str(path), vddk_checksum=checksum)
        assert words in said
    _changed, said = play(ok=False, vddk_tarball=str(tmp_path / "none.tar.gz"), vddk_checksum="0" * 64)
    assert "is not there" in said
    assert not (tmp_path / "opt" / "current").exists()


@pytest.fixture
def vcenter(tmp_path: Path) -> Iterator[tuple[int, str, str]]:
    """A TLS server: its port, the file of its authority, and its certificate's thumbprint."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    der = ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())
    digest = hashlib.sha1(der).hexdigest().upper()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _who = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as s:
                    s.recv(1)
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1], str(tmp_path / "ca.pem"), ":".join(digest[i : i + 2] for i in range(0, 40, 2))
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def words(unit: Path) -> list[str]:
    """The words of ExecStart, as systemd takes them."""
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


EXPORT = {"name": "db01-1", "vm": "vm-16", "file": '[data store 1] 50% "off"/$x\\y/d b.vmdk', "snapshot": "snapshot-9"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_an_export_by_vddk(play: Play, tmp_path: Path, vcenter: tuple[int, str, str]) -> None:
    port, authority, thumbprint = vcenter
    secret = "geheim & wört'lich"
    login = {"hostname": "127.0.0.1", "port": port, "username": "ferry@vsphere.local", "password": secret, "ca_path": authority}
    wanted = {"ferry_vcenter": login, "vddk_exports": [EXPORT], "vddk_transports": ["nbdssl", "nbd"]}
    changed, said = play("--diff", "-vvv", **wanted)
    assert changed > 0
    assert secret not in said.replace(str(tmp_path / "variables.yml"), "")
    assert (tmp_path / "secrets" / "password").read_text() == secret
    assert (tmp_path / "secrets" / "password").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets" / "thumbprint").read_text() == thumbprint + "\n"
    # nbdkit-vddk-plugin(1): "Open a file on a remote VMware vCenter server"
    assert words(tmp_path / "ferry-nbd-db01-1.service") == [
        "/usr/bin/env",
        "nbdkit",
        "--foreground",
        "--readonly",
        "vddk",
        f"libdir={tmp_path}/opt/current/{DISTRIB}",
        "server=127.0.0.1",
        f"port={port}",
        "user=ferry@vsphere.local",
        f"password=+{tmp_path}/secrets/password",
        f"thumbprint={thumbprint}",
        "vm=moref=vm-16",
        "snapshot=snapshot-9",
        "transports=nbdssl:nbd",
        f"file={EXPORT['file']}",
    ]
    for unit in tmp_path.glob("ferry-nbd-*"):
        assert secret not in unit.read_text()
    assert play(**wanted)[0] == 0
    (tmp_path / "ferry-nbd-db01-1.socket").write_text("altered")
    assert play(**wanted)[0] == 1
    assert "SocketMode=0600" in (tmp_path / "ferry-nbd-db01-1.socket").read_text()
    gone = {**wanted, "vddk_exports": [{**EXPORT, "state": "absent"}]}
    assert play(**gone)[0] > 0
    assert not list(tmp_path.glob("ferry-nbd-*"))
    assert play(**gone)[0] == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.long
def test_a_vcenter_that_is_not_trusted(play: Play, tmp_path: Path, vcenter: tuple[int, str, str]) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    login = {"hostname": "127.0.0.1", "port": vcenter[0], "username": "u", "password": "p", "ca_path": str(tmp_path / "other.pem")}
    play(ok=False, ferry_vcenter=login, vddk_exports=[EXPORT])
    assert not (tmp_path / "secrets" / "thumbprint").exists()
    play(ferry_vcenter=login, vddk_exports=[EXPORT], vddk_thumbprint=vcenter[2])
    assert f"thumbprint={vcenter[2]}" in words(tmp_path / "ferry-nbd-db01-1.service")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "../x", "path": "/x"}, "needs a plain name"),
        ({"name": "a", "vm": "vm-1"}, "either path or both"),
        ({"name": "a", "path": "/x\nExecStart=/bin/sh"}, "needs a plain name"),
        ({"name": "a", "path": "/x", "listen": "127.0.0.1:10809"}, "needs tls_certificates"),
        ({"name": "a", "path": "/x", "listen": "1\nUser=root:1", "tls_certificates": "/x"}, "listen is ADDRESS:PORT"),
        ({"name": "a", "vm": "vm-1", "file": "[d] x"}, "vddk_vcenter needs hostname"),
    ],
)
def test_exports_that_cannot_be(play: Play, tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    assert said in " ".join(play(ok=False, vddk_exports=[wrong])[1].split())
    assert not list(tmp_path.glob("ferry-nbd-*"))


def activated(unit: Path, listen: str) -> subprocess.Popen[bytes]:
    """What systemd does when somebody connects to the socket."""
    return subprocess.Popen(["systemd-socket-activate", "-l", listen, *words(unit)], stderr=subprocess.DEVNULL)


def read(uri: str, **more: Any) -> bytes:
    source = NbdSource(uri, patience=20, **more)
    try:
        return bytes(source.read(0, source.capacity))
    finally:
        source.close()


@pytest.mark.skipif(not shutil.which("nbdkit") or not shutil.which("systemd-socket-activate"), reason="nbdkit or systemd is not installed")
def test_an_export_of_a_file_is_activated_and_read(play: Play, tmp_path: Path) -> None:
    """The same units as VDDK's, over a Unix socket and over TLS, where the client has to show a certificate too."""
    try:
        nbd_wire.library()
    except MissingLibrary as e:
        pytest.skip(str(e))
    disk = tmp_path / '50% of "all" $HOME.raw'
    disk.write_bytes(os.urandom(3 << 20))
    authority = trustme.CA()
    for name, files in (("server", "server"), ("client", "client")):
        (tmp_path / name).mkdir()
        authority.cert_pem.write_to_path(tmp_path / name / "ca-cert.pem")
        made = authority.issue_cert("localhost")
        made.cert_chain_pems[0].write_to_path(tmp_path / name / f"{files}-cert.pem")
        made.private_key_pem.write_to_path(tmp_path / name / f"{files}-key.pem")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    listen = f"127.0.0.1:{port}"
    play(
        vddk_exports=[
            {"name": "plain", "path": str(disk)},
            {"name": "tls", "path": str(disk), "listen": listen, "tls_certificates": str(tmp_path / "server")},
        ]
    )
    if shutil.which("systemd-analyze"):
        units = sorted(str(p) for p in tmp_path.glob("ferry-nbd-*"))
        found = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
        assert not [line for line in found.stderr.splitlines() if "ferry-nbd" in line]
    path = str(tmp_path / "plain.sock")
    assert f"ListenStream={path}" in (tmp_path / "ferry-nbd-plain.socket").read_text()
    assert f"ListenStream={listen}" in (tmp_path / "ferry-nbd-tls.socket").read_text()
    servers = [activated(tmp_path / "ferry-nbd-plain.service", path), activated(tmp_path / "ferry-nbd-tls.service", listen)]
    try:
        assert read(f"nbd+unix:///?socket={path}") == disk.read_bytes()
        assert read(f"nbds://localhost:{port}", tls_certificates=str(tmp_path / "client")) == disk.read_bytes()
    finally:
        for server in servers:
            server.terminate()
            server.wait()
