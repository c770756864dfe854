# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of read budgets: checked, stored in one step, and looked up."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from .errors import BadInput

FILE = "budget.json"
#: One MB/s of a rate, in bytes per second.
MB = 1_000_000
OVERALL = "overall"
#: The name that stands for every host (or datastore) which has no entry of its own; each has a budget of its own all the same.
EACH = "*"
EMPTY: dict[str, Any] = {OVERALL: None, "hosts": {}, "datastores": {}}

_MAX_FILE = 1 << 20
_MAX_NAMES, _MAX_WINDOWS, _MAX_DISKS, _MAX_RATE = 10_000, 48, 4096, 1_000_000
_TIME = re.compile(r"^([01]?\d|2[0-4]):([0-5]\d)$")
_DAY = 86400


@dataclass(frozen=True)
class Window:
    """From C(begin) to C(end) (seconds of the day; over midnight where C(end) is not after C(begin)). Rates in bytes per second."""

    begin: int
    end: int
    rate: float | None
    disks: int | None

    def holds(self, day: float) -> bool:
        return self.begin <= day < self.end if self.begin < self.end else day >= self.begin or day < self.end


@dataclass(frozen=True)
class Limit:
    """What one scope may take; None: without a limit. C(rate): bytes per second, 0: nothing is read."""

    rate: float | None
    disks: int | None
    windows: tuple[Window, ...]

    def _window(self, day: float) -> Window | None:
        return next((w for w in self.windows if w.holds(day)), None)

    def rate_at(self, day: float) -> float | None:
        """The rate at C(day) seconds after midnight: that of the first window that holds, else the daily one."""
        window = self._window(day)
        return window.rate if window is not None else self.rate

    def disks_at(self, day: float) -> int | None:
        window = self._window(day)
        return window.disks if window is not None and window.disks is not None else self.disks


