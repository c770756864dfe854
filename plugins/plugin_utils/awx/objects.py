# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What shall be in an AWX, out of the settings of the role awx_setup: arguments for the modules of awx.awx, by kind and in an order in which
they can be made. Nothing here asks an AWX; :mod:`.present` compares with one.

Kinds are AWX's endpoints. An item is C(kind), C(name), C(args) (of the module) and C(needs), other items by kind and name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from . import surveys

Item = dict[str, Any]
Settings = Mapping[str, Any]

#: What may be said of a job template beside what the catalogue says.
# fmt: off
OPTIONS = (
    "allow_simultaneous", "credentials", "description", "diff_mode", "execution_environment", "extra_vars", "forks", "instance_groups",
    "inventory", "job_slice_count", "job_tags", "labels", "limit", "name", "notification_templates_error",
    "notification_templates_started", "notification_templates_success", "playbook", "skip_tags", "survey", "survey_defaults", "timeout",
    "verbosity",
)
#: What of a module's arguments is no field of the object: other objects that are tied to it, or how the module works.
NO_FIELDS = frozenset((
    "credentials", "instance_groups", "interval", "labels", "lookup_organization", "notification_templates_approvals",
    "notification_templates_error", "notification_templates_started", "notification_templates_success", "state", "survey_spec",
    "update_project", "update_secrets", "wait",
))
# fmt: on
#: Roles that copy: where they do so in the job's own container, their ledgers are thrown away with it.
COPYING = ("migrate", "precopy", "cutover")
#: In this order nothing needs what comes later.
KINDS = (
    "organizations",
    "teams",
    "credential_types",
    "credentials",
    "execution_environments",
    "projects",
    "inventories",
    "inventory_sources",
    "job_templates",
    "workflow_job_templates",
)


def plan(settings: Settings) -> dict[str, Any]:
    """All items, and all that is wrong with the settings.

    :returns: C(items) (in the order of KINDS), C(nodes) and C(grants) of the workflow, C(playbooks) that the project must have, C(fields) used
        by kind, C(errors) (sentences).
    """
    errors: list[str] = []
    org = str(settings["organization"])
    items: list[Item] = [_item("organizations", org, {"name": org}, [])]
    items += [_item("teams", team, {"name": team, "organization": org}, [("organizations", org)]) for team in _teams(settings)]
    items += _types(settings)
    items += _credentials(settings, errors)
    items += _environment(settings, errors)
    items += _project(settings, errors)
    items += _inventories(settings, errors)
    made = _job_templates(settings, errors)
    items += made.values()
    nodes = _workflow(settings, made, items, errors)
    _unique(items, errors)
    ordered = sorted(items, key=lambda i: KINDS.index(i["kind"]))
    return {
        "items": ordered,
        "nodes": nodes,
        "grants": _grants(settings, ordered),
        "playbooks": sorted({i["args"]["playbook"] for i in made.values()}),
        "fields": _fields(ordered, nodes),
        "errors": errors,
    }


def _item(kind: str, name: str, args: Item, needs: Iterable[tuple[str, str]]) -> Item:
    return {"kind": kind, "name": name, "args": args, "needs": [list(n) for n in needs]}


def _named(settings: Settings, text: str) -> str:
    return f"{settings['prefix']} {text}".strip()


def _teams(settings: Settings) -> list[str]:
    return list(dict.fromkeys([*settings["operators"], *settings["approvers"], *settings["auditors"]]))


def _types(settings: Settings) -> list[Item]:
    found = []
    for one in settings["types"].values():
        name = _named(settings, one["name"])
        args = {"name": name, "description": one["description"], "kind": "cloud", "inputs": one["inputs"], "injectors": one["injectors"]}
        found.append(_item("credential_types", name, args, []))
    return found


def _credentials(settings: Settings, errors: list[str]) -> list[Item]:
    """A credential of one of our types is looked at field by field: AWX takes one without a field, and jobs fail with it later."""
    org, found = str(settings["organization"]), []
    for one in settings["credentials"]:
        name, kind = str(one.get("name") or ""), str(one.get("type") or "")
        if not name or not kind:
            errors.append(f"a credential has no {'type' if name else 'name'}: {name or kind or 'neither of them'}")
            continue
        inputs = {k: v for k, v in (one.get("inputs") or {}).items() if v is not None and v != ""}
        ours = settings["types"].get(kind)
        if ours:
            errors += [f"credential {name}: {e}" for e in _wrong_inputs(ours, inputs)]
        type_name = _named(settings, ours["name"]) if ours else kind
        args = {
            "name": name,
            "organization": org,
            "credential_type": type_name,
            "inputs": inputs,
            "update_secrets": bool(settings["update_secrets"]),
        }
        if one.get("description"):
            args["description"] = one["description"]
        found.append(_item("credentials", name, args, [("organizations", org), ("credential_types", type_name)]))
    return found


