# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The volumes of one copy, attached at the same time and given back at the same time: each takes seconds, most of them waiting.

In which order a conversion host has them does not matter: each device is found by its volume. (A server's disks are another matter:
Nova attaches those in the order of the call that makes the server.)
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ..errors import FerryError
from ..openstack_cloud import volumes
from ..openstack_cloud.home import Home, Item
from .wanted import Wanted, naming

#: Volumes that are on their way at once.
AT_ONCE = 8


class Attaching:
    """Who attaches them has to call C(detach), also when C(attach) raised: those that came are there."""

    def __init__(self) -> None:
        self._home = Home()
        #: By the volume's id, as it was asked for.
        self.attached: dict[str, volumes.AttachedVolume] = {}

    def attach(self, conn: Any, wanted: Sequence[Wanted], params: Mapping[str, Any], folder: str) -> None:
        """Attach the volumes of these disks by the options of vm_disk_copy; C(folder): where locks and mounts live.

        :raises FerryError: see volumes.attach(); the first one's, when all have come or failed.
        """

        def one(w: Wanted) -> None:
            with naming(w):
                self.attached[w.dest["volume"]] = volumes.attach(
                    conn,
                    w.dest["volume"],
                    state_dir=folder,
                    root_helper=params["root_helper"],
                    take_over=params["take_over"],
                    way=params.get("attach") or "auto",
                    server=params.get("instance"),
                    run=self._home.run,
                )

        if wanted:
            conn.block_storage.get_endpoint()  # the log-in is done once, before threads need it
            self._each(one, wanted)

    def detach(self) -> None:
        """Give all back. May be called twice.

        :raises SinkError: one could not be; the others are.
        """
        left, self.attached = self.attached, {}
        if left:
            self._each(lambda volume_id: left[volume_id].detach(), list(left))

    def _each(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """C(work) for all items, at once; the error of the first that failed, with how many there are."""
        if len(items) == 1:
            work(items[0])
            return
        errors = self._home.each(work, items, at_once=AT_ONCE)
        if len(errors) > 1 and isinstance(errors[0], FerryError):
            errors[0].details.setdefault("failed_volumes", len(errors))
        if errors:
            raise errors[0]
