# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""C(python3 -m disk.vmdk): the engine without Ansible.

Exit code 0: done; 1: refused, with one line on stderr; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TextIO

from ..controllers import VMDK_ADAPTERS
from ..errors import FerryError, bounded
from .convert import FORMATS, convert, digest_of, opened
from .info import HYPERVISORS, inspect


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m disk.vmdk", description="Read, check and convert VMDK disks.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    info = verbs.add_parser("info", help="say what a disk file is")
    info.add_argument("file")
    info.add_argument("--json", action="store_true", help="all facts, as JSON")
    info.add_argument("--deep", action="store_true", help="decode every grain")
    info.add_argument("--hypervisor", choices=HYPERVISORS, default="vmware", help="whom the verdict for Glance is for")
    check = verbs.add_parser("check", help="decode every grain; fail on the first that is wrong")
    check.add_argument("file")
    conv = verbs.add_parser("convert", help="write a disk in another format")
    conv.add_argument("src")
    conv.add_argument("dest")
    conv.add_argument("--format", choices=FORMATS, required=True)
    conv.add_argument("--adapter-type", choices=VMDK_ADAPTERS)
    conv.add_argument("--hw-version", type=int)
    conv.add_argument("--compression-level", type=int, choices=range(1, 10), metavar="1-9")
    conv.add_argument("--thick", action="store_true", help="allocate all blocks")
    conv.add_argument("--checksum", choices=["sha256"])
    conv.add_argument("--force", action="store_true", help="over a dest that is something else")
    for sub in (check, conv):
        sub.add_argument("--threads", type=int)
    for sub in (info, check, conv):
        sub.add_argument("--allow-extent", action="append", default=[], metavar="PATH", help="a file or folder the descriptor may name")
    return parser


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(text + "\n")


def _show(facts: dict[str, Any]) -> None:
    for key in ("format", "create_type", "adapter_type", "hw_version", "capacity", "allocated", "encrypted", "parent"):
        _say(f"{key}: {bounded(facts[key])}")
    for extent in facts["extents"]:
        _say(f"extent: {extent['access']} {extent['type']} {extent['size']} bytes {bounded(extent['name'])}")
    verdict = facts["glance"]
    _say(f"glance: {'accepted' if verdict['accepted'] else 'not accepted'} as {verdict['disk_format']}, bootable: {verdict['bootable']}")
    for reason in verdict["reasons"]:
        _say(f"  {bounded(reason)}")
    for p in facts["problems"]:
        where = "".join(f" {k} {bounded(p[k], 120)}" for k in ("offset", "found", "expected") if k in p)
        _say(f"{p['severity']}: {bounded(p['message'])}{where}")


def _run(args: argparse.Namespace) -> None:
    if args.verb == "info":
        facts = inspect(args.file, args.hypervisor, args.deep, allow_extents=args.allow_extent)
        if args.json:
            _say(json.dumps(facts, indent=2))
        else:
            _show(facts)
        broken = next((p for p in facts["problems"] if p["severity"] == "error"), None)
        if broken is not None:
            where = f" at byte {broken['offset']}" if "offset" in broken else ""
            raise FerryError(f"{broken['message']}{where}")
    elif args.verb == "check":
        with opened(args.file, None, allow_extents=args.allow_extent) as disk:
            digest = digest_of(disk, threads=args.threads)
            for text in disk.problems:
                _say(f"warning: {bounded(text)}")
            _say(f"{bounded(args.file, 200)}: {disk.capacity} bytes, {digest}")
    else:
        result = convert(
            args.src,
            args.dest,
            format=args.format,
            adapter_type=args.adapter_type,
            hw_version=args.hw_version,
            compression_level=args.compression_level,
            threads=args.threads,
            thin=not args.thick,
            checksum=args.checksum,
            allow_extents=args.allow_extent,
            force=args.force,
        )
        for text in result["problems"]:
            _say(f"warning: {bounded(text)}", sys.stderr)
        _say(json.dumps(result))


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    path = args.src if args.verb == "convert" else args.file
    try:
        _run(args)
    except FerryError as e:
        _say(f"vmdk: {bounded(path, 200)}: {bounded(e, 800)}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        _say(f"vmdk: {bounded(path, 200)}: interrupted", sys.stderr)
        return 1
    return 0
