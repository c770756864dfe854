# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frozen chains of deltas over a flat base, read by range: every byte right, nothing that is zero or unchanged asked for, no other chain."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
import trustme

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import FerryError, SourceError, VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.chain import Cache, ChainSource

from .file_server import FileServer
from .vmdk.deltas import UNMAPPED, ZEROED, Chain, descriptor


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(tmp_path: Path, authority: trustme.CA) -> Iterator[FileServer]:
    with FileServer(tmp_path, authority).running() as made:
        yield made


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """A base of 20 MB, a COWD delta, and two of seSparse over it."""
    made = Chain(tmp_path)
    made.add("COWD", made.some(512, 300))
    made.add("SESPARSE", made.some(4096, 60, (UNMAPPED, ZEROED)))
    made.add("SESPARSE", made.some(4096, 40, (ZEROED,)))
    return made


LINKS = ["[ds 1] vm/d3.vmdk", "[ds 1] vm/d2.vmdk", "[ds 1] vm/d1.vmdk", "[golden] base/base.vmdk"]


def opened(server: FileServer, links: list[str] | None = None, **more: Any) -> ChainSource:
    return ChainSource(links or LINKS, lambda path: server.remote(path, **more))


def all_of(source: ChainSource, step: int = 999 * 512) -> bytes:
    return b"".join(source.read(at, min(step, source.capacity - at)) for at in range(0, source.capacity, step))


def test_every_byte_through_all_links(server: FileServer, chain: Chain) -> None:
    source = opened(server)
    assert source.capacity == chain.sectors * 512
    assert all_of(source) == chain.want
    at = 0
    kinds = set()
    for e in source.extents():
        assert e.start == at
        assert e.kind is Kind.DATA or not any(chain.want[e.start : e.end])
        kinds.add(e.kind)
        at = e.end
    assert at == source.capacity
    assert kinds == {Kind.DATA, Kind.ZERO}
    source.close()


def test_a_link_in_the_middle_is_another_disk(server: FileServer, chain: Chain, tmp_path: Path) -> None:
    """What a snapshot froze is read; the running VM's own delta, the top one, is not even opened."""
    (tmp_path / "d3.vmdk").unlink()
    (tmp_path / "d3-sesparse.vmdk").unlink()
    source = opened(server, LINKS[1:])
    assert all_of(source) != chain.want
    source.close()


def test_by_several_threads(server: FileServer, chain: Chain) -> None:
    source = opened(server)
    step = 100_000
    todo, got = iter(range(0, source.capacity, step)), {}
    lock = threading.Lock()

    def reader() -> None:
        while True:
            with lock:
                at = next(todo, None)
            if at is None:
                return
            got[at] = source.read(at, min(step, source.capacity - at))

    threads = [threading.Thread(target=reader) for _n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert b"".join(bytes(got[at]) for at in sorted(got)) == chain.want
    source.close()


def test_tables_are_fetched_once_and_zeroes_never(server: FileServer, tmp_path: Path) -> None:
    made = Chain(tmp_path, sectors=1 << 16)
    zeroes = dict.fromkeys(range(1 << 13), ZEROED)
    made.add("SESPARSE", {**zeroes, 7: b"7" * 4096})
    source = opened(server, ["[ds] vm/d1.vmdk", "[ds] vm/base.vmdk"])
    assert all_of(source) == made.want
    requests, sent = server.requests, server.sent
    assert all_of(source) == made.want
    assert (server.requests, server.sent) == (requests, sent)
    assert sent < 2 << 20  # of 32 MiB
    source.close()


def test_small_reads_are_gathered(server: FileServer, chain: Chain) -> None:
    """Scattered sectors of a COWD delta lie together in its file: they come in blocks, not one by one."""
    source = opened(server)
    all_of(source)
    assert server.requests < 250
    source.close()


@pytest.mark.fault("a parent was changed under its delta", "source", "refused by the CIDs")
def test_a_parent_that_was_changed_since(server: FileServer, chain: Chain, tmp_path: Path) -> None:
    text = (tmp_path / "d1.vmdk").read_text()
    (tmp_path / "d1.vmdk").write_text(text.replace("CID=00000002", "CID=0000beef"))
    with pytest.raises(VmdkError, match="parentCID"):
        opened(server)


@pytest.mark.fault("the files' chain is not vCenter's", "source", "refused")
def test_chains_that_are_not_vcenters(server: FileServer, chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(VmdkError, match="another parent"):
        opened(server, [LINKS[0], LINKS[2], LINKS[3]])
    with pytest.raises(VmdkError, match="no parent"):
        opened(server, LINKS[:2])
    with pytest.raises(VmdkError, match="shorter"):
        opened(server, [*LINKS, "[ds] vm/more.vmdk"])
    (tmp_path / "d1-delta.vmdk").unlink()
    with pytest.raises(SourceError, match="not on the datastore"):
        opened(server)


def test_the_hint_is_compared_and_never_followed(server: FileServer, chain: Chain, tmp_path: Path) -> None:
    """A linked clone's hint leads to another datastore by its path on the host: vCenter says where that is."""
    path = tmp_path / "d1.vmdk"
    path.write_text(path.read_text().replace('Hint="base.vmdk"', 'Hint="/vmfs/volumes/5a/../5b/base.vmdk"'))
    source = opened(server)
    assert all_of(source) == chain.want
    source.close()


@pytest.mark.parametrize("name", ["../x-flat.vmdk", "/etc/passwd", "sub/x-flat.vmdk"])
def test_extents_outside_the_folder_are_refused(server: FileServer, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.vmdk").write_text(descriptor("vmfs", [(2048, "VMFS", name)]))
    with pytest.raises(VmdkError):
        opened(server, ["[ds] vm/a.vmdk"])


@pytest.mark.fault("a file of the chain changes while it is read", "source", "fails: never a mixture")
def test_a_file_that_changes_is_never_mixed(server: FileServer, chain: Chain) -> None:
    source = opened(server)
    identity = source.identity
    server.etags["base-flat.vmdk"] = '"two"'
    with pytest.raises(SourceError) as e:
        all_of(source)
    assert e.value.code == "source_changed"
    source.close()
    again = opened(server)
    assert again.identity != identity
    assert all_of(again) == chain.want
    again.close()


@pytest.mark.fault("cuts, 503 and an expired session under a chain of deltas", "source", "asked again: equal")
def test_cuts_expired_sessions_and_503(server: FileServer, chain: Chain) -> None:
    server.fault = lambda handler, n: n in (3, 9, 30) and (handler.answer(503) or True)
    server.cut = lambda n: n in (5, 20, 40, 41)
    source = opened(server, patience=20)
    server.valid = {"cookie-2"}
    assert all_of(source) == chain.want
    source.close()


def test_the_cache_is_bounded_and_fetches_once() -> None:
    cache = Cache(limit=1000)
    fetched = []

    def fetch(n: int) -> bytes:
        fetched.append(n)
        return bytes([n]) * 300

    for n in (1, 2, 3, 1, 2, 3, 4, 2, 1):
        assert cache.get((0, n), functools.partial(fetch, n))[0] == n
    assert fetched == [1, 2, 3, 4, 1]
    assert cache._size <= 1000
    assert not cache._fetching


def test_a_fault_is_told_with_the_file(server: FileServer, chain: Chain) -> None:
    source = opened(server, patience=0.3)
    server.fault = lambda handler, n: handler.answer(500) or True
    with pytest.raises(FerryError) as e:
        all_of(source)
    assert e.value.code == "source_away"
    source.close()
