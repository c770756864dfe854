# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""C(python3 -m disk.vmdk): the engine without Ansible.

Exit code 0: done; 1: refused, with one line on stderr; 2: wrong usage. C(convert) takes C(-) for the standard streams; where
standard output carries the disk, the result goes to stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from types import FrameType
from typing import Any, Callable, TextIO

from ..controllers import VMDK_ADAPTERS
from ..errors import FerryError, bounded
from .convert import convert, digest_of, opened
from .fifo import STANDARD
from .info import HYPERVISORS, inspect
from .outputs import FORMATS

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _from(low: int, high: int) -> Callable[[str], int]:
    """A type for argparse: a number from C(low) to C(high)."""

    def number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}")
        return value

    return number


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
    conv.add_argument("src", help="any VMDK, OVA member, raw or qcow2 file, a FIFO, or - for standard input")
    conv.add_argument("dest", help="the file to write, a FIFO, or - for standard output")
    conv.add_argument("--format", choices=FORMATS, required=True)
    conv.add_argument("--adapter-type", choices=VMDK_ADAPTERS)
    conv.add_argument("--hw-version", type=_from(1, 99), metavar="1-99")
    conv.add_argument("--compression-level", type=int, choices=range(1, 10), metavar="1-9")
    conv.add_argument("--thick", action="store_true", help="allocate all blocks")
    conv.add_argument("--checksum", choices=["sha256"])
    conv.add_argument("--salvage", action="store_true", help="save what can be saved of a damaged VMDK, and list what is lost")
    conv.add_argument("--force", action="store_true", help="over a dest that is something else")
    for sub in (check, conv):
        sub.add_argument("--threads", type=_from(1, 256), metavar="1-256")
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
    if facts["salvage"] is not None:
        _say(f"salvage: {bounded(facts['salvage']['how'])}")


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
            salvage=args.salvage,
        )
        for text in result["problems"]:
            _say(f"warning: {bounded(text)}", sys.stderr)
        _say(json.dumps(result), sys.stderr if args.dest == STANDARD else sys.stdout)


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop as Ctrl-C does; what is cleaned up then is not disturbed by a second signal."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _streams() -> None:
    """Make sure that there are three standard streams, and that whatever is said can be written to them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken: this one. Nothing else may be opened under it later.
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _silence(number: int) -> None:
    """What is still buffered for the standard stream C(number) would fail again at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _refused(path: str, why: object) -> int:
    try:
        _say(f"vmdk: {bounded(path, 200)}: {bounded(why, 800)}", sys.stderr)
        sys.stderr.flush()
    except OSError:
        _silence(2)
    return 1


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    _streams()
    args = _parser().parse_args(argv)
    path = args.src if args.verb == "convert" else args.file
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        _run(args)
        sys.stdout.flush()
    except FerryError as e:
        return _refused(path, e)
    except KeyboardInterrupt:
        return _refused(path, "interrupted")
    except OSError as e:
        _silence(1)
        gone = isinstance(e, BrokenPipeError)
        return _refused(path, "whoever read standard output has gone" if gone else e.strerror or e)
    except (MemoryError, RecursionError) as e:
        return _refused(path, f"it takes more than this machine gives ({type(e).__name__})")
    return 0
