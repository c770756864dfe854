# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role vddk_image with a tarball made up for it: against a program that stands in for podman and buildah and writes down what it is
asked, and against the real buildah and a registry of its own where both are installed. VDDK itself was never run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
DISTRIB = "vmware-vix-disklib-distrib"
IMAGE = "registry.example.com:5000/team/vddk:8.0.3"
#: Keeps images as files in $STORE, one a tag with its label, and a line for each call. $FAIL is what the registry answers instead.
PROGRAM = """\
#!{python}
import json, os, pathlib, re, sys
store, argv = pathlib.Path(os.environ["STORE"]), sys.argv[1:]
with open(store / "calls", "a") as f:
    f.write(json.dumps([pathlib.Path(sys.argv[0]).name, *argv]) + "\\n")
here, there = (store / (w + re.sub("[^A-Za-z0-9.]", "_", argv[-1])) for w in ("local-", "pushed-"))
if argv[0] == "pull":
    if os.environ.get("FAIL"):
        sys.exit(os.environ["FAIL"])
    if not there.exists():
        sys.exit("Error: initializing source: reading manifest 8.0.3: manifest unknown: manifest unknown")
    here.write_text(there.read_text())
elif "inspect" in argv:
    labels = json.loads(here.read_text()) if here.exists() else sys.exit("no such image")
    print(json.dumps([{{"Labels": labels}}] if argv[0] == "image" else {{"OCIv1": {{"config": {{"Labels": labels}}}}}}))
elif argv[0] == "build":
    key, value = argv[argv.index("--label") + 1].split("=", 1)
    tag = store / ("local-" + re.sub("[^A-Za-z0-9.]", "_", argv[argv.index("--tag") + 1]))
    tag.write_text(json.dumps({{key: value}}))
    context = pathlib.Path(argv[-1])
    (store / "context").write_text("\\n".join(sorted(str(p.relative_to(context)) for p in context.rglob("*"))))
    (store / "Containerfile").write_text((context / "Containerfile").read_text())
elif argv[0] == "push":
    there.write_text(here.read_text())
"""


def tarball(folder: Path, version: str = "8.0.3") -> Path:
    made = folder / DISTRIB
    (made / "lib64").mkdir(parents=True)
    if version:
        (made / "lib64" / f"libvixDiskLib.so.{version}").write_bytes(b"\x7fELF")
        (made / "lib64" / f"libvixDiskLib.so.{version[0]}").symlink_to(f"libvixDiskLib.so.{version}")
    path = folder / f"VMware-vix-disklib-{version or 'none'}-1.x86_64.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(made, DISTRIB)
    shutil.rmtree(made)
    return path


