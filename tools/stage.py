# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stage the working tree (tracked and new files, not ignored ones) as ROOT/ansible_collections/ferry/vmware.

Files are replaced one by one and only where they differ (size, mtime or mode), each by rename: a test that runs in the
stage meanwhile sees the old or the new file, never half of one, and a second staging of the same tree writes nothing.
The stage is a git repository of its own, because ansible-test asks the nearest one which files there are: in the
project's repository it would find all of build/ ignored, test nothing and call that success.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def listed(folder: Path, *options: str) -> set[str]:
    """Files that git lists in C(folder), relative to it."""
    out = subprocess.run(["git", "-C", str(folder), "ls-files", "-z", *options], check=True, capture_output=True).stdout
    return {name for name in out.decode().split("\0") if name}


def same(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_size, a.st_mtime_ns, stat.S_IMODE(a.st_mode)) == (b.st_size, b.st_mtime_ns, stat.S_IMODE(b.st_mode))


def put(source: Path, target: Path) -> bool:
    """Make C(target) a copy of C(source); true where it had to be written."""
    try:
        wanted = source.lstat()
    except FileNotFoundError:  # an editor's short-lived file, gone since git listed it
        return False
    if target.is_symlink() or target.exists():
        if not source.is_symlink() and same(wanted, target.lstat()):
            return False
        if source.is_symlink() and target.is_symlink() and os.readlink(source) == os.readlink(target):
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.staging")
    try:
        shutil.copy2(source, temporary, follow_symlinks=False)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def remove(stage: Path, name: str) -> None:
    """Remove the file C(name) and the folders that it leaves empty."""
    path = stage / name
    path.unlink(missing_ok=True)
    for folder in path.relative_to(stage).parents:
        try:
            (stage / folder).rmdir()
        except OSError:
            return


def main(root: Path) -> None:
    stage = root.resolve() / "ansible_collections" / "ferry" / "vmware"
    stage.mkdir(parents=True, exist_ok=True)
    with open(root / ".stage.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stage / ".git").is_dir():
            subprocess.run(["git", "init", "-q", str(stage)], check=True)
        files = {name for name in listed(TOP, "-co", "--exclude-standard", "--deduplicate") if os.path.lexists(TOP / name)}
        gone = listed(stage) - files
        for name in gone:
            remove(stage, name)
        written = sum([put(TOP / name, stage / name) for name in sorted(files)])
        if written or gone or not (stage / ".git" / "index").exists():
            subprocess.run(["git", "-C", str(stage), "add", "-A"], check=True)
    print(stage)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TOP / "build" / "collections")
