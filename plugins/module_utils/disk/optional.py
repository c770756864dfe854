# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guarded imports. They go through importlib, so that AnsiballZ does not look for third-party code to bundle."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from importlib.machinery import EXTENSION_SUFFIXES
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


def distributed(module: str, extension: str, *, package: str, rpm: str) -> Any:
    """Import C(module) (a file and its C(extension), in C) that distributions package and PyPI does not have.

    A virtual environment does not see the distribution's folder. Only these two files are taken from there, and only where the
    extension was built for this Python's ABI.

    :raises MissingLibrary: with the command that installs C(package) (Debian) or C(rpm) (Fedora, RHEL).
    """
    said: object = "not found"
    try:
        return importlib.import_module(module)
    except ImportError as e:
        said = e
    for folder in _distribution_folders():
        built = [
            name for suffix in EXTENSION_SUFFIXES if suffix != ".so" and os.path.exists(name := os.path.join(folder, extension + suffix))
        ]
        source = os.path.join(folder, f"{module}.py")
        if built and os.path.exists(source):
            try:
                _load(extension, built[0])
                return _load(module, source)
            except ImportError as e:
                said = e
    raise MissingLibrary(
        f"The Python library {module} ({package}) is needed on this machine by {sys.executable}; it is built for the distribution's own Python.",
        said=said,
        next_command=f"apt-get install {package} (Fedora, RHEL: dnf install {rpm}); where this Python is another version than the"
        " distribution's, set ansible_python_interpreter to that of the distribution",
        library=module,
    )


def _distribution_folders() -> list[str]:
    """Where distributions keep Python's libraries: Debian's own folder, and the site-packages below /usr."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return ["/usr/lib/python3/dist-packages", *(f"/usr/{lib}/{version}/site-packages" for lib in ("lib64", "lib"))]


def _load(name: str, path: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded", name=name, path=path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


def have(module: str) -> Any | None:
    """C(module) where it can be imported, else None."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
