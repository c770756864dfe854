# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the disks go: files, devices and volumes, with the ledger of each, and what a volume says of itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, Mapping, Sequence

from ..disk import ledger as ledgers
from ..disk import tail, takeover
from ..disk.model import Sink, Source
from ..disk.progress import Progress
from ..disk.sinks.file import FileSink
from ..disk.sinks.vmdk import VmdkSink
from ..errors import BadInput, Busy, ServerError
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import guests, volumes
from ..vsphere import snapshot_tag
from . import noted
from .attaching import Attaching
from .wanted import Wanted, naming

#: Metadata of a volume. With them a second host, or a run without the ledger, goes on: what stands there (CHANGE_ID, DIGEST,
#: as of the end of the last pass; PASS: whether one is under way), whose it is, and where the ledger with the chunks' digests lies (LEDGER: host and file).
STATE, DIGEST, SOURCE, SOURCE_STATE, DISK_KEY = "ferry_state", "ferry_digest", "ferry_source", "ferry_source_state", "ferry_disk"
CHANGE_ID, GENERATION, LEDGER, PASS = "ferry_change_id", "ferry_generation", "ferry_ledger", "ferry_pass"
#: Of the snapshot with CHANGE_ID: when it was taken, and which files the disk had; by these a revert since is noticed.
TAKEN, CHAIN = "ferry_taken", "ferry_chain"
#: Fact of a ledger: the size of the volume (bytes) whose tail behind the disk has been made zero.
TAIL = "tail"
#: Cinder refuses longer values.
_LONGEST = 255


def state_dir(ledger: str | None) -> str:
    """The folder of ledgers, locks and mounts on this machine; C(ledger) or the user's state folder (XDG base directories)."""
    if ledger:
        return os.path.abspath(os.path.expanduser(ledger))
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "ferry")


def state_of(source: Source) -> str:
    """The state of a source as a volume's metadata keeps it."""
    return hashlib.sha256(source.identity.encode()).hexdigest()[:32]


def tells_its_state(source: Source) -> bool:
    """Whether the same identity says that it is the same bytes; of an export that names no state it does not."""
    return bool(getattr(source, "certain", True))


@dataclass
class Target:
    """One target, open for writing. C(volume): where it is one."""

    wanted: Wanted
    ledger: ledgers.Ledger
    sink: Sink
    volume: volumes.AttachedVolume | None
    #: The digests were made anew from the bytes on the target: "" (no need), "proven" (they agree with its metadata) or "assumed".
    adopted: str = ""
    #: Bytes behind the disk, up to the volume's size, that were not zero and are now.
    tail_cleared: int = 0


