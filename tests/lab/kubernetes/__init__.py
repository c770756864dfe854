# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Kubernetes of the lab: builds etcd and kube-apiserver, starts them with the importers' CRDs and a stand-in for their controllers."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from .. import ca, vcenter
from ..common import BUILD, ROOT, LabError, Place, Process, port_is_free, write_private
from .api import CRD, Api, ApiError

SOURCE = Path(__file__).parent
API_OFFSET = 30
CONTROL_OFFSET = 31
ETCD_OFFSETS = (32, 33)
OFFSETS = (API_OFFSET, CONTROL_OFFSET, *ETCD_OFFSETS)
#: Module and package of each program; the versions stand in servers/go.mod.
PROGRAMS = {"etcd": "go.etcd.io/etcd/server/v3", "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"}


def version() -> str:
    """The release of Kubernetes, from servers/go.mod."""
    lines = (SOURCE / "servers" / "go.mod").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.split()[:1] == ["k8s.io/kubernetes"])


def programs() -> dict[str, Path]:
    """Where the programs lie, or will: by what decides them, so that every state of the tree that agrees in it shares them."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((SOURCE / "servers" / name).read_bytes() + b"\0")
    folder = BUILD / "bin" / f"kubernetes-{version()}-{digest.hexdigest()[:12]}"
    return {name: folder / name for name in PROGRAMS}


def build() -> dict[str, Path]:
    """Build etcd and kube-apiserver with Go, unless they are there. Minutes, and some 2 GB of memory, the first time.

    Raises LabError with the end of Go's output.
    """
    found = programs()
    folder = found["etcd"].parent
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two labs that start at once build once
        if all(path.exists() for path in found.values()):
            return found
        release = version()
        major, minor = release[1:].split(".")[:2]
        stamp = {"gitVersion": release, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean", "gitCommit": "unknown"}
        flags = " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{k}={v}" for k, v in stamp.items())])
        for name, package in PROGRAMS.items():
            print(f"building {found[name].relative_to(BUILD.parent)}: minutes, once", file=sys.stderr)
            argv = [vcenter.go(), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags]
            done = subprocess.run(
                [*argv, "-o", f"{found[name]}.new", package],
                cwd=SOURCE / "servers",
                env={**os.environ, "CGO_ENABLED": "0"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise LabError(f"{name} was not built:\n{done.stderr[-4000:]}")
            os.replace(f"{found[name]}.new", found[name])
    return found


def crds(*folders: str) -> list[dict[str, Any]]:
    """The definitions in C(crds) (the importers' own) and C(crds_own) (what they need beside them), or in one of both."""
    found = [p for folder in folders or ("crds", "crds_own") for p in sorted((SOURCE / folder).glob("*.yaml"))]
    return [yaml.safe_load(p.read_text(encoding="utf-8")) for p in found]


class Kubernetes:
    """One API server with etcd and the stand-ins in a lab's state folder. Each start begins with an empty etcd."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.state / "kubernetes"
        self.etcd = Process(self.folder, "etcd")
        self.server = Process(self.folder, "kube-apiserver")
        self.process = Process(self.folder, "controllers")
        self.port = place.base + API_OFFSET
        self.control_port = place.base + CONTROL_OFFSET
        self.etcd_ports = tuple(place.base + offset for offset in ETCD_OFFSETS)

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.place.state / "ca.pem"

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    def token(self) -> str:
        return self.token_file.read_text(encoding="ascii").strip()

    def api(self) -> Api:
        return Api(self.port, self.ca_file, self.token())

    def up(self) -> None:
        """Start it; nothing happens when it runs already. Raises LabError: a busy port, a program that was not built."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.process.pid() is None:
                self._up()

    def _up(self) -> None:
        found = build()
        self._stop()
        for port in (self.port, self.control_port, *self.etcd_ports):
            if not port_is_free(port):
                raise LabError(f"port {port} is in use: set FERRY_LAB_BASE to another base than {self.place.base}")
        _ca, cert, key = ca.ensure(self.place.state)
        for process in (self.etcd, self.server, self.process):
            process.log_file.unlink(missing_ok=True)
        try:
            self._start_etcd(found["etcd"], cert, key)
            self.start_server()
            self._load_crds()
            self._start_controllers()
        except BaseException:
            self._stop()
            raise

    def _start_etcd(self, program: Path, cert: Path, key: Path) -> None:
        data = self.folder / "etcd"
        shutil.rmtree(data, ignore_errors=True)
        client, peer = (f"https://127.0.0.1:{port}" for port in self.etcd_ports)
        # Only who has the lab's certificate may talk to it: the file is 0600.
        tls = [f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={self.ca_file}", "--client-cert-auth=true"]
        peers = [
            f"--peer-cert-file={cert}",
            f"--peer-key-file={key}",
            f"--peer-trusted-ca-file={self.ca_file}",
            "--peer-client-cert-auth=true",
        ]
        urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
        member = ["--name=lab", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=lab={peer}"]
        # Nothing of it has to outlive the machine.
        self.etcd.start([str(program), f"--data-dir={data}", "--unsafe-no-fsync=true", "--log-level=warn", *urls, *member, *tls, *peers])
        self.etcd.wait_ready(lambda: not port_is_free(self.etcd_ports[0]), 60)

    def start_server(self) -> None:
        """Start the API server alone, over the etcd that runs: after L(stop_server), or at first."""
        cert, key = self.place.state / "tls" / "server.pem", self.place.state / "tls" / "server.key"
        tokens = self.folder / "tokens.csv"
        if not tokens.exists():
            token = secrets.token_urlsafe(24)
            write_private(self.token_file, token + "\n")
            write_private(tokens, f'{token},admin,1,"system:masters"\n')
            self._make_service_account_key()
        account = self.folder / "sa.key"
        self.server.start(
            [
                str(programs()["kube-apiserver"]),
                f"--etcd-servers=https://127.0.0.1:{self.etcd_ports[0]}",
                f"--etcd-cafile={self.ca_file}",
                f"--etcd-certfile={cert}",
                f"--etcd-keyfile={key}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self.port}",
                f"--cert-dir={self.folder / 'certs'}",
                f"--tls-cert-file={cert}",
                f"--tls-private-key-file={key}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={account.with_suffix('.pub')}",
                f"--service-account-signing-key-file={account}",
                "--service-cluster-ip-range=10.96.0.0/24",
                "--authorization-mode=AlwaysAllow",
                f"--token-auth-file={tokens}",
                "--endpoint-reconciler-type=none",
                "--enable-priority-and-fairness=false",
                "--profiling=false",
                # What these ask of comes from controllers that the lab does not have.
                "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,Priority,StorageObjectInUseProtection",
            ]
        )
        api = self.api()

        def ready() -> bool:
            try:
                api.call("GET", "/apis")
            except (OSError, ApiError):
                return False
            return True

        self.server.wait_ready(ready, 120)
        api.close()

    def stop_server(self) -> bool:
        """Stop the API server alone, as when it is away for a while; what it knows stays in etcd."""
        return self.server.stop(20)

    def _make_service_account_key(self) -> None:
        serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
        ec = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ec")
        key = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_private(self.folder / "sa.key", key.private_bytes(*form).decode("ascii"))
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_private(self.folder / "sa.pub", public.decode("ascii"))

    def _load_crds(self) -> None:
        api = self.api()
        try:
            definitions = crds()
            for one in definitions:
                api.create(CRD, "", one)
            wanted = {one["metadata"]["name"] for one in definitions}

            def established() -> bool:
                found = {
                    o["metadata"]["name"]
                    for o in api.list(CRD)
                    if any(c["type"] == "Established" and c["status"] == "True" for c in (o.get("status") or {}).get("conditions") or [])
                }
                return wanted <= found

            self.server.wait_ready(established, 60)
        except ApiError as e:
            raise LabError(f"a CRD was refused: {e}") from e
        finally:
            api.close()

    def _start_controllers(self) -> None:
        config = {"port": self.port, "control_port": self.control_port, "ca": str(self.ca_file), "token": self.token()}
        file = self.folder / "controllers.json"
        write_private(file, json.dumps(config))
        self.process.start([sys.executable, "-m", "tests.lab.kubernetes", str(file)], cwd=ROOT)
        self.process.wait_ready(self.ready, 60)

    def ready(self) -> bool:
        try:
            return bool(self.get("/state")["ready"])
        except (OSError, ValueError):
            return False

    def _stop(self) -> bool:
        # The API server goes before etcd: without it, it would try again until its end.
        return any([self.process.stop(), self.server.stop(20), self.etcd.stop(20)])

    def down(self) -> bool:
        """Stop it; False when it did not run."""
        return self._stop()

    def status(self) -> list[tuple[str, str]]:
        pid = self.server.pid()
        if pid is None:
            return [("kubernetes", "stopped")]
        return [("kubernetes", f"{version()} running, pid {pid}, {self.url}, control {self.control}")]

    def env(self) -> dict[str, str]:
        """What clients read from the environment."""
        return {
            "K8S_AUTH_HOST": self.url,
            "K8S_AUTH_API_KEY": self.token(),
            "K8S_AUTH_SSL_CA_CERT": str(self.ca_file),
            "K8S_AUTH_VERIFY_SSL": "true",
            "FERRY_KUBERNETES_CONTROL": self.control,
        }

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(self.control + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as e:
            raise LabError(f"{method} {path}: {e.code} {e.read().decode('utf-8', 'replace').strip()}") from e
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """GET of the control port: /state, /switches."""
        return self._call("GET", path)

    def switch(self, **values: Any) -> dict[str, Any]:
        """Set switches by name: see README.md beside this file."""
        return self._call("POST", "/switches", values)

    def clear(self) -> None:
        """All switches as they were at the start."""
        self._call("DELETE", "/switches")
