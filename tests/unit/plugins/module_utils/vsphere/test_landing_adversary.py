# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts at the source that anybody with a right on the VM may write: attributes, descriptions of snapshots."""

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import fence, snapshot_tag

VM = "50210a1b-1111-4c6e-9f01-7a1e5b1c0001"
HEAD = f'{{"v":1,"vm":"{VM}","power":"on","state":"","cbt":false,"ctk":{{}},"fenced":false,"nics":'


@pytest.mark.parametrize(
    "text",
    [
        "[" * 8000,
        '{"a":' * 1600,
        HEAD + "[]}",
        HEAD + '{"4000":""}}',
        HEAD + '{"4000":7}}',
        HEAD + '{"' + "9" * 5000 + '":"11"}}',
        HEAD + "1e999}",
        "\x00",
    ],
)
def test_a_record_that_somebody_has_altered_is_one_error(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        fence.parse(text, VM)
    assert caught.value.code == "record"


@pytest.mark.parametrize("text", ['{"a":' * 700, '{"by":' + "[" * 4000, '{"by":' + "9" * 4080 + "}", '{"by":"ferry.vmware","id":{}}'])
def test_a_snapshot_whose_description_is_odd_is_nobodys(text: str) -> None:
    assert snapshot_tag.parse(text) is None