class Targets:
    """Opens targets; everything is closed, detached and released by C(stack)."""

    def __init__(self, params: Mapping[str, Any], stack: contextlib.ExitStack, progress: Progress, source_id: str) -> None:
        self.params = params
        self.stack = stack
        self.progress = progress
        self.source_id = source_id
        self.folder = state_dir(params.get("ledger"))
        self._conn: Any = None
        self._open: list[Target] = []
        self._attaching = Attaching()
        #: Machines that wrote to the volumes whose lease is ours now: what they left at the source is nobody's.
        self.dead: set[str] = set()

    @property
    def conn(self) -> Any:
        if self._conn is None:
            # validate_certs and ca_path are vCenter's here; OpenStack's are in clouds.yaml or ca_cert.
            self._conn = openstack_client.connect({**self.params, "validate_certs": None})
            self.stack.callback(self._conn.close)
        return self._conn

    def ledger_path(self, w: Wanted) -> str:
        return os.path.join(self.folder, "ledgers", ledgers.file_name(self.source_id or "file", w.key, w.target))

    # -- what a volume says of itself -----------------------------------------------------------------------------

    def said_by_volume(self, w: Wanted) -> tuple[dict[str, str], str]:
        """(metadata, status) of the target where it is a volume, else ({}, "").

        :raises BadInput: it is smaller than the disk.
        :raises Busy: it holds another VM's disk.
        """
        if not w.dest.get("volume"):
            return {}, ""
        volume = volumes.get_volume(self.conn, w.dest["volume"])
        known: dict[str, str] = dict(volume.get("metadata") or {})
        if volume["size"] * volumes.GIB < w.capacity:
            raise BadInput(
                f"The volume has {volume['size']} GiB, the disk {w.capacity} bytes.", code="target_too_small", step="look at the volume"
            )
        theirs = known.get(SOURCE), known.get(DISK_KEY)
        if None not in theirs and theirs != (self.source_id or w.key, w.key):
            raise Busy(
                "The volume holds another VM's disk.", step="look at the volume", said=f"{SOURCE}={theirs[0]} {DISK_KEY}={theirs[1]}"
            )
        return known, str(volume["status"])

    # -- opening ---------------------------------------------------------------------------------------------------

    def open_all(self, wanted: Sequence[tuple[Wanted, Mapping[str, str]]]) -> list[Target]:
        """Take the leases of the ledgers and open all targets, each given with its volume's metadata. Volumes are attached at once."""
        kept = []
        for w, _known in wanted:
            with naming(w):
                kept.append(ledgers.Ledger(self.ledger_path(w), w.capacity))
                self.stack.callback(kept[-1].close)
        self.stack.push(partial(self._note_failure, list(zip(kept, (w for w, _known in wanted), strict=True))))
        on_volumes = [w for w, _known in wanted if w.dest.get("volume")]
        if on_volumes:
            self.stack.callback(self._attaching.detach)
            self._attaching.attach(self.conn, on_volumes, self.params, self.folder)
        opened = []
        for ledger, (w, known) in zip(kept, wanted, strict=True):
            with naming(w):
                opened.append(self._opened(w, known, ledger))
        return opened

    @staticmethod
    def _note_failure(
        kept: Sequence[tuple[ledgers.Ledger, Wanted]], kind: type[BaseException] | None, error: BaseException | None, trace: Any
    ) -> None:
        """At the end of a copy, before its ledgers are closed: keep what went wrong."""
        for ledger, w in kept:
            noted.failed(ledger, w, error)

    def _opened(self, w: Wanted, known: Mapping[str, str], ledger: ledgers.Ledger) -> Target:
        sink, volume = self._sink(w)
        target = Target(w, ledger, sink, volume)
        self._open.append(target)
        if volume is not None and known.get(LEDGER):
            self.dead.add(known[LEDGER].partition(":")[0])
            if known[LEDGER] != self._ledger_name(w) and ledger.fact("target") is not None:
                # Another host, or another ledger, has gone on with the volume since: what this one knows of it is of another time.
                ledger.forget()
        self._clear_tail(target)
        if ledger.fact("target") is None and self.params["mode"] != "full" and (known.get(DIGEST) or known.get(CHANGE_ID)):
            target.adopted = self._adopt(target, known)
        return target

    def _sink(self, w: Wanted) -> tuple[Sink, volumes.AttachedVolume | None]:
        sink: Sink
        if not w.dest.get("volume"):
            path = os.path.abspath(w.dest["path"])
            sink = FileSink(path, w.capacity) if w.format == "raw" else VmdkSink(path, w.capacity, w.format)
            self.stack.callback(sink.close)
            return sink, None
        attachment = self._attaching.attached[w.dest["volume"]]
        if attachment.size < w.capacity:
            raise BadInput(
                f"The volume has {attachment.size} bytes, the disk {w.capacity}.", code="target_too_small", step="attach the volume"
            )
        raw = FileSink(attachment.path, w.capacity, resize=False)
        raw.identity = w.target
        self.stack.callback(raw.close)
        return raw, attachment

    def _clear_tail(self, t: Target) -> None:
        """Volumes come in whole GiB: what lies behind the disk is made zero and read back, once per ledger and size."""
        if t.volume is None or t.ledger.fact(TAIL) == t.volume.size or t.volume.size == t.wanted.capacity:
            return

        def watch(done: int, total: int) -> None:
            self.progress.update(t.wanted.label, "clear the volume's tail", done, total, 0)
            self.progress.check()

        t.tail_cleared = tail.zero_tail(t.volume.path, t.wanted.capacity, watch=watch)
        t.ledger.set(**{TAIL: t.volume.size})

    def _adopt(self, t: Target, known: Mapping[str, str]) -> str:
        """Make the lost ledger anew from what stands on the target (design, section 4: take-over)."""
        found = takeover.adopt(
            t.ledger,
            t.sink,
            digest=known.get(DIGEST) or None,
            change_id=known.get(CHANGE_ID) or None,
            # a pass was under way: that the digest differs says nothing then, and what it wrote lies among the changes since
            believe=known.get(PASS) == "open" or not known.get(DIGEST),
            disk=t.wanted.label,
            watcher=self.progress,
        )
        t.ledger.set(taken=known.get(TAKEN) or None, chain=known.get(CHAIN) or None)
        return "proven" if found.equal else "assumed"

    # -- the lease, and what is said at the target -----------------------------------------------------------------

    def still_ours(self) -> None:
        """Raise when another host has taken a volume over: its attachment is the lease, and deleting it does not stop us."""
        for t in self._open:
            if t.volume is None:
                continue
            try:
                ours = t.volume.still_ours()
            except ServerError:
                continue  # Cinder is away: that says nothing about the lease; it is asked again in a few seconds
            if not ours:
                raise Busy(
                    "The volume was taken over by another host while it was being written.",
                    disk=t.wanted.label,
                    step="write",
                    volume=t.volume.volume_id,
                )

    def begin(self, t: Target) -> None:
        """Say at the volume that it is being written, and in the ledger whose disk it is."""
        noted.begun(t.ledger, t.wanted, self.progress.name, self.source_id)
        if t.volume is not None:
            said = {STATE: "copying", PASS: "open", SOURCE: self.source_id or t.wanted.key, DISK_KEY: t.wanted.key}
            volumes.set_metadata(
                self.conn,
                t.volume.volume_id,
                {**said, LEDGER: self._ledger_name(t.wanted)},
                unset=(SOURCE_STATE, guests.GUEST),
            )

    def _ledger_name(self, w: Wanted) -> str:
        return f"{snapshot_tag.host_name()}:{self.ledger_path(w)}"[:_LONGEST]

    def begun(self, t: Target, mode: str) -> None:
        """The pass has begun: where it is not about changes alone, no changeId tells any more what a second host would have to copy."""
        if t.volume is not None and mode not in ("incremental", "none"):
            volumes.set_metadata(self.conn, t.volume.volume_id, {CHANGE_ID: ""})

    def commit(self, t: Target, *, digest: str, change_id: str | None, final: str | None) -> None:
        """Say at the volume what it holds now.

        :param final: the state of the source (state_of) where the volume holds all of it, None where the VM runs on.
        """
        if t.volume is None:
            return
        said = {DIGEST: digest, PASS: "done", CHANGE_ID: change_id or "", GENERATION: str(t.ledger.fact("generation", 0))}
        said.update({TAKEN: t.ledger.fact("taken") or "", CHAIN: t.ledger.fact("chain") or ""})
        if final is not None:
            said = {**said, STATE: "complete", SOURCE_STATE: final}
        volumes.set_metadata(self.conn, t.volume.volume_id, said)
