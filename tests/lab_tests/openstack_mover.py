# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A conversion host's process, as the lab's tests need it: attaches a volume with os-brick, writes standard input to it.

usage: openstack_mover.py VOLUME OFFSET detach|wait    (environment: OS_CLIENT_CONFIG_FILE, OS_CLOUD, the shims in PATH)

Prints the path it wrote to. With "wait" it keeps the volume attached until it is killed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

import openstack
import os_brick.privileged
from os_brick.initiator import connector

MICROVERSION = "3.54"


def main(volume: str, offset: int, then: str) -> None:
    # No daemon with more rights than ours: mount is the shim, and we are who may write the volume.
    os_brick.privileged.default.set_client_mode(False)
    cinder = openstack.connect().block_storage
    properties = connector.get_connector_properties("sudo", "127.0.0.1", False, False)
    body = {"attachment": {"volume_uuid": volume, "connector": properties, "mode": "rw"}}
    answer = cinder.post("/attachments", json=body, microversion=MICROVERSION)
    if not answer.ok:
        sys.exit(f"{answer.status_code} {answer.text}")
    attachment = answer.json()["attachment"]
    info = attachment["connection_info"]
    with tempfile.TemporaryDirectory() as mounts:
        brick = connector.InitiatorConnector.factory(info["driver_volume_type"], "sudo", conn=info, nfs_mount_point_base=mounts)
        device = brick.connect_volume(info)
        cinder.post(f"/attachments/{attachment['id']}/action", json={"os-complete": attachment["id"]}, microversion=MICROVERSION)
        with open(device["path"], "r+b") as file:
            file.seek(offset)
            file.write(sys.stdin.buffer.read())
            file.flush()
            os.fsync(file.fileno())
        print(os.path.realpath(device["path"]), flush=True)
        while then == "wait":
            time.sleep(60)
        brick.disconnect_volume(info, device)
    cinder.delete(f"/attachments/{attachment['id']}", microversion=MICROVERSION)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
