# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors for the control planes. They are defined in the data plane, which imports nothing above itself."""

from __future__ import annotations

from .disk.errors import BadInput, Busy, FerryError, Interrupted, MissingLibrary, SinkError, SourceError, VmdkError, bounded

__all__ = [
    "BadInput",
    "Busy",
    "FerryError",
    "Interrupted",
    "MissingLibrary",
    "ServerError",
    "SinkError",
    "SourceError",
    "VmdkError",
    "bounded",
]


class ServerError(FerryError):
    """A server refused or failed: log-in, certificate, fault, quota. C(said) holds its words."""

    code = "server"