class Play:
    def __init__(self, top: Path, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.programs = folder / "bin"
        for made in (self.store, self.programs):
            made.mkdir()
        self.environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(top.parents[2]),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "STORE": str(self.store),
        }

    def fake(self, *names: str) -> None:
        """Programs that come before what the machine has."""
        for name in names:
            (self.programs / name).write_text(PROGRAM.format(python=sys.executable))
            (self.programs / name).chmod(0o755)
        self.environment["PATH"] = f"{self.programs}:{self.environment['PATH']}"

    def __call__(self, path: Path, *options: str, ok: bool = True, fail: str = "", **more: Any) -> tuple[int, str]:
        """(tasks that changed something, all that was said)."""
        variables = {
            "ansible_python_interpreter": sys.executable,
            "ferry_vddk_image": IMAGE,
            "ferry_vddk_tarball": str(path),
            "ferry_vddk_checksum": hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64,
            **more,
        }
        file = self.folder / "variables.yml"
        file.write_text(yaml.safe_dump(variables))
        done = subprocess.run(
            [str(PLAYBOOK), "ferry.vmware.vddk_image", "-i", "localhost,", "-c", "local", "-e", f"@{file}", *options],
            env=self.environment | ({"FAIL": fail} if fail else {}),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        said = " ".join((done.stdout + done.stderr).split())
        assert (done.returncode == 0) is ok, said
        found = re.search(r"changed=(\d+)", said)
        return int(found[1]) if found else -1, said

    def calls(self) -> list[list[str]]:
        """What was asked of the programs since the last time, without questions for their version."""
        file = self.store / "calls"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        return [row for row in rows if "--version" not in row]


@pytest.fixture
def play(top: Path, tmp_path: Path) -> Play:
    if not PLAYBOOK.exists():
        pytest.skip("ansible-playbook is not installed")
    return Play(top, tmp_path)


def test_built_once_and_pushed(play: Play, tmp_path: Path) -> None:
    play.fake("podman", "buildah")
    path = tarball(tmp_path)
    login = tmp_path / "auth.json"
    changed, said = play(path, ferry_vddk_image_authfile=str(login))
    assert changed > 0 and f"{IMAGE} was made" in said
    access = ["--authfile", str(login), "--tls-verify=true"]
    pull, build, push = play.calls()
    assert pull == ["podman", "pull", "--quiet", *access, IMAGE]
    assert build[: 2 + len(access)] == ["podman", "build", *access]
    assert push == ["podman", "push", *access, IMAGE]
    context = (play.store / "context").read_text().splitlines()
    assert context[:2] == ["Containerfile", DISTRIB] and f"{DISTRIB}/lib64/libvixDiskLib.so.8.0.3" in context
    assert f"COPY {DISTRIB} /{DISTRIB}" in (play.store / "Containerfile").read_text()
    assert not Path(build[-1]).exists()
    # A second run, with the other program too: it is there, by the label that it carries.
    assert play(path)[0] == 0
    assert [c[:2] for c in play.calls()] == [["podman", "pull"], ["podman", "image"]]


@pytest.mark.long
def test_another_tarball_with_the_same_tag(play: Play, tmp_path: Path) -> None:
    play.fake("podman", "buildah")
    path = tarball(tmp_path)
    assert play(path, "--check", vddk_image_tool="buildah")[0] > 0
    assert [c[:2] for c in play.calls()] == [["buildah", "pull"]]
    play(path, vddk_image_tool="buildah")
    assert [c[:2] for c in play.calls()] == [["buildah", "pull"], ["buildah", "build"], ["buildah", "push"]]
    assert play(path, vddk_image_tool="buildah")[0] == 0
    newer = tarball(tmp_path, "8.0.4")
    play.calls()
    assert "was not made of this tarball" in play(newer, ok=False)[1]
    assert "build" not in [c[1] for c in play.calls()]
    assert play(newer, vddk_image_replace=True)[0] > 0


@pytest.mark.long
def test_what_cannot_be(play: Play, tmp_path: Path) -> None:
    play.fake("podman")
    path = tarball(tmp_path)
    assert "has to be the SHA-256" in play(path, ok=False, ferry_vddk_checksum="abc")[1]
    assert "with its registry and a tag" in play(path, ok=False, ferry_vddk_image="vddk")[1]
    assert "has the SHA-256" in play(path, ok=False, ferry_vddk_checksum="0" * 64)[1]
    assert "is not there" in play(tmp_path / "none.tar.gz", ok=False)[1]
    assert "needs 8.0.1" in play(tarball(tmp_path, "7.0.3"), ok=False)[1]
    assert "no VDDK for Linux" in play(tarball(tmp_path, ""), ok=False)[1]
    assert "unauthorized" in play(path, ok=False, fail="Error: unauthorized: access to the requested resource is not authorized")[1]
    assert {c[1] for c in play.calls()} == {"pull"}
    for name in ("podman", "buildah"):
        (play.programs / name).write_text("#!/bin/sh\nexit 127\n")
        (play.programs / name).chmod(0o755)
    assert "install podman or buildah" in play(path, ok=False)[1]


REGISTRY = shutil.which("docker-registry")


@pytest.mark.long
@pytest.mark.skipif(
    not REGISTRY or not shutil.which("buildah") or not Path("/bin/busybox").exists() or os.getuid() != 0,
    reason="buildah, docker-registry or busybox is not installed, or this is not root",
)
def test_the_real_buildah_and_a_registry(play: Play, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    where = f"127.0.0.1:{port}"
    config = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}, "http": {"addr": where}}
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(config))
    images = ["--root", str(tmp_path / "images"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]
    play.environment |= {"BUILDAH_ISOLATION": "chroot"}
    # The machine's own images are left alone.
    (play.programs / "buildah").write_text(f'#!/bin/sh\nexec {shutil.which("buildah")} {" ".join(images)} "$@"\n')
    (play.programs / "buildah").chmod(0o755)
    play.environment["PATH"] = f"{play.programs}:{play.environment['PATH']}"

    def buildah(*words: str) -> str:
        done = subprocess.run([play.programs / "buildah", *words], env=play.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with open(tmp_path / "registry.log", "wb") as log:
        server = subprocess.Popen([str(REGISTRY), "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end and server.poll() is None
                time.sleep(0.1)
        # No base image can be had without a network: one with a shell is made.
        made = buildah("from", "scratch")
        for name in ("sh", "mkdir", "cp"):
            buildah("copy", made, "/bin/busybox", f"/bin/{name}")
        buildah("config", "--env", "PATH=/bin", made)
        buildah("commit", made, f"{where}/base:1")
        buildah("push", "--tls-verify=false", f"{where}/base:1")
        wanted = {
            "ferry_vddk_image": f"{where}/team/vddk:8.0.3",
            "vddk_image_base": f"{where}/base:1",
            "vddk_image_validate_certs": False,
            "vddk_image_tool": "buildah",
        }
        path = tarball(tmp_path)
        assert play(path, **wanted)[0] > 0
        assert play(path, **wanted)[0] == 0
        root = Path(buildah("mount", buildah("from", "--tls-verify=false", str(wanted["ferry_vddk_image"]))))
        assert (root / DISTRIB / "lib64" / "libvixDiskLib.so.8").resolve().name == "libvixDiskLib.so.8.0.3"
        assert (root / "opt").is_dir()
    finally:
        server.terminate()
        server.wait()
