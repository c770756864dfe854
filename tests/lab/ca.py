# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's own certificate authority: made once per state folder, so that clients verify TLS as they do at work."""

from __future__ import annotations

import fcntl
import importlib
import os
from pathlib import Path

from .common import LabError, write_private


def ensure(state: Path) -> tuple[Path, Path, Path]:
    """Give the PEM files (CA, server certificate, server key) for 127.0.0.1 and localhost; make them where they are missing."""
    ca_file, cert_file, key_file = state / "ca.pem", state / "tls" / "server.pem", state / "tls" / "server.key"
    key_file.parent.mkdir(parents=True, exist_ok=True)
    with open(state / "tls" / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the parts of a lab start at the same time
        if not (ca_file.exists() and cert_file.exists() and key_file.exists()):
            _make(ca_file, cert_file, key_file)
    return ca_file, cert_file, key_file


def _make(ca_file: Path, cert_file: Path, key_file: Path) -> None:
    try:
        trustme = importlib.import_module("trustme")
    except ImportError as e:
        raise LabError("trustme is missing: run the lab with build/venv/bin/python (make venv builds it)") from e
    authority = trustme.CA(organization_name="ferry.vmware lab", key_type=trustme.KeyType.ECDSA)
    server = authority.issue_cert("127.0.0.1", "localhost", "::1", common_name="localhost", key_type=trustme.KeyType.ECDSA)
    write_private(key_file, server.private_key_pem.bytes().decode("ascii"))
    write_private(cert_file, "".join(blob.bytes().decode("ascii") for blob in server.cert_chain_pems))
    write_private(ca_file, authority.cert_pem.bytes().decode("ascii"))
    os.chmod(ca_file, 0o644)
