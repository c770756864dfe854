# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An nbdkit of our own: reachable by nobody else, stopped on all ways out, and without a secret in its command line.

VDDK is proprietary and was never run here. What is compared with nbdkit-vddk-plugin(1) is the command line; the way from there on
is the same with nbdkit's file plugin. A small plugin in the shell shows what nbdkit is given.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk import nbdkit
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput, FerryError, MissingLibrary
from ansible_collections.ferry.vmware.plugins.module_utils.disk.nbdkit import Nbdkit, Vddk
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources import nbd_wire
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.nbd import NbdSource

THUMBPRINT = "B2:31:BD:DE:9F:DB:9D:E0:78:EF:30:42:8A:41:B0:28:92:93:C8:DD"
UTILS = Path(nbdkit.__file__).resolve().parent.parent
#: Parameters in the synopsis of nbdkit-vddk-plugin(1), nbdkit 1.24 and later.
KNOWN = {
    "file",
    "compression",
    "config",
    "cookie",
    "libdir",
    "nfchostport",
    "single-link",
    "password",
    "port",
    "server",
    "snapshot",
    "thumbprint",
    "transports",
    "unbuffered",
    "user",
    "vm",
}

needs_nbdkit = pytest.mark.skipif(shutil.which("nbdkit") is None, reason="nbdkit is not installed")


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "b").mkdir()
    return str(tmp_path / "b")


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(1 << 20))
    return str(path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@needs_nbdkit
def test_serves_and_leaves_nothing(base: str, disk: str) -> None:
    with Nbdkit("file", [disk], base=base) as running:
        assert running._process is not None
        pid = running._process.pid
        assert Path(running.folder).stat().st_mode & 0o777 == 0o700
        try:
            nbd_wire.library()
        except MissingLibrary:
            pass
        else:
            source = NbdSource(running.uri)
            assert source.read(0, source.capacity) == Path(disk).read_bytes()
            source.close()
    assert os.listdir(base) == []
    assert not alive(pid)


@needs_nbdkit
def test_stopped_on_the_way_out_of_an_error(base: str, disk: str) -> None:
    pids = []

    def fails() -> None:
        with Nbdkit("file", [disk], base=base) as running:
            assert running._process is not None
            pids.append(running._process.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert os.listdir(base) == []
    assert not alive(pids[0])


@needs_nbdkit
def test_what_it_says_is_told_and_bounded(base: str) -> None:
    with pytest.raises(FerryError) as e:
        Nbdkit("file", ["/nonexistent/disk.raw"], base=base)
    assert e.value.code == "nbdkit"
    assert "No such file" in (e.value.said or "")
    with pytest.raises(FerryError) as e:
        Nbdkit(
            "eval", ["get_size=for i in $(seq 2000); do echo words >&2; done; exit 1", "config_complete=seq 100000 >&2; exit 1"], base=base
        )
    assert len(e.value.said or "") <= 500
    assert os.listdir(base) == []


@needs_nbdkit
def test_a_missing_plugin_is_named(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingLibrary, match="no-such-thing"):
        Nbdkit("no-such-thing", [], base=base)
    for plugin, argument in (("-x", "a"), ("file", "--run=id")):
        with pytest.raises(BadInput):
            Nbdkit(plugin, [argument], base=base)
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    with pytest.raises(MissingLibrary, match="nbdkit"):
        Nbdkit("file", ["x"], base=base)
    assert os.listdir(base) == []


CHILD = """
import sys, time
from disk.nbdkit import Nbdkit
running = Nbdkit("file", [sys.argv[1]], base=sys.argv[2])
print(running._process.pid, running.folder, flush=True)
time.sleep(600)
"""


@pytest.mark.fault("SIGKILL while an nbdkit of ours runs", "NBD", "nbdkit ends too; the next run removes its folder")
@needs_nbdkit
def test_killed_with_its_parent_and_swept_by_the_next(base: str, disk: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, disk, base], env={**os.environ, "PYTHONPATH": str(UTILS)}, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pid, folder = child.stdout.readline().split()
        with Nbdkit("file", [disk], base=base):
            assert os.path.isdir(folder)  # it is in use
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    while alive(int(pid)):
        pass
    assert os.path.isdir(folder)
    with Nbdkit("file", [disk], base=base) as running:
        assert os.listdir(base) == [os.path.basename(running.folder)]


@needs_nbdkit
def test_the_password_is_in_a_private_file_and_only_while_it_starts(base: str, tmp_path: Path) -> None:
    """A plugin in the shell keeps what it was given: the parameter names a file, which has the password, and is gone afterwards."""
    seen = tmp_path / "seen"
    script = f'case "$1" in password) ;; *) ;; esac; f=$(echo "$2" | cut -c2-); stat -c %a "$f" >> {seen}; cat "$f" >> {seen}'
    plugin = tmp_path / "plugin.sh"
    plugin.write_text(
        f'#!/bin/sh\ncase "$1" in\nconfig) set -- "$2" "$3"; {script} ;;\nget_size) echo 1M ;;\n'
        "pread) dd if=/dev/zero count=$3 iflag=count_bytes ;;\n*) exit 2 ;;\nesac\n"
    )
    plugin.chmod(0o755)
    with Nbdkit("sh", [str(plugin)], password="geheim & wörtlich", base=base) as running:
        assert running._process is not None
        command = Path(f"/proc/{running._process.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{running._process.pid}/environ").read_bytes()
        assert b"geheim" not in command + environment
        assert re.search(rb"password=\+/.*/secret-[0-9a-f]{16}\0", command)
        assert not [name for name in os.listdir(running.folder) if name.startswith("secret")]
    assert seen.read_text() == "600\ngeheim & wörtlich"


# -- VDDK -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vddk(tmp_path: Path) -> Vddk:
    (tmp_path / "vddk" / "lib64").mkdir(parents=True)
    (tmp_path / "vddk" / "lib64" / "libvixDiskLib.so").touch()
    secret = tmp_path / "secret"
    secret.write_text("geheim")
    secret.chmod(0o600)
    return Vddk(str(tmp_path / "vddk"), "vc.example.com", "ferry@vsphere.local", THUMBPRINT, str(secret))


def test_command_line_of_vddk(vddk: Vddk) -> None:
    """As in nbdkit-vddk-plugin(1), "Open a file on a remote VMware vCenter server"."""
    found = vddk.arguments("vm-16", "[datastore1] Fedora/Fedora.vmdk", snapshot="snapshot-9")
    assert found == [
        f"libdir={vddk.libdir}",
        "server=vc.example.com",
        "user=ferry@vsphere.local",
        f"thumbprint={THUMBPRINT}",
        "vm=moref=vm-16",
        f"password=+{vddk.password_file}",
        "snapshot=snapshot-9",
        "file=[datastore1] Fedora/Fedora.vmdk",
    ]
    more = Vddk(**{**vars(vddk), "transports": ("nbdssl", "nbd"), "port": 8443, "config": "/etc/vddk.conf"})
    full = more.arguments("12", "[ds] a/b.vmdk")
    assert {a.partition("=")[0] for a in full} <= KNOWN
    assert {"transports=nbdssl:nbd", "port=8443", "config=/etc/vddk.conf"} <= set(full)
    assert not [a for a in full + found if "geheim" in a]


def test_parameters_that_cannot_be(vddk: Vddk, tmp_path: Path) -> None:
    def changed(**kw: object) -> Vddk:
        return Vddk(**{**vars(vddk), **kw})

    for wrong, vm, file in (
        (vddk, "vm 16", "[ds] a"),
        (vddk, "vm-1", "[ds] a\npassword=x"),
        (changed(thumbprint="12:34"), "vm-1", "[ds] a"),
        (changed(transports=("carrier-pigeon",)), "vm-1", "[ds] a"),
        (changed(libdir=str(tmp_path)), "vm-1", "[ds] a"),
        (changed(password_file=str(tmp_path / "none")), "vm-1", "[ds] a"),
    ):
        with pytest.raises(BadInput):
            wrong.arguments(vm, file)
    os.chmod(str(vddk.password_file), 0o640)
    with pytest.raises(BadInput, match="others"):
        vddk.arguments("vm-1", "[ds] a")


def test_thumbprints(tmp_path: Path) -> None:
    assert nbdkit.colons(THUMBPRINT.replace(":", "").lower()) == THUMBPRINT
    with pytest.raises(BadInput):
        nbdkit.thumbprint_of("localhost", 1, None)
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    with pytest.raises(BadInput):
        nbdkit.thumbprint_of("localhost", 1, unverified)
    context = ssl.create_default_context()
    trustme.CA().configure_trust(context)
    with pytest.raises(BadInput, match="cannot be had"):
        nbdkit.thumbprint_of("127.0.0.1", 1, context)


@needs_nbdkit
def test_without_the_plugin_it_is_said_where_to_get_it(vddk: Vddk, base: str) -> None:
    plugins = subprocess.run(["nbdkit", "--dump-config"], capture_output=True, text=True, check=True).stdout
    folder = re.search(r"^plugindir=(.*)$", plugins, re.M)
    if folder and os.path.exists(os.path.join(folder[1], "nbdkit-vddk-plugin.so")):
        pytest.skip("nbdkit's vddk plugin is installed here")
    settings = {"libdir": vddk.libdir, "thumbprint": THUMBPRINT}
    with (
        pytest.raises(MissingLibrary, match="vddk") as e,
        nbdkit.serve_vddk(settings, server="vc", user="u", password="geheim", vm="vm-1", file="[ds] a/a.vmdk", base=base),
    ):
        pass
    assert "nbdkit-plugin-vddk" in (e.value.next_command or "")
    assert "geheim" not in str(e.value)
    assert os.listdir(base) == []


@needs_nbdkit
def test_the_way_of_vddk_with_the_file_plugin(vddk: Vddk, base: str, disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the way but VDDK: a program called nbdkit reads the password as the plugin does, and has the file plugin serve."""
    try:
        nbd_wire.library()
    except MissingLibrary as e:
        pytest.skip(str(e))
    real = shutil.which("nbdkit")
    seen = tmp_path / "seen"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nbdkit"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\n'
        f'for a; do case "$a" in password=+*) cat "${{a#password=+}}" > {seen}.password ;; esac; done\n'
        f'exec {real} "$1" "$2" "$3" "$4" "$5" file {disk}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    settings = {"libdir": vddk.libdir, "thumbprint": THUMBPRINT.lower(), "transports": "nbdssl:nbd"}
    with nbdkit.serve_vddk(
        settings, server="vc.example.com", user="u@vsphere.local", password="geheim", vm="vm-1", file="[ds] a/a b.vmdk", base=base
    ) as uri:
        source = NbdSource(uri, state="vm-1/2000")
        assert source.read(0, source.capacity) == Path(disk).read_bytes()
        source.close()
    given = seen.read_text().splitlines()
    assert given[:4] == ["--foreground", "--readonly", "--exit-with-parent", "--unix"]
    assert given[5] == "vddk"
    assert {a.partition("=")[0] for a in given[6:]} <= KNOWN
    assert {"server=vc.example.com", f"thumbprint={THUMBPRINT}", "transports=nbdssl:nbd", "file=[ds] a/a b.vmdk"} <= set(given)
    assert Path(f"{seen}.password").read_text() == "geheim"
    assert not [a for a in given if "geheim" in a]
    assert os.listdir(base) == []
