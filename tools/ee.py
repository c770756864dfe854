# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The execution environment, with the collection that lies in build/dist instead of the one on Galaxy.

python3 tools/ee.py [--context-only] [MORE OPTIONS OF ansible-builder build]

The context (build/ee/context) needs nothing but ansible-builder; the build needs podman or docker and a way to the base image, to
Galaxy and to PyPI. Without a container engine this fails and says so, after the context was made.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parent.parent
SHIPPED = TOP / "extensions" / "execution_environment" / "execution-environment.yml"
EE = TOP / "build" / "ee"
ENGINES = ("podman", "docker")


def definition(archive: Path) -> dict[str, Any]:
    """What is shipped, with ferry.vmware from C(archive): ansible-builder copies that below /build of the stage that installs."""
    found: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    collections = found["dependencies"]["galaxy"]["collections"]
    others = [entry for entry in collections if entry["name"] != "ferry.vmware"]
    found["dependencies"]["galaxy"]["collections"] = [{"name": f"/build/archives/{archive.name}", "type": "file"}, *others]
    found["additional_build_files"] = [{"src": str(archive), "dest": "archives"}]
    return found


def tag(archive: Path) -> str:
    """ferry-ee:VERSION."""
    return f"ferry-ee:{archive.name.removeprefix('ferry-vmware-').removesuffix('.tar.gz')}"


def main(arguments: list[str]) -> int:
    archives = sorted((TOP / "build" / "dist").glob("ferry-vmware-*.tar.gz"))
    if len(archives) != 1:
        print("make dist first: one archive is wanted in build/dist", file=sys.stderr)
        return 1
    EE.mkdir(parents=True, exist_ok=True)
    file = EE / "execution-environment.yml"
    file.write_text(yaml.safe_dump(definition(archives[0]), sort_keys=False), encoding="utf-8")
    builder = str(Path(sys.executable).parent / "ansible-builder")
    common = ["-f", str(file), "-c", str(EE / "context")]
    if "--context-only" in arguments:
        return subprocess.run([builder, "create", *common], check=False).returncode
    engine = next((e for e in ENGINES if shutil.which(e)), None)
    if engine is None:
        code = subprocess.run([builder, "create", *common, "--output-filename", "Containerfile"], check=False).returncode
        print(
            f"The context is in {(EE / 'context').relative_to(TOP)}, but there is neither {' nor '.join(ENGINES)} to build it with.",
            file=sys.stderr,
        )
        print("Install with:\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends podman", file=sys.stderr)
        return code or 1
    return subprocess.run(
        [builder, "build", *common, "-t", tag(archives[0]), "--container-runtime", engine, *arguments], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