def _wrong_inputs(type_: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    known = {f["id"]: f["type"] for f in type_["inputs"]["fields"]}
    wrong = [f"{field} is missing" for field in type_["required"] if field not in inputs]
    wrong += [f"there is no field {field}; there are {', '.join(known)}" for field in inputs if field not in known]
    ways = type_.get("any_of") or []
    if ways and not any(all(f in inputs for f in way) for way in ways):
        wrong.append("give " + ", or ".join(" and ".join(way) for way in ways))
    for field, value in inputs.items():
        if field in known and not isinstance(value, bool if known[field] == "boolean" else str):
            wrong.append(f"{field} has to be {'true or false' if known[field] == 'boolean' else 'a text'}")
    return wrong


def _environment(settings: Settings, errors: list[str]) -> list[Item]:
    name, org = str(settings["execution_environment"]), str(settings["organization"])
    if not settings["image"]:
        errors.append("awx_setup_image is empty: give the image of the execution environment")
    args = {"name": name, "image": settings["image"], "pull": settings["pull"], "organization": org}
    needs = [("organizations", org)]
    if settings["registry_credential"]:
        args["credential"] = settings["registry_credential"]
        needs.append(("credentials", settings["registry_credential"]))
    return [_item("execution_environments", name, args, needs)]


def _project(settings: Settings, errors: list[str]) -> list[Item]:
    name, org = str(settings["project"]), str(settings["organization"])
    if not settings["project_url"]:
        errors.append("awx_setup_project_url is empty: give the repository that has the playbooks and the inventory")
    environment = str(settings["execution_environment"])
    args = {
        "name": name,
        "organization": org,
        "scm_type": "git",
        "scm_url": settings["project_url"],
        "scm_branch": settings["project_branch"],
        "scm_update_on_launch": bool(settings["project_update_on_launch"]),
        "default_environment": environment,
        "wait": True,
    }
    needs = [("organizations", org), ("execution_environments", environment)]
    if settings["project_credential"]:
        args["credential"] = settings["project_credential"]
        needs.append(("credentials", settings["project_credential"]))
    return [_item("projects", name, args, needs)]


def _inventories(settings: Settings, errors: list[str]) -> list[Item]:
    org, project, found = str(settings["organization"]), str(settings["project"]), []
    shared = {k: v for k, v in (("ferry_conversion_hosts", settings["conversion_hosts"]), ("ferry_ledger", settings["ledger"])) if v}
    for one in settings["inventories"]:
        name = str(one.get("name") or "")
        if not name:
            errors.append("an inventory has no name")
            continue
        args = {"name": name, "organization": org, "variables": {**shared, **(one.get("variables") or {})}}
        if one.get("description"):
            args["description"] = one["description"]
        found.append(_item("inventories", name, args, [("organizations", org)]))
        for source in one.get("sources") or []:
            found += _source(settings, name, source, project, errors)
    if not found:
        errors.append("awx_setup_inventories is empty: there is nothing for the job templates to work on")
    elif settings["inventory"] and settings["inventory"] not in [i["name"] for i in found]:
        errors.append(f"awx_setup_inventory {settings['inventory']} is not among awx_setup_inventories")
    return found


def _source(settings: Settings, inventory: str, source: Mapping[str, Any], project: str, errors: list[str]) -> list[Item]:
    name, path = str(source.get("name") or ""), str(source.get("path") or "")
    if not name or not path:
        errors.append(f"inventory {inventory}: a source has no {'path' if name else 'name'}")
        return []
    org, environment = str(settings["organization"]), str(settings["execution_environment"])
    args = {
        "name": name,
        "inventory": inventory,
        "organization": org,
        "source": "scm",
        "source_project": project,
        "source_path": path,
        "execution_environment": environment,
        "overwrite": bool(source.get("overwrite", True)),
        "overwrite_vars": bool(source.get("overwrite", True)),
        "update_on_launch": bool(source.get("update_on_launch", True)),
        "update_cache_timeout": int(source.get("cache_seconds", 300)),
        "timeout": int(source.get("timeout", 600)),
    }
    needs = [("organizations", org), ("inventories", inventory), ("projects", project), ("execution_environments", environment)]
    if source.get("credential"):
        args["credential"] = source["credential"]
        needs.append(("credentials", source["credential"]))
    return [_item("inventory_sources", name, args, needs)]


def _chosen(settings: Settings, errors: list[str]) -> list[str]:
    """Those that are asked for, else those for which there are credentials."""
    catalogue, types = settings["catalogue"], {str(c.get("type")) for c in settings["credentials"]}
    unknown = [k for k in (*settings["only"], *settings["templates"]) if k not in catalogue]
    errors += [f"there is no job template {k}; there are {', '.join(catalogue)}" for k in dict.fromkeys(unknown)]
    if settings["only"]:
        return [k for k in catalogue if k in settings["only"]]
    return [k for k, one in catalogue.items() if set(one["needs"]) <= types or (settings["templates"].get(k) or {}).get("credentials")]


def _job_templates(settings: Settings, errors: list[str]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    inventories = [str(i["name"]) for i in settings["inventories"] if i.get("name")]
    chosen = _chosen(settings, errors)
    for key in chosen:
        said = dict(settings["templates"].get(key) or {})
        errors += [f"awx_setup_templates.{key}: there is no option {o}; there are {', '.join(OPTIONS)}" for o in said if o not in OPTIONS]
        found[key] = _job_template(settings, key, said, (inventories or [""])[0], errors)
    copying = [k for k in COPYING if k in chosen]
    kept = settings["conversion_hosts"] or settings["ledger"]
    if (
        copying
        and not kept
        and not any(v in (i.get("variables") or {}) for i in settings["inventories"] for v in ("ferry_conversion_hosts", "ferry_ledger"))
    ):
        errors.append(
            "jobs run in containers that are thrown away, and the ledgers of copies with them: give awx_setup_conversion_hosts (machines that "
            "outlive a job), or awx_setup_ledger (a path in the container that does)"
        )
    return found


def _job_template(settings: Settings, key: str, said: Item, inventory: str, errors: list[str]) -> Item:
    one, org = settings["catalogue"][key], str(settings["organization"])
    survey = surveys.spec(
        settings, key, one.get("survey") or [], said.pop("survey", None) or [], said.pop("survey_defaults", None) or {}, errors
    )
    args: Item = {
        "name": _named(settings, key.replace("_", " ")),
        "organization": org,
        "description": one["description"],
        "job_type": "run",
        "inventory": settings["inventory"] or inventory,
        "project": str(settings["project"]),
        "playbook": f"{settings['project_folder']}/{key}.yml".lstrip("/"),
        "execution_environment": str(settings["execution_environment"]),
        "forks": int(settings["forks"]),
        "job_slice_count": int(settings["slices"]) if one.get("sliced") else 1,
        "allow_simultaneous": True,
        "ask_variables_on_launch": True,
        "ask_limit_on_launch": True,
        "ask_job_type_on_launch": bool(one.get("checked")),
        "ask_job_slice_count_on_launch": bool(one.get("sliced")),
        "survey_enabled": bool(survey),
        "survey_spec": survey,
        **{f"notification_templates_{k}": v for k, v in settings["notifications"].items() if k != "approvals"},
        **{k: v for k, v in said.items() if k in OPTIONS},
    }
    if "credentials" not in said:
        args["credentials"] = _by_type(settings, key, one["needs"], errors) + list(settings["machine_credentials"])
    needs = [("organizations", org), ("inventories", args["inventory"]), ("projects", args["project"])]
    needs.append(("execution_environments", args["execution_environment"]))
    needs += [(kind, name) for kind in ("credentials", "instance_groups", "labels") for name in args.get(kind) or []]
    needs += [("notification_templates", n) for k, v in args.items() if k.startswith("notification_templates_") for n in v]
    return _item("job_templates", str(args["name"]), args, needs)


def _by_type(settings: Settings, key: str, types: Iterable[str], errors: list[str]) -> list[str]:
    found = []
    for kind in types:
        names = [str(c["name"]) for c in settings["credentials"] if c.get("type") == kind and c.get("name")]
        if len(names) == 1:
            found += names
        elif names:
            errors.append(f"job template {key}: which of {', '.join(names)} is meant? Say it in awx_setup_templates.{key}.credentials")
        else:
            errors.append(f"job template {key}: there is no credential of the type {kind} in awx_setup_credentials")
    return found


def _workflow(settings: Settings, made: Mapping[str, Item], items: list[Item], errors: list[str]) -> list[Item]:
    """The workflow, where all of its templates are there; appended to C(items)."""
    nodes = settings["nodes"]
    wanted = [n["template"] for n in nodes if "template" in n]
    lacking = [t for t in dict.fromkeys(wanted) if t not in made]
    if not settings["workflow"] or lacking:
        return []
    org, name = str(settings["organization"]), str(settings["workflow"])
    survey = surveys.spec(settings, "workflow", settings["workflow_survey"], [], settings["workflow_survey_defaults"], errors)
    args = {
        "name": name,
        "organization": org,
        "description": "A wave: plan, approval, precopy, approval, cutover, health, commit or rollback",
        "allow_simultaneous": True,
        "ask_variables_on_launch": True,
        "ask_limit_on_launch": True,
        "survey_enabled": True,
        "survey_spec": survey,
        **{f"notification_templates_{k}": v for k, v in settings["notifications"].items()},
    }
    needs = [("organizations", org), *(("notification_templates", n) for v in settings["notifications"].values() for n in v)]
    items.append(_item("workflow_job_templates", name, args, needs))
    names = [n["identifier"] for n in nodes]
    for node in nodes:
        errors += [
            f"workflow: {node['identifier']} leads to {t}, which is no node"
            for k in surveys.LINKS
            for t in node.get(k, [])
            if t not in names
        ]
    return [_node(settings, node, name, made) for node in nodes]


def _node(settings: Settings, node: Mapping[str, Any], workflow: str, made: Mapping[str, Item]) -> Item:
    org = str(settings["organization"])
    args: Item = {"identifier": node["identifier"], "workflow_job_template": workflow, "organization": org}
    needs = [("workflow_job_templates", workflow)]
    if "approval" in node:
        timeout = int(settings["approval_timeout"])
        args["approval_node"] = {"name": _named(settings, node["identifier"]), "description": node["approval"], "timeout": timeout}
    else:
        args["unified_job_template"] = made[node["template"]]["name"]
        args["lookup_organization"] = org
        needs.append(("job_templates", args["unified_job_template"]))
        if node.get("extra_data"):
            args["extra_data"] = node["extra_data"]
    links = {f"{k}_nodes": list(node.get(k, [])) for k in surveys.LINKS}
    return {**_item("workflow_job_template_nodes", node["identifier"], args, needs), "links": links}


def _grants(settings: Settings, items: Iterable[Item]) -> list[Item]:
    """Who may do what: operators launch, approvers approve as well, auditors look. Each is arguments of awx.awx.role."""
    names: dict[str, list[str]] = {kind: [i["name"] for i in items if i["kind"] == kind] for kind in KINDS}
    org, found = str(settings["organization"]), []
    for teams, role in ((settings["operators"], "execute"), (settings["approvers"], "approval"), (settings["auditors"], "read")):
        if not teams:
            continue
        targets = {"workflows": names["workflow_job_templates"]}
        if role != "approval":
            targets["job_templates"] = names["job_templates"]
        args = {"teams": list(teams), "role": role, "lookup_organization": org, **{k: v for k, v in targets.items() if v}}
        needs = [("teams", t) for t in teams] + [("workflow_job_templates", n) for n in targets["workflows"]]
        needs += [("job_templates", n) for n in targets.get("job_templates", [])]
        if any(targets.values()):
            found.append(_item("roles", f"{role} for {', '.join(teams)}", args, needs))
    return found


def _unique(items: Iterable[Item], errors: list[str]) -> None:
    """AWX finds what a node runs by its name alone, whether it is a job template, a project or a source."""
    unified = ("projects", "inventory_sources", "job_templates", "workflow_job_templates")
    counts = Counter((("unified_job_templates" if i["kind"] in unified else i["kind"]), i["name"]) for i in items)
    for (kind, name), count in counts.items():
        if count > 1:
            what = "a job template, project, source or workflow" if kind == "unified_job_templates" else kind.replace("_", " ")
            errors.append(f"{name} is the name of {count} of them ({what}), and has to be of one alone")


def _fields(items: Iterable[Item], nodes: Iterable[Item]) -> dict[str, list[str]]:
    """Fields that are written, by kind. An AWX that does not know one drops it without a word."""
    found: dict[str, set[str]] = {}
    for one in items:
        found.setdefault(one["kind"], set()).update(k for k in one["args"] if k not in NO_FIELDS)
    found.get("inventory_sources", set()).discard("organization")  # where the inventory is looked for
    if any(True for n in nodes):
        found["workflow_job_template_nodes"] = {"identifier", "unified_job_template", "extra_data", "workflow_job_template"}
    return {kind: sorted(fields) for kind, fields in found.items()}
