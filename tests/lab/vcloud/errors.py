# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of the lab's vCloud Director: those that a client sees, and those of the control port."""

from __future__ import annotations


class ApiError(Exception):
    """An answer of the API other than success: <Error majorErrorCode minorErrorCode message> [D]."""

    def __init__(self, status: int, minor: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.minor = minor
        self.message = message
        self.headers = headers or {}


class ControlError(Exception):
    """A mistake in a request to the control port."""


def bad(message: str) -> ApiError:
    return ApiError(400, "BAD_REQUEST", message)


def forbidden(message: str = "You do not have the rights for this operation.") -> ApiError:
    return ApiError(403, "ACCESS_TO_RESOURCE_IS_FORBIDDEN", message)
