# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshot deltas and chains: read as qemu-img and dissect read them, refused where a byte could be wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.model import Extent, Kind
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.chain import MAX_DEPTH
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.convert import convert
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.info import inspect
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.reader import open_disk

from . import deltas
from .conftest import GRAIN, Disks
from .deltas import SECTORS, Chain, read

Data = deltas.Grains


def refused(path: Path, words: str) -> None:
    with pytest.raises(VmdkError, match=f"(?i){words}"):
        Disks.ours(path)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.mark.parametrize("grain", [1, 8, 128])
def test_cowd_over_a_base(disks: Disks, chain: Chain, grain: int) -> None:
    path = chain.add("COWD", chain.some(512 * grain, 400), grain=grain)
    assert read(path) == chain.want
    raw = disks.folder / "want.raw"
    raw.write_bytes(chain.want)
    assert disks.by_qemu(path) == disks.by_dissect(path) == disks.sha(raw)


def test_sesparse_over_a_base(disks: Disks, chain: Chain) -> None:
    # More than 4,096 grains behind the begin, so that both halves of a grain's number are used.
    path = chain.add("SESPARSE", chain.some(4096, 300, (deltas.UNMAPPED, deltas.ZEROED)), shift=70000)
    assert read(path) == chain.want
    raw = disks.folder / "want.raw"
    raw.write_bytes(chain.want)
    assert disks.by_qemu(path) == disks.sha(raw)


def test_sesparse_without_unmapped_grains_as_dissect_reads_it(disks: Disks, chain: Chain) -> None:
    path = chain.add("SESPARSE", chain.some(4096, 300, (deltas.ZEROED,)), shift=9000)
    raw = disks.folder / "want.raw"
    raw.write_bytes(chain.want)
    assert disks.by_dissect(path) == disks.ours(path) == disks.sha(raw)


def test_a_long_mixed_chain(disks: Disks, chain: Chain) -> None:
    """COWD, seSparse and hosted deltas over each other; every one may also be the top."""
    for n in range(6):
        if n % 2:
            chain.add("SESPARSE", chain.some(4096, 40, (deltas.UNMAPPED, deltas.ZEROED)))
        else:
            chain.add("COWD", chain.some(512, 200))
        assert read(chain.top) == chain.want
    raw = disks.folder / "want.raw"
    raw.write_bytes(chain.want)
    assert disks.by_qemu(chain.top) == disks.sha(raw)
    with open_disk(str(chain.top)) as disk:
        assert [Path(p).name for p in disk.info.chain] == ["d6.vmdk", "d5.vmdk", "d4.vmdk", "d3.vmdk", "d2.vmdk", "d1.vmdk", "base.vmdk"]
        assert len(disk.files()) == 14
        before = disk.identity
    os.utime(disks.folder / "base-flat.vmdk", ns=(1, 1))
    with open_disk(str(chain.top)) as disk:
        assert disk.identity != before
    out = disks.folder / "out.vmdk"
    convert(str(chain.top), str(out), format="streamOptimized")
    assert disks.ours(out) == disks.sha(raw)


