# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whom a connection over TLS believes."""

from __future__ import annotations

import os
import ssl

from .errors import BadInput


def context(validate_certs: bool, ca_path: str | None, step: str) -> ssl.SSLContext:
    """A TLS context that verifies against C(ca_path) (a PEM file or a folder), or against the system's CAs without one.

    :raises BadInput: (with C(step)) C(ca_path) holds no certificates.
    """
    if not validate_certs:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
        return found
    if ca_path is None:
        return ssl.create_default_context()
    path = os.path.expanduser(ca_path)
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as e:
        raise BadInput(f"ca_path {path} cannot be read as PEM certificates.", step=step, said=e) from e
