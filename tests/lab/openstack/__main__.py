# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m tests.lab.openstack stop|start SERVICE``: one service of the lab in FERRY_LAB_DIR fails and comes back."""

from __future__ import annotations

import argparse
import sys

from ..common import BUILD, LabError, Place
from . import OpenStack
from .layout import SERVICES


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab.openstack", description="Stop or start one service of the lab's OpenStack.")
    parser.add_argument("command", choices=("stop", "start"))
    parser.add_argument("service", choices=SERVICES)
    args = parser.parse_args(argv)
    try:
        place = Place.from_environment()
        lab = OpenStack(place.state / "openstack", BUILD / "venv-openstack", place.base)
        (lab.stop_service if args.command == "stop" else lab.start_service)(args.service)
    except LabError as e:
        print(f"lab: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