@pytest.mark.parametrize("subformat", ["monolithicSparse", "twoGbMaxExtentSparse"])
def test_what_qemu_wrote_over_a_parent(disks: Disks, subformat: str) -> None:
    size = GRAIN * 600 + 512
    raw = disks.raw(size)
    parent = disks.qemu(raw, "streamOptimized")
    child = disks.folder / "child.vmdk"
    disks.run("qemu-img", "create", "-f", "vmdk", "-o", f"subformat={subformat},backing_fmt=vmdk", "-b", parent.name, str(child))
    want = bytearray(raw.read_bytes())
    for at in (0, 70000, 5 * GRAIN - 512, size - 512):
        disks.run("qemu-io", "-f", "vmdk", "-c", f"write -P 77 {at // 512 * 512} 512", str(child))
        want[at // 512 * 512 : at // 512 * 512 + 512] = b"M" * 512
    assert read(child) == bytes(want)
    with open_disk(str(child)) as disk:
        assert disk.info.chain == [str(child), str(parent)]
    facts = inspect(str(child))
    assert facts["problems"] == [] and facts["parent"]["hint"] == parent.name and facts["parent"]["chain"] == [str(parent)]
    assert not facts["glance"]["bootable"] and any("delta" in r or "separate" in r for r in facts["glance"]["reasons"])


def test_zeroed_grain_of_a_hosted_delta_hides_the_parent(disks: Disks) -> None:
    raw = disks.raw(4 * GRAIN, content="full")
    parent = disks.qemu(raw, "monolithicSparse")
    child = disks.folder / "child.vmdk"
    disks.run("qemu-img", "create", "-f", "vmdk", "-o", "zeroed_grain=on,backing_fmt=vmdk", "-b", parent.name, str(child))
    disks.run("qemu-io", "-f", "vmdk", "-c", f"write -z {GRAIN} {GRAIN}", str(child))
    want = raw.read_bytes()
    assert read(child) == want[:GRAIN] + bytes(GRAIN) + want[2 * GRAIN :]
    with open_disk(str(child)) as disk:
        kinds = [(e.start, e.length, e.kind) for e in disk.extents()]
    assert kinds == [(0, GRAIN, Kind.DATA), (GRAIN, GRAIN, Kind.ZERO), (2 * GRAIN, 2 * GRAIN, Kind.DATA)]


def test_unmapped_grains_are_zero_in_the_extents(chain: Chain) -> None:
    path = chain.add("SESPARSE", {1: deltas.UNMAPPED, 2: deltas.ZEROED, 4: b"x" * 4096})
    with open_disk(str(path)) as disk:
        assert list(disk.extents()) == [
            Extent(0, 4096, Kind.DATA),
            Extent(4096, 8192, Kind.ZERO),
            Extent(12288, disk.capacity - 12288, Kind.DATA),
        ]


def test_zero_and_flat_extents_of_a_delta_hide_the_parent(chain: Chain) -> None:
    path = chain.folder / "top.vmdk"
    flat = chain.folder / "f"
    with flat.open("wb") as out:
        out.truncate(4096)
    lines = [(8, "FLAT", "f"), (chain.sectors - 8, "ZERO", "x")]
    path.write_text(deltas.descriptor("monolithicFlat", lines, cid=9, parent_cid=1, hint="base.vmdk"))
    assert not any(read(path))


def test_a_split_delta(chain: Chain) -> None:
    grains = {n: chain.rng.randbytes(512) for n in (0, 7, 999)}
    deltas.cowd(chain.folder / "a", 1000, grains)
    deltas.cowd(chain.folder / "b", chain.sectors - 1000, grains)
    path = chain.folder / "top.vmdk"
    lines = [(1000, "VMFSSPARSE", "a"), (chain.sectors - 1000, "VMFSSPARSE", "b")]
    path.write_text(deltas.descriptor("vmfsSparse", lines, cid=9, parent_cid=1, hint="base.vmdk"))
    want = deltas.expected(deltas.expected(chain.want, grains, 512, chain.sectors)[512000:], grains, 512, chain.sectors - 1000)
    assert read(path) == deltas.expected(chain.want, grains, 512, chain.sectors)[:512000] + want


# What is refused, and why.


def test_cid_is_compared_before_a_byte_is_read(chain: Chain) -> None:
    everything: Data = dict.fromkeys(range(-(-SECTORS // 8)), deltas.ZEROED)
    path = chain.add("SESPARSE", everything)
    base = chain.folder / "base.vmdk"
    text = base.read_text()
    base.write_text(text.replace("CID=00000001", "CID=00000007", 1))
    with pytest.raises(VmdkError, match="parentCID"):
        open_disk(str(path))
    base.write_text(text.replace("CID=00000001\n", "", 1))
    with pytest.raises(VmdkError, match="no CID"):
        open_disk(str(path))


def test_a_parent_of_zeroes_needs_its_cid_too(disks: Disks) -> None:
    """qemu-img reads this one: its parent has no grain to look at."""
    disks.run("qemu-img", "create", "-f", "vmdk", str(disks.folder / "p.vmdk"), "1M")
    disks.run("qemu-img", "create", "-f", "vmdk", "-o", "backing_fmt=vmdk", "-b", "p.vmdk", str(disks.folder / "c.vmdk"))
    assert read(disks.folder / "c.vmdk") == bytes(1 << 20)
    disks.edit(disks.folder / "c.vmdk", lambda d: d.replace(b"parentCID=", b"parentCID=0000000", 1)[: len(d)])
    refused(disks.folder / "c.vmdk", "parentCID|hexadecimal|broken")


def test_hint_without_parent_is_a_remark(chain: Chain) -> None:
    path = chain.folder / "alone.vmdk"
    deltas.cowd(chain.folder / "alone-delta.vmdk", 8, {3: b"x" * 512})
    path.write_text(deltas.descriptor("vmfsSparse", [(8, "VMFSSPARSE", "alone-delta.vmdk")], hint="base.vmdk"))
    with open_disk(str(path)) as disk:
        assert disk.read(0, 4096) == bytes(1536) + b"x" * 512 + bytes(2048)
        assert len(disk.info.chain) == 1 and len(disk.problems) == 2
    path.write_text(deltas.descriptor("vmfsSparse", [(8, "VMFSSPARSE", "alone-delta.vmdk")], parent_cid=1))
    refused(path, "does not name the parent")
    path.write_text(path.read_text().replace("parentCID", "parentXID"))
    refused(path, "no parentCID")
    (chain.folder / "base.vmdk").write_text(
        (chain.folder / "base.vmdk").read_text().replace("parentCID=ffffffff", 'parentFileNameHint="x"')
    )
    refused(chain.folder / "base.vmdk", "no parentCID")


@pytest.mark.parametrize("hint", ["/vmfs/volumes/x/base.vmdk", "../base.vmdk", "sub/link.vmdk", "C:\\\\base.vmdk", "json:{}", "nbd:h:1"])
def test_hints_that_lead_out(disks: Disks, hint: str) -> None:
    inner = disks.folder / "inner"
    (inner / "sub").mkdir(parents=True)
    chain = Chain(disks.folder, 64)
    (inner / "sub" / "link.vmdk").symlink_to(chain.top)
    deltas.cowd(inner / "a-delta.vmdk", 64, {})
    (inner / "a.vmdk").write_text(deltas.descriptor("vmfsSparse", [(64, "VMFSSPARSE", "a-delta.vmdk")], parent_cid=1, hint=hint))
    refused(inner / "a.vmdk", "not opened")


def test_a_parent_elsewhere_may_be_listed(disks: Disks) -> None:
    (disks.folder / "clone").mkdir()
    (disks.folder / "golden").mkdir()
    chain = Chain(disks.folder / "golden", 64)
    head = disks.folder / "clone" / "a.vmdk"
    deltas.cowd(disks.folder / "clone" / "a-delta.vmdk", 64, {1: b"y" * 512})
    want = chain.want[:512] + b"y" * 512 + chain.want[1024:]
    for hint in (str(chain.top), "../golden/base.vmdk"):
        head.write_text(deltas.descriptor("vmfsSparse", [(64, "VMFSSPARSE", "a-delta.vmdk")], parent_cid=1, hint=hint))
        refused(head, "not opened")
        assert read(head, allow_extents=[str(chain.top)]) == want
        assert read(head, allow_extents=[str(disks.folder / "golden")]) == want
        refused(head, "not opened")


def test_a_parent_in_a_subfolder_brings_its_own_extents(chain: Chain) -> None:
    sub = chain.folder / "sub"
    sub.mkdir()
    shutil.move(chain.folder / "base.vmdk", sub / "base.vmdk")
    shutil.move(chain.folder / "base-flat.vmdk", sub / "base-flat.vmdk")
    path = chain.add("COWD", chain.some(512, 10))
    text = path.read_text()
    path.write_text(text.replace('"base.vmdk"', '"sub/base.vmdk"'))
    assert read(path) == chain.want


def test_circles_and_depth(disks: Disks) -> None:
    deltas.cowd(disks.folder / "x-delta.vmdk", 8, {})

    def link(name: str, hint: str) -> Path:
        path = disks.folder / name
        path.write_text(deltas.descriptor("vmfsSparse", [(8, "VMFSSPARSE", "x-delta.vmdk")], cid=1, parent_cid=1, hint=hint))
        return path

    refused(link("a.vmdk", "a.vmdk"), "circle")
    link("b.vmdk", "c.vmdk")
    refused(link("c.vmdk", "b.vmdk"), "circle")
    os.link(disks.folder / "b.vmdk", disks.folder / "hard.vmdk")
    refused(link("d.vmdk", "hard.vmdk"), "circle")
    (disks.folder / "p0.vmdk").write_text(deltas.descriptor("vmfsSparse", [(8, "VMFSSPARSE", "x-delta.vmdk")], cid=1))
    for n in range(1, MAX_DEPTH + 2):
        top = link(f"p{n}.vmdk", f"p{n - 1}.vmdk")
    assert read(disks.folder / f"p{MAX_DEPTH}.vmdk") == bytes(4096)
    refused(top, "too long")


def test_descriptors_of_a_chain_are_bounded_together(disks: Disks) -> None:
    for n in range(6):
        text = deltas.descriptor("custom", [], cid=1, parent_cid=1, hint=f"{n + 1}.vmdk") + 'RW 1 ZERO "x"\n' * 30000
        (disks.folder / f"{n}.vmdk").write_text(text)
    refused(disks.folder / "0.vmdk", "too many extents")
    for n in range(6):
        text = deltas.descriptor("custom", [(1, "ZERO", "x")], cid=1, parent_cid=1, hint=f"{n + 1}.vmdk") + "#" * 1000000
        (disks.folder / f"{n}.vmdk").write_text(text)
    refused(disks.folder / "0.vmdk", "too many bytes")


def test_sizes_of_child_and_parent(disks: Disks) -> None:
    chain = Chain(disks.folder, 64)
    for sectors in (63, 64, 100):
        deltas.cowd(disks.folder / "a-delta.vmdk", sectors, {2: b"z" * 512})
        text = deltas.descriptor("vmfsSparse", [(sectors, "VMFSSPARSE", "a-delta.vmdk")], parent_cid=1, hint="base.vmdk")
        (disks.folder / "a.vmdk").write_text(text)
        if sectors < 64:
            refused(disks.folder / "a.vmdk", "larger than its delta")
            continue
        assert read(disks.folder / "a.vmdk") == deltas.expected(chain.want, {2: b"z" * 512}, 512, sectors)
        with open_disk(str(disks.folder / "a.vmdk")) as disk:
            assert bool(disk.problems) == (sectors > 64)


def test_a_damaged_parent_is_told(chain: Chain) -> None:
    chain.add("COWD", chain.some(512, 20))
    path = chain.add("SESPARSE", chain.some(4096, 20))
    delta = chain.folder / "d1-delta.vmdk"
    os.truncate(delta, delta.stat().st_size - 512)
    with pytest.raises(VmdkError, match="d1-delta"), open_disk(str(path)) as disk:
        disk.check()


def test_a_parent_that_is_no_vmdk(chain: Chain) -> None:
    path = chain.add("COWD", {})
    path.write_text(path.read_text().replace('"base.vmdk"', '"base-flat.vmdk"'))
    refused(path, "not a VMDK")
    path.write_text(path.read_text().replace('"base-flat.vmdk"', '"gone.vmdk"'))
    refused(path, "parent that the descriptor names is missing")