class Settings:
    """Checked settings, for looking up."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.plain = plain
        self._overall = _limit(plain[OVERALL])
        self._by_kind = {kind: {name: _limit(entry) for name, entry in plain[f"{kind}s"].items()} for kind in ("host", "datastore")}

    def scopes(self, host: str | None, datastore: str | None) -> Iterator[tuple[tuple[str, str], Limit]]:
        """((kind, name), limit) of all scopes that reading from there belongs to; one without settings has an empty limit."""
        yield (OVERALL, ""), self._overall
        for kind, name in (("host", host), ("datastore", datastore)):
            if name is not None:
                known = self._by_kind[kind]
                name = name.casefold() if kind == "host" else name
                yield (kind, name), known.get(name) or known.get(EACH) or _limit(None)


def _limit(entry: Mapping[str, Any] | None) -> Limit:
    entry = entry or {}
    windows = tuple(
        Window(_seconds(w["from"]), _seconds(w["to"]), None if w.get("rate") is None else w["rate"] * MB, w.get("disks"))
        for w in entry.get("windows", ())
    )
    rate = entry.get("rate")
    return Limit(None if rate is None else rate * MB, entry.get("disks"), windows)


def _seconds(text: str) -> int:
    hours, minutes = text.split(":")
    return (int(hours) * 3600 + int(minutes) * 60) % _DAY


# -- checking -------------------------------------------------------------------------------------------------------


def checked(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """C(settings) in full: C(overall) (a limit or None), C(hosts) and C(datastores) (limits by name, C(*) for each other one).

    A limit has C(rate) (MB/s of 1,000,000 bytes; absent: no limit; 0: nothing is read), C(disks) (at once) and C(windows): a list of
    C(from) and C(to) (HH:MM of the machine's local time, every day, over midnight where C(to) is not later), C(rate) and C(disks).

    :raises BadInput: says what is wrong where.
    """
    if settings is None:
        settings = {}
    _keys(settings, {OVERALL, "hosts", "datastores"}, "budget")
    found: dict[str, Any] = {OVERALL: _checked_limit(settings.get(OVERALL), OVERALL)}
    for kind in ("hosts", "datastores"):
        names = settings.get(kind) or {}
        if not isinstance(names, Mapping) or len(names) > _MAX_NAMES:
            raise _bad(kind, "limits by name")
        limits = {}
        for name, entry in names.items():
            if not isinstance(name, str) or not 0 < len(name) <= 255 or not name.isprintable():
                raise _bad(kind, "names of at most 255 characters", name)
            limits[name.casefold() if kind == "hosts" else name] = _checked_limit(entry, f"{kind}, {name}") or {}
        found[kind] = dict(sorted(limits.items()))
    return found


def _checked_limit(entry: Any, where: str) -> dict[str, Any] | None:
    if entry is None:
        return None
    _keys(entry, {"rate", "disks", "windows"}, where)
    found = _rate_and_disks(entry, where)
    windows = entry.get("windows") or []
    if not isinstance(windows, (list, tuple)) or len(windows) > _MAX_WINDOWS:
        raise _bad(where, f"windows is a list of at most {_MAX_WINDOWS}")
    out = []
    for window in windows:
        _keys(window, {"from", "to", "rate", "disks"}, f"{where}, windows")
        times = {}
        for end in ("from", "to"):
            match = _TIME.match(str(window.get(end)))
            if match is None or (match[1] == "24" and match[2] != "00"):
                raise _bad(f"{where}, windows", f"{end} is a time of the day, quoted: '08:30'", window.get(end))
            times[end] = f"{int(match[1]):02d}:{match[2]}"
        out.append({**times, **_rate_and_disks(window, f"{where}, windows")})
    if out:
        found["windows"] = out
    return found


def _rate_and_disks(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rate, disks = entry.get("rate"), entry.get("disks")
    if rate is not None:
        number = _number(rate)
        if number is None or not (number == 0 or 0.001 <= number <= _MAX_RATE):
            raise _bad(where, f"rate is 0 or a number of MB/s from 0.001 to {_MAX_RATE}", rate)
        found["rate"] = number
    if disks is not None:
        number = _number(disks)
        if number is None or number != int(number) or not 1 <= number <= _MAX_DISKS:
            raise _bad(where, f"disks is a whole number from 1 to {_MAX_DISKS}", disks)
        found["disks"] = int(number)
    return found


def _number(value: Any) -> float | None:
    """C(value) as a number; templates give numbers as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _keys(entry: Any, known: set[str], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise _bad(where, f"a dictionary with {', '.join(sorted(known))}", entry)
    unknown = sorted(str(key) for key in entry if key not in known)
    if unknown:
        raise _bad(where, f"known are {', '.join(sorted(known))}", ", ".join(unknown))


def _bad(where: str, expected: str, found: object | None = None) -> BadInput:
    return BadInput(f"The read budget cannot be: {where}.", step="read the budget", said=found, expected=expected)


# -- the file -------------------------------------------------------------------------------------------------------


def load_plain(folder: str) -> dict[str, Any]:
    """The settings in C(folder) as C(checked) gives them; those without any limit where there is no file.

    :raises BadInput: what stands there are no settings.
    """
    path = os.path.join(folder, FILE)
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return dict(EMPTY)
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput("The read budget's file cannot be read.", step="read the budget", said=e) from e
    try:
        if len(text) > _MAX_FILE:
            raise ValueError("too long")
        plain = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise BadInput("The read budget's file is not JSON.", step="read the budget", said=e, path=path) from e
    return checked(plain)


def load(folder: str) -> Settings:
    """As C(load_plain), for looking up."""
    return Settings(load_plain(folder))


def save(folder: str, settings: Mapping[str, Any] | None) -> bool:
    """Store C(settings) (see C(checked)) in one step; True where that changed something. None removes the file.

    Running copies take it over within a second.

    :raises BadInput: the settings cannot be.
    """
    path = os.path.join(folder, FILE)
    if settings is None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True
    found = checked(settings)
    try:
        if os.path.exists(path) and load_plain(folder) == found:
            return False
    except BadInput:
        pass  # what is there is none: it is replaced
    os.makedirs(folder, mode=0o700, exist_ok=True)
    new = os.path.join(folder, f".{FILE}.{secrets.token_hex(8)}")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            json.dump(found, f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, path)
    except OSError as e:
        raise BadInput("The read budget cannot be stored.", step="store the budget", said=e.strerror, path=path) from e
    return True
