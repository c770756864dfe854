# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install what the collection is built and tested with into build/, and nothing anywhere else.

    python3 tools/bootstrap.py PART...     parts: uv venv openstack rulebook collections

Each part has a stamp under build/.stamps with a hash of all that decides its content; a part whose stamp fits costs a
file read. Only the standard library is needed. Settings for pip (environment and pip.conf: index, CA, proxy) apply to
everything, also to uv, which does not read them itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Callable

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
UV_VENV = BUILD / "uv"
UV_VERSION = "0.13.9"
#: Releases of Python for which the versions in requirements/dev.lock exist.
PYTHONS = ((3, 11), (3, 13))
#: Galaxy is out of reach of many machines; PyPI's "ansible" carries the same collections.
COLLECTIONS = ("openstack/cloud", "vmware/vmware", "kubernetes/core", "awx/awx")


class Failed(Exception):
    """Said to the user without a traceback."""


def run(log: Path, *command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run C(command) with its output in C(log); on failure show the end of it."""
    with open(log, "a") as out:
        print("$", *command, file=out, flush=True)
        words = [str(c) for c in command]
        code = subprocess.run(words, cwd=TOP, env=env, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode
    if code:
        tail = "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-25:])
        raise Failed(f"{tail}\n{Path(command[0]).name} failed with code {code}; all of it is in {log.relative_to(TOP)}")


def pip_settings() -> dict[str, str]:
    """pip's settings as it sees them: files and environment, by their names without section (index-url, cert ...)."""
    out = subprocess.run([UV_VENV / "bin" / "python", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for line in out.splitlines():  # ":env:" comes last in pip's order of precedence, "install." narrows "global."
        name, value = line.split("=", 1)
        section, key = name.rsplit(".", 1)
        if section in ("global", "install", ":env:"):
            words = shlex.split(value)
            found[key] = words[0].strip() if words else ""
    return found


def uv_environment() -> dict[str, str]:
    """The environment for uv, with pip's settings under uv's names. What the user set for uv itself wins."""
    settings = pip_settings()
    env = dict(os.environ)
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "cert": "SSL_CERT_FILE",
        "trusted-host": "UV_INSECURE_HOST",
        "default-timeout": "UV_HTTP_TIMEOUT",
        "timeout": "UV_HTTP_TIMEOUT",
        "proxy": "ALL_PROXY",
    }
    for pip_name, uv_name in names.items():
        if settings.get(pip_name):
            env.setdefault(uv_name, " ".join(settings[pip_name].split()))
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        env.setdefault("UV_NO_INDEX", "1")
    env["UV_PYTHON_DOWNLOADS"] = "never"
    return env


def digest(*parts: bytes | str | Path) -> str:
    """One hash over texts and the contents of files."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def make_uv(log: Path) -> None:
    if not (UV_VENV / "bin" / "pip").exists():
        shutil.rmtree(UV_VENV, ignore_errors=True)
        try:
            import ensurepip  # noqa: F401 - only whether it is there: Debian ships it apart from python3
        except ImportError:
            raise Failed(f"{sys.executable} cannot make a virtual environment with pip in it: apt-get install python3-venv") from None
        run(log, sys.executable, "-m", "venv", UV_VENV)
    run(log, UV_VENV / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", f"uv=={UV_VERSION}")


def install(log: Path, venv: Path, *arguments: str | Path) -> None:
    """Let uv make C(venv) if need be, and run C(uv pip ARGUMENTS) on it."""
    uv, env = UV_VENV / "bin" / "uv", uv_environment()
    if not (venv / "bin" / "python").exists():
        run(log, uv, "venv", "--clear", "--python", sys.executable, venv, env=env)
    run(log, uv, "pip", arguments[0], "--python", venv / "bin" / "python", *arguments[1:], env=env)


def make_venv(log: Path) -> None:
    install(log, BUILD / "venv", "sync", TOP / "requirements" / "dev.lock")


def make_openstack(log: Path) -> None:
    install(log, BUILD / "venv-openstack", "install", "-r", TOP / "requirements" / "openstack.txt")


def make_libvirt(log: Path) -> None:
    """libvirt's binding into the venv of the services, where Nova looks for it."""
    install(log, BUILD / "venv-openstack", "install", "-r", TOP / "requirements" / "libvirt.txt")
    (BUILD / "venv-openstack" / "with-libvirt").touch()


def make_rulebook(log: Path) -> None:
    install(log, BUILD / "venv-rulebook", "install", "-r", TOP / "requirements" / "rulebook.txt")


def make_collections(log: Path) -> None:
    """Take COLLECTIONS out of the wheel that requirements/collections.txt names; pip checks its hash."""
    cache, target = BUILD / "cache", BUILD / "collections" / "ansible_collections"
    pip: list[str | Path] = [
        UV_VENV / "bin" / "python",
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
    ]
    run(log, *pip, "--dest", cache, "-r", TOP / "requirements" / "collections.txt")
    version = (TOP / "requirements" / "collections.txt").read_text().partition("ansible==")[2].split()[0]
    with zipfile.ZipFile(cache / f"ansible-{version}-py3-none-any.whl") as wheel:
        for name in COLLECTIONS:
            prefix = f"ansible_collections/{name}/"
            new = target / f".{name.replace('/', '.')}.new"
            shutil.rmtree(new, ignore_errors=True)
            wheel.extractall(new, [m for m in wheel.namelist() if m.startswith(prefix)])
            shutil.rmtree(target / name, ignore_errors=True)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (new / "ansible_collections" / name).rename(target / name)
            shutil.rmtree(new)


def requirement(name: str) -> Path:
    return TOP / "requirements" / name


def parts() -> dict[str, tuple[Callable[[Path], None], Path, list[str | Path], str]]:
    """Name: how it is made, what must be there afterwards, what decides its content, what it is."""
    python = sys.version.split()[0] + sys.base_prefix
    return {
        "uv": (make_uv, UV_VENV / "bin" / "uv", [python, UV_VERSION], "uv, the installer"),
        "venv": (make_venv, BUILD / "venv" / "bin" / "ansible", [python, requirement("dev.lock")], "tools and libraries (build/venv)"),
        "openstack": (
            make_openstack,
            BUILD / "venv-openstack" / "bin" / "nova-manage",
            [python, requirement("openstack.txt")],
            "OpenStack's services (build/venv-openstack)",
        ),
        "libvirt": (
            make_libvirt,
            BUILD / "venv-openstack" / "with-libvirt",
            [python, requirement("openstack.txt"), requirement("libvirt.txt")],
            "libvirt's binding for Nova",
        ),
        "rulebook": (
            make_rulebook,
            BUILD / "venv-rulebook" / "bin" / "ansible-rulebook",
            [python, requirement("rulebook.txt")],
            "ansible-rulebook (build/venv-rulebook)",
        ),
        "collections": (
            make_collections,
            BUILD / "collections" / "ansible_collections" / COLLECTIONS[-1],
            [requirement("collections.txt"), " ".join(COLLECTIONS)],
            "collections (build/collections)",
        ),
    }


def ensure(name: str) -> None:
    """Bring one part up to date; two at once wait for each other."""
    make, result, inputs, title = parts()[name]
    key = digest(*inputs)
    stamp, log = BUILD / ".stamps" / name, BUILD / "logs" / f"install-{name}.log"
    for folder in (stamp.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)

    def current() -> bool:
        return result.exists() and stamp.exists() and stamp.read_text() == key

    if current():
        return
    if name != "uv":
        ensure("uv")
    if name == "libvirt":
        ensure("openstack")
    with open(stamp.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if current():  # by the one waited for
            return
        started = time.monotonic()
        stamp.unlink(missing_ok=True)
        log.write_text("")
        make(log)
        if not result.exists():
            raise Failed(f"{result.relative_to(TOP)} is missing after all; see {log.relative_to(TOP)}")
        stamp.write_text(key)
        print(f"  ok    install {title:50} {time.monotonic() - started:6.1f} s", flush=True)


def main(names: list[str]) -> int:
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        low, high = (".".join(map(str, v)) for v in PYTHONS)
        print(f"Python {low} to {high} is needed, this is {sys.version.split()[0]}: make PYTHON=python3.x ...", file=sys.stderr)
        return 1
    try:
        for name in names:
            ensure(name)
    except Failed as e:
        print(f"  FAIL  install {name}\n{e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
