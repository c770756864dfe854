# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guarded imports. They go through importlib, so that AnsiballZ does not look for third-party code to bundle."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

from .errors import MissingLibrary


def version_of(package: str) -> tuple[int, ...]:
    """Leading numbers of the installed version of the distribution C(package); empty where it is not known."""
    from importlib import metadata  # slow to import, and seldom needed

    try:
        text = metadata.version(package)
    except metadata.PackageNotFoundError:
        return ()
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(n) for n in found.group().split(".")) if found else ()


def need(module: str, *, package: str | None = None, minimum: str | None = None) -> Any:
    """Import C(module) or raise MissingLibrary that names the distribution C(package) and how to install it."""
    name = package or module.split(".", maxsplit=1)[0]
    wanted = f"{name}>={minimum}" if minimum else name
    try:
        found = importlib.import_module(module)
    except ImportError as e:
        raise MissingLibrary(
            f"The Python library {name} is needed on this machine by {sys.executable}.",
            said=e,
            next_command=f"{sys.executable} -m pip install '{wanted}'",
            library=name,
        ) from e
    if minimum:
        have = version_of(name)
        if have and have < tuple(int(n) for n in minimum.split(".")):
            raise MissingLibrary(
                f"The Python library {name} is too old: {'.'.join(map(str, have))}, needed is {minimum} or later.",
                next_command=f"{sys.executable} -m pip install '{wanted}'",
                library=name,
            )
    return found


def have(module: str) -> Any | None:
    """C(module) where it can be imported, else None."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
