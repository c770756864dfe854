# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words of the pages in English and Japanese. What servers and modules have said stays as they said it."""

from __future__ import annotations

from typing import Any

from ansible_collections.ferry.vmware.plugins.plugin_utils.report.words_ja import WORDS as JA

LANGUAGES = ("en", "ja")


class Labels:
    """C(t('read')), C(t('{n} cycles', n=4)): the English text is the key, with fields to be filled in.

    :raises ValueError: for a language that is not known.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise ValueError(f"the report's language must be one of {', '.join(LANGUAGES)}, got {language[:20]!r}")
        self.language = language

    def __call__(self, english: str, **values: Any) -> str:
        said = JA.get(english, english) if self.language == "ja" else english
        return said.format(**values) if values else said

    def count(self, n: int, one: str, many: str) -> str:
        """C(t.count(3, '{n} disk', '{n} disks'))."""
        return self(one if n == 1 else many, n=n)

    def state(self, name: str) -> str:
        """A VM's state, a phase or a category, which are words of the contract with C(_) between them."""
        return self(name.replace("_", " "))
