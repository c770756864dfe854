# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every code block of the guides and of the README: commands that are taken as they stand and that some test runs, YAML that our
modules and plugins take. The quick start is walked as a whole by tests/lab_tests/test_quick_start.py."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.cli.inventory import InventoryCLI
from ansible.cli.playbook import PlaybookCLI

TOP = Path(__file__).resolve().parents[3]
GUIDES = sorted((TOP / "docs" / "docsite" / "rst").glob("*.rst"))
READMES = sorted(TOP.glob("README*.md"))
RST = re.compile(r"^( *)\.\. code-block:: ([\w+]+)\n(?:\1   :.*\n)*\n((?:\1   .*\n|\n)+)", re.MULTILINE)
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Where what is run is looked for.
RUNNERS = ("tests", "extensions/molecule", "demo")
#: Commands that no test runs as they stand, by what they begin with, and why.
EXEMPT = {
    "python3 -m venv": "Python's own",
    ". ": "the shell's own",
    "export ": "who the reader is",
    "read -rs": "asks a person",
    "pip install": "fetches from PyPI",
    "python3 -m pip": "fetches from PyPI",
    "apt-get ": "installs system packages",
    "sudo ": "installs system packages",
    "ansible-galaxy collection": "fetches from Galaxy; what make dist builds is installed by tools/core_tests.sh",
    "ansible-builder build": "needs a container engine: make ee; its context is made by test_execution_environment",
    "ansible-rulebook ": "tests/lab_tests/test_events_rulebook.py runs the rulebooks, with the lab's addresses",
    "ara": "ara's own; monitoring.rst says what it is for",
    "nbdcopy ": "tests/unit/plugins/module_utils/disk/test_areas.py runs it, with files",
    "ssh ": "needs an ESXi host; the same with a file: tests/unit/plugins/module_utils/disk/vmdk",
    "python3 -m disk.vmdk": "tests/unit/plugins/module_utils/disk/vmdk runs the command line",
    "ansible localhost": "walked in tests/lab_tests/test_quick_start.py",
    "qemu-img info": "walked in tests/lab_tests/test_quick_start.py",
    "sha256sum": "walked in tests/lab_tests/test_quick_start.py",
    "make ": "targets are checked by test_prose",
    "git clone": "CONTRIBUTING is walked by hand",
    "cd ": "the shell's own",
}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return FENCED.findall(text)
    return [(language, textwrap.dedent(body).strip() + "\n") for _indent, language, body in RST.findall(text)]


def commands() -> list[tuple[str, str]]:
    """Guide and command, each once."""
    found: dict[tuple[str, str], None] = {}
    for path in (*GUIDES, *READMES):
        for language, text in blocks(path):
            if language in ("console", "shell"):
                lines = text.replace("\\\n", " ").splitlines()
                typed = [
                    line.removeprefix("$ ").strip()
                    for line in lines
                    if line.startswith("$ ") or language == "shell" or path.suffix == ".md"
                ]
                for line in typed:
                    if line and not line.startswith("#"):
                        found[(path.name, " ".join(line.split(" #")[0].split()))] = None
    return list(found)


def yamls() -> list[Any]:
    return [
        pytest.param(text, id=f"{path.stem}-{number}")
        for path in (*GUIDES, *READMES)
        for number, (language, text) in enumerate(blocks(path))
        if language.startswith("yaml")
    ]


@cache
def sources() -> str:
    """The text of all that runs something."""
    files = [f for folder in RUNNERS for f in (TOP / folder).rglob("*") if f.suffix in (".py", ".yml", ".sh") and f != Path(__file__)]
    return "\n".join(f.read_text(encoding="utf-8", errors="replace") for f in files)


@cache
def inventory_options(plugin: str) -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--type", "inventory", "--json", plugin]
    env = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(TOP.parents[2])}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    options: dict[str, Any] = json.loads(done.stdout)[plugin]["doc"]["options"]
    return options


@pytest.mark.parametrize(("guide", "command"), commands())
def test_a_command_is_taken_and_something_runs_it(guide: str, command: str) -> None:
    if command.startswith("ansible-playbook "):
        words = shlex.split(command)
        PlaybookCLI(words).parse()
        for name in (w.removeprefix("ferry.vmware.") for w in words if w.startswith("ferry.vmware.")):
            assert (TOP / "playbooks" / f"{name}.yml").is_file()
            assert re.search(rf"ferry\.vmware\.{name}\b|[\"']{name}[\"']", sources()), f"no test runs the playbook {name}"
    elif command.startswith("ansible-inventory "):
        InventoryCLI(shlex.split(command)).parse()
    else:
        assert [why for begin, why in EXEMPT.items() if command.startswith(begin)], f"{guide}: who runs this? {command}"


def problems(where: str, given: Any, options: dict[str, Any]) -> list[str]:
    """Where C(given), the options of a task or a plugin, is not what the documentation has."""
    if not isinstance(given, dict):
        return []
    names = options.keys() | {alias for o in options.values() for alias in o.get("aliases") or ()}
    found = [f"{where}: no option {name}" for name in given if name not in names]
    found += [
        f"{where}: {name} is required"
        for name, o in options.items()
        if o.get("required") and not o.get("env") and not {name, *(o.get("aliases") or ())} & given.keys()
    ]
    for name, option in options.items():
        choices = option.get("choices")
        value = given.get(name)
        if choices and isinstance(value, str) and "{{" not in value and value not in choices:
            found.append(f"{where}: {name}: {value} is none of {', '.join(map(str, choices))}")
        if option.get("suboptions"):
            for part in value if isinstance(value, list) else [value]:
                found += problems(f"{where}.{name}", part, option["suboptions"])
    return found


def tasks(node: Any) -> list[dict[str, Any]]:
    """All mappings in a document that hold a task with one of our modules."""
    if isinstance(node, list):
        return [t for part in node for t in tasks(part)]
    if not isinstance(node, dict):
        return []
    mine = [node] if any(str(k).startswith("ferry.vmware.") for k in node) else []
    return mine + [t for part in node.values() for t in tasks(part)]


@pytest.mark.parametrize("text", yamls())
def test_yaml_is_what_our_modules_and_plugins_take(text: str, documentation: dict[str, dict[str, Any]]) -> None:
    found = yaml.safe_load(text)
    assert found is not None
    if isinstance(found, dict) and str(found.get("plugin", "")).startswith("ferry.vmware."):
        assert problems(found["plugin"], found, inventory_options(found["plugin"])) == []
    for task in tasks(found):
        for name in (k.removeprefix("ferry.vmware.") for k in task if k.startswith("ferry.vmware.")):
            if name in documentation:
                assert problems(name, task[f"ferry.vmware.{name}"], documentation[name]["doc"]["options"]) == []
                assert re.search(rf"\b{name}\b", sources()), f"no test runs the module {name}"


def test_every_guide_is_in_the_table_of_contents(top: Path) -> None:
    listed = yaml.safe_load((top / "docs" / "docsite" / "extra-docs.yml").read_text(encoding="utf-8"))["sections"]
    assert sorted(name for section in listed for name in section["toctree"]) == [path.stem for path in GUIDES]


def test_no_exemption_is_left_over() -> None:
    unused = [begin for begin in EXEMPT if not any(command.startswith(begin) for _guide, command in commands())]
    assert set(unused) <= {"sudo ", "git clone", "cd ", "make "}, "these may or may not stand in a README"
