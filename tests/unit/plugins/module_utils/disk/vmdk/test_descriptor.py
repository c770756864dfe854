# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The descriptor as bytes: what real makers write is accepted, what would move the disk is refused."""

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import VmdkError
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk import descriptor
from ansible_collections.ferry.vmware.plugins.module_utils.disk.vmdk.files import refuse_name

HEAD = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
FLAT = HEAD + 'createType="monolithicFlat"\n\nRW 2048 FLAT "a-flat.vmdk" 0\n\nddb.adapterType = "lsilogic"\nddb.virtualHWVersion = "13"\n'


def parse(text: str | bytes, *, embedded: bool = False) -> descriptor.Descriptor:
    return descriptor.parse(text.encode() if isinstance(text, str) else text, "x.vmdk", embedded=embedded)


def test_plain() -> None:
    d = parse(FLAT)
    assert d.create_type == "monolithicFlat"
    assert (d.cid, d.parent_cid, d.capacity) == (0x12345678, descriptor.NO_PARENT, 1 << 20)
    assert (d.adapter_type, d.hw_version, d.is_delta) == ("lsilogic", "13", False)
    line = d.extents[0]
    assert (line.access, line.sectors, line.type, line.name, line.offset) == ("RW", 2048, "FLAT", "a-flat.vmdk", 0)


def test_extent_after_an_empty_line_counts_once() -> None:
    assert len(parse(FLAT).extents) == 1


@pytest.mark.parametrize(
    "text",
    [
        FLAT.replace("\n", "\r\n"),
        FLAT.replace('"monolithicFlat"', "monolithicFlat"),
        FLAT.replace('"monolithicFlat"', "monolithicFlat").replace("\n", "\r\n"),
        FLAT.replace("# Disk DescriptorFile", "#Disk DescriptorFile"),
        FLAT.replace("\n", "  \n"),
        FLAT.replace('createType="', 'createType = "'),
        FLAT.replace("createType", "CREATETYPE"),
        FLAT.replace("RW 2048", "  RW   2048"),
        FLAT.replace("RW 2048 FLAT", "rw 2048 flat"),
        FLAT.replace("RW 2048", 'RDONLY 2048 FLAT "b" 0\nRW 2048').replace('RDONLY 2048 FLAT "b" 0\n', '# RW 4096 FLAT "b" 0\n'),
        FLAT + "changeTrackPath=a-ctk.vmdk\nsomething.new = 5\n",
        "\ufeff" + FLAT,
    ],
)
def test_what_makers_write_otherwise(text: str) -> None:
    d = parse(text)
    assert (d.create_type, len(d.extents), d.capacity) == ("monolithicFlat", 1, 1 << 20)


def test_utf16() -> None:
    assert parse(b"\xff\xfe" + FLAT.encode("utf-16-le")).capacity == 1 << 20
    assert parse(b"\xfe\xff" + FLAT.encode("utf-16-be")).capacity == 1 << 20
    for bare in (FLAT.encode("utf-16-le"), FLAT.encode("utf-16-be")):
        assert parse(bare).capacity == 1 << 20 and descriptor.is_descriptor(bare)


def test_key_in_a_comment_is_no_key() -> None:
    assert parse(FLAT.replace("version=1", '#createType="vmfsSparse"\nversion=1')).create_type == "monolithicFlat"


def test_unknown_keys_are_kept() -> None:
    d = parse(FLAT + "oddKey=odd value\nddb.comment = none\n")
    assert d.values["oddKey"] == "odd value" and d.ddb["comment"] == "none"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("windows-1252", "Größe-flat.vmdk"), ("Shift_JIS", "日本-flat.vmdk"), ("GBK", "磁盘-flat.vmdk"), ("UTF-8", "ß.vmdk")],
)
def test_names_in_other_encodings(encoding: str, name: str) -> None:
    text = FLAT.replace("version=1", f'version=1\nencoding="{encoding}"').replace("a-flat.vmdk", name)
    line = parse(text.encode(encoding)).extents[0]
    assert line.name == name
    assert line.raw == name.encode(encoding)
    assert name in line.names


def test_hint_without_parent_is_ignored_with_a_remark() -> None:
    d = parse(FLAT + 'parentFileNameHint="/vmfs/other.vmdk"\n')
    assert not d.is_delta and "parentFileNameHint" in d.problems[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html>not found</html>", "Not a VMDK descriptor"),
        (FLAT.replace("RW 2048", "RX 2048"), "Unknown access word"),
        (FLAT.replace('RW 2048 FLAT "a-flat.vmdk" 0', "RW 2048 FLAT a-flat.vmdk"), "broken extent"),
        (FLAT.replace('RW 2048 FLAT "a-flat.vmdk" 0', "RW 2048 FLAT"), "without a name"),
        (FLAT.replace("RW 2048", "RW -2048"), "Impossible size"),
        (FLAT.replace("RW 2048", "RW 99999999999999999999"), "Impossible size"),
        (FLAT.replace("RW 2048", f"RW {1 << 40}"), "Impossible size"),
        (FLAT.replace('.vmdk" 0', '.vmdk" x'), "Impossible offset"),
        (FLAT.replace('.vmdk" 0', '.vmdk" 0 1 2'), "Unknown words"),
        (FLAT + "what is this\n", "access word"),
        (FLAT + "what?\n", "neither comment"),
        (FLAT.replace("CID=12345678", "CID=xyz"), "CID is not"),
        (FLAT + "CID=87654321\n", "twice"),
        (FLAT + 'createType="vmfs"\n', "twice"),
        (FLAT.replace("monolithicFlat", "madeUp"), "Unknown createType"),
        (FLAT.replace('createType="monolithicFlat"', ""), "no createType"),
        (FLAT + "\0RW 2048", "binary"),
        (HEAD + 'createType="monolithicFlat"\n' + 'RW 1 FLAT "x" 0\n' * 40001, "Too many"),
        (FLAT + "#" * (1 << 20), "too long"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(VmdkError, match=f"(?i){words}"):
        parse(text)


def test_errors_show_bounded_escaped_text() -> None:
    with pytest.raises(VmdkError) as caught:
        parse("<html>\x1b[31m" + "A" * 100000)
    assert len(str(caught.value)) < 400 and "\x1b" not in str(caught.value)


def test_embedded_padding() -> None:
    assert parse(FLAT.encode() + bytes(4096), embedded=True).capacity == 1 << 20
    assert parse(FLAT.encode() + bytes(10) + b"rest", embedded=True).problems


def test_encrypted_is_seen() -> None:
    assert parse(FLAT + 'encryptionKeys="vmware:key/list/..."\n').encrypted


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x.vmdk",
        "a/../../x",
        "C:\\x.vmdk",
        "sub\\x.vmdk",
        "json:{}",
        "http://h/x",
        "nbd:localhost:1",
        "file:x",
        "\\\\.\\PhysicalDrive0",
        "",
    ],
)
def test_names_that_lead_out(name: str) -> None:
    with pytest.raises(VmdkError):
        refuse_name(name, "x.vmdk")


def test_compose_and_parse() -> None:
    data = descriptor.compose(
        create_type="monolithicFlat",
        extents=[("RW", 10, "FLAT", "ö-flat.vmdk", 0)],
        adapter_type="pvscsi",
        geometry=(1, 2, 3),
        hw_version=19,
        cid=5,
    )
    d = parse(data)
    assert d.extents[0].name == "ö-flat.vmdk" and d.cid == 5 and d.ddb["geometry.heads"] == "2"
    assert d.ddb["uuid"].startswith("60 00 C2 9") and len(d.ddb["uuid"]) == 47
