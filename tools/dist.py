# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's archive, from a stage made for it, the same bytes for the same tree.

python3 tools/dist.py FOLDER    writes FOLDER/ferry-vmware-VERSION.tar.gz and, beside it, its SHA-256 in the form of sha256sum

What ansible-galaxy builds has the times at which its files were staged, in the order of the file system. It is packed anew: sorted, owned by
nobody, dated with the release's day in changelogs/changelog.yaml (or SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parent.parent


def day(version: str) -> int:
    """Seconds since 1970 of the release's day; of 1980 where the changelog does not have it yet (zip and others know nothing before)."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    releases = yaml.safe_load((TOP / "changelogs" / "changelog.yaml").read_text(encoding="utf-8"))["releases"]
    date = str(releases.get(version, {}).get("release_date") or "1980-01-01")
    return int(datetime.fromisoformat(date).replace(tzinfo=timezone.utc).timestamp())


def described(content: dict[str, bytes]) -> dict[str, bytes]:
    """C(content) with the list of files sorted, and its digest in the manifest made right again."""
    files: dict[str, Any] = json.loads(content["FILES.json"])
    files["files"].sort(key=lambda row: str(row["name"]))
    listed = json.dumps(files, indent=1).encode()
    manifest: dict[str, Any] = json.loads(content["MANIFEST.json"])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(listed).hexdigest()
    return content | {"FILES.json": listed, "MANIFEST.json": json.dumps(manifest, indent=1).encode()}


def packed(archive: Path, when: int) -> bytes:
    """The archive's content, packed so that nothing but the content decides its bytes."""
    modes: dict[str, int] = {}
    folders: dict[str, int] = {}
    links: dict[str, str] = {}
    content: dict[str, bytes] = {}
    with tarfile.open(archive) as given:
        for member in given.getmembers():
            if member.isfile():
                reader = given.extractfile(member)
                content[member.name] = reader.read() if reader is not None else b""
                modes[member.name] = 0o755 if member.mode & 0o100 else 0o644
            elif member.isdir():
                folders[member.name] = 0o755
            elif member.issym():
                links[member.name] = member.linkname
            else:
                raise SystemExit(f"{member.name} has no place in a collection: no file, folder or symbolic link")
    content = described(content)
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0, compresslevel=9) as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as made:
            # The manifest stands first: Galaxy reads it without unpacking the rest.
            for name in sorted({*content, *folders, *links}, key=lambda n: (n != "MANIFEST.json", n != "FILES.json", n)):
                info = tarfile.TarInfo(name)
                info.mtime = when
                if name in folders:
                    info.type, info.mode = tarfile.DIRTYPE, folders[name]
                    made.addfile(info)
                elif name in links:
                    info.type, info.linkname = tarfile.SYMTYPE, links[name]
                    made.addfile(info)
                else:
                    info.mode, info.size = modes[name], len(content[name])
                    made.addfile(info, io.BytesIO(content[name]))
    return out.getvalue()


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    version = str(yaml.safe_load((TOP / "galaxy.yml").read_text(encoding="utf-8"))["version"])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".stage-") as work:
        stage = subprocess.run(
            [sys.executable, str(TOP / "tools" / "stage.py"), work], check=True, capture_output=True, text=True
        ).stdout.strip()
        galaxy = str(Path(sys.executable).parent / "ansible-galaxy")
        subprocess.run([galaxy, "collection", "build", "--output-path", work, stage], check=True, stdout=subprocess.DEVNULL)
        data = packed(Path(work) / f"ferry-vmware-{version}.tar.gz", day(version))
    name = f"ferry-vmware-{version}.tar.gz"
    temporary = folder / f".{name}.new"
    temporary.write_bytes(data)
    temporary.replace(folder / name)
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"{name}.sha256").write_text(f"{digest}  {name}\n", encoding="ascii")
    dirty = subprocess.run(["git", "-C", str(TOP), "status", "--porcelain"], check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"{folder / name}  {len(data):,} bytes  sha256 {digest}")
    if dirty:
        print(f"{len(dirty)} files are not committed as they are in it: for a release, commit first")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
