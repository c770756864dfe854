# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model of the lab's cloud: YAML (tests/lab/models/vcloud.yml) to a checked mapping, and that to a World."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Iterator

from .. import model as base
from ..common import LabError
from .world import Container, Datastore, Disk, NamedDisk, Org, Profile, Vdc, VimServer, Vm, World, make_id

MIB = 1 << 20
CREATED = "2026-01-15T09:00:00.000Z"
_text, _list, _bool, _size, _need = base._text, base._list, base._bool, base.size, base._NEEDED
_power = base._choice("on", "off", "suspended")


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100_000:
        raise ValueError("a number from 1 to 100000 is wanted")
    return value


def _bulk(value: Any) -> Any:
    return _count(value) if isinstance(value, int) else base._dict(value)


def _disk(c: base._Checker, where: str, data: Any) -> dict[str, Any]:
    return c.take(where, data, {"size": (_size, _need), "used": (_size, None), "datastore": (_text, "")})


def _vm(c: base._Checker, where: str, data: Any) -> dict[str, Any]:
    vm = c.take(
        where,
        data,
        {
            "name": (_text, _need),
            "count": (_count, 1),
            "first": (_count, 1),
            "datastore": (_text, _need),
            "profile": (_text, ""),
            "host": (_text, ""),
            "power": (_power, "on"),
            "cpus": (_count, 1),
            "memory_mb": (_count, 1024),
            "guest": (_text, "CentOS 4/5/6/7 (64-bit)"),
            "network": (_text, "net1"),
            "base": (_text, ""),
            "disks": (_list, lambda: [{"size": "20GiB", "used": "4GiB"}]),
        },
    )
    vm["disks"] = [_disk(c, f"{where}, disk {i + 1}", d) for i, d in enumerate(vm["disks"])]
    return vm


def _container(c: base._Checker, where: str, data: Any, template: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": (_text, _need), "vms": (_list, list)}
    if template:
        fields["catalog"] = (_text, "catalog")
    out = c.take(where, data, fields)
    out["vms"] = [_vm(c, f"{where}, VM {i + 1}", v) for i, v in enumerate(out["vms"])]
    return out


def _vdc(c: base._Checker, where: str, data: Any) -> dict[str, Any]:
    vdc = c.take(
        where,
        data,
        {
            "name": (_text, _need),
            "vcenter": (_text, _need),
            "fast_provisioning": (_bool, True),
            "enabled": (_bool, True),
            "profiles": (_list, _need),
            "templates": (_list, list),
            "vapps": (_list, list),
            "disks": (_list, list),
        },
    )
    for kind in ("templates", "vapps"):
        vdc[kind] = [_container(c, f"{where}, {x.get('name') if isinstance(x, dict) else x}", x, kind == "templates") for x in vdc[kind]]
    vdc["profiles"] = [
        c.take(f"{where}, profile", p, {"name": (_text, _need), "datastores": (_list, _need)}) for p in vdc["profiles"] or []
    ]
    fields: dict[str, Any] = {
        "name": (_text, _need),
        "size": (_size, _need),
        "used": (_size, 0),
        "datastore": (_text, _need),
        "vm": (_text, ""),
    }
    vdc["disks"] = [c.take(f"{where}, disk", d, fields) for d in vdc["disks"]]
    return vdc


def check(data: Any) -> dict[str, Any]:
    """Check a model's shape. Raises LabError with every mistake."""
    c = base._Checker()
    model = c.take(
        "model",
        data,
        {
            "vcenters": (_list, _need),
            "datastores": (_list, _need),
            "orgs": (_list, _need),
            "bulk": (_bulk, None),
            "switches": (base._dict, dict),
        },
    )
    model["vcenters"] = [c.take("vcenter", x, {"name": (_text, _need), "hosts": (_list, _need)}) for x in model["vcenters"] or []]
    fields: dict[str, Any] = {
        "name": (_text, _need),
        "vcenter": (_text, _need),
        "type": (_text, "VMFS5"),
        "capacity": (_size, 1 << 40),
        "other_used": (_size, 0),
        "enabled": (_bool, True),
        "deleted": (_bool, False),
    }
    model["datastores"] = [c.take(f"datastore {i + 1}", d, fields) for i, d in enumerate(model["datastores"] or [])]
    orgs = []
    for i, x in enumerate(model["orgs"] or []):
        org = c.take(f"org {i + 1}", x, {"name": (_text, _need), "full_name": (_text, ""), "vdcs": (_list, list)})
        org["vdcs"] = [_vdc(c, f"org {org['name']}, vDC {j + 1}", v) for j, v in enumerate(org["vdcs"])]
        orgs.append(org)
    model["orgs"] = orgs
    if isinstance(model["bulk"], int) and model["vcenters"]:  # the short form: on all that can be used of the first vCenter
        server = model["vcenters"][0]["name"]
        names = [d["name"] for d in model["datastores"] if d["vcenter"] == server and d["enabled"] and not d["deleted"]]
        model["bulk"] = {"vms": model["bulk"], "vcenter": server, "datastores": names}
    if model["bulk"] is not None:
        fields = {
            "vms": (_count, _need),
            "prefix": (_text, "bulk"),
            "per_vapp": (_count, 10),
            "datastores": (_list, _need),
            "vcenter": (_text, _need),
            "clones_of_ten": (base.size, 3),
        }
        model["bulk"] = c.take("bulk", model["bulk"], fields)
    if not c.errors:
        try:
            build(model)
        except (KeyError, ValueError, IndexError) as e:
            c.errors.append(str(e))
    if c.errors:
        raise LabError("the vCloud model has mistakes:\n  " + "\n  ".join(c.errors))
    return model


def load(path: Path) -> dict[str, Any]:
    """Read and check a model file. Raises LabError."""
    try:
        yaml = importlib.import_module("yaml")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise LabError(f"model {path}: {e.strerror}") from e
    except ImportError as e:
        raise LabError("PyYAML is missing: run the lab with build/venv/bin/python") from e
    except yaml.YAMLError as e:
        raise LabError(f"model {path}: {e}") from e
    return check(data)


class _Builder:
    """Makes a World of a checked model. Raises ValueError for a name that is not there."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.world = World()
        self.by_name: dict[tuple[str, str], Datastore] = {}
        self.round = 0

    def build(self) -> World:
        world = self.world
        for x in self.model["vcenters"]:
            server = VimServer(make_id("vc", x["name"]), x["name"], [str(h) for h in x["hosts"]])
            world.servers[server.id] = server
        for i, x in enumerate(self.model["datastores"]):
            server = self.server(x["vcenter"])
            other = x["other_used"] // MIB
            d = Datastore(
                make_id("ds", x["vcenter"], x["name"]),
                x["name"],
                server,
                f"datastore-{41 + i}",
                x["type"],
                x["capacity"] // MIB,
                other,
                other,
            )
            d.enabled, d.deleted = x["enabled"], x["deleted"]
            if (server.name, d.name) in self.by_name:
                raise ValueError(f"vCenter {server.name} has two datastores {d.name}")
            world.datastores[d.id] = self.by_name[server.name, d.name] = d
        for x in self.model["orgs"]:
            org = Org(make_id("org", x["name"]), x["name"], x["full_name"] or x["name"])
            world.orgs[org.id] = org
            for v in x["vdcs"]:
                self.vdc(org, v)
        if self.model["bulk"]:
            self.bulk(self.model["bulk"])
        return world

    def server(self, name: str) -> VimServer:
        found = next((s for s in self.world.servers.values() if s.name == name), None)
        if found is None:
            raise ValueError(f"no vCenter {name}")
        return found

    def datastore(self, vdc: Vdc, name: str) -> Datastore:
        if (vdc.vc.name, name) not in self.by_name:
            raise ValueError(f"vCenter {vdc.vc.name} has no datastore {name}")
        return self.by_name[vdc.vc.name, name]

    def vdc(self, org: Org, x: dict[str, Any]) -> Vdc:
        vdc = Vdc(make_id("vdc", org.name, x["name"]), x["name"], org, self.server(x["vcenter"]), x["fast_provisioning"], x["enabled"])
        org.vdcs.append(vdc)
        self.world.vdcs[vdc.id] = vdc
        for i, p in enumerate(x["profiles"]):
            stores = [self.datastore(vdc, str(n)) for n in p["datastores"]]
            profile = Profile(make_id("profile", vdc.id, p["name"]), p["name"], vdc, stores, i == 0)
            vdc.profiles.append(profile)
            self.world.profiles[profile.id] = profile
        if not vdc.profiles:
            raise ValueError(f"vDC {vdc.name} has no profile")
        for template in (True, False):
            for y in x["templates" if template else "vapps"]:
                self.container(vdc, y, template)
        for d in x["disks"]:
            vm = self.vm_of(vdc, d["vm"]) if d["vm"] else None
            named = NamedDisk(make_id("disk", vdc.id, d["name"]), d["name"], vdc, vdc.profiles[0], d["size"] // MIB, d["used"] // MIB,
                              self.datastore(vdc, d["datastore"]), vm)  # fmt: skip
            self.world.add_disk(named)
        return vdc

    def vm_of(self, vdc: Vdc, path: str) -> Vm:
        """A VM by CONTAINER/NAME; bases may be in another vDC of the org."""
        container, _slash, name = path.partition("/")
        for v in [vdc, *vdc.org.vdcs]:
            for c in v.containers:
                for vm in c.vms:
                    if c.name == container and vm.name == name:
                        return vm
        raise ValueError(f"no VM {path} in org {vdc.org.name}")

    def container(self, vdc: Vdc, x: dict[str, Any], template: bool) -> Container:
        key = make_id("template" if template else "vapp", vdc.id, x["name"])
        c = Container(key, x["name"], vdc, template, x.get("catalog", ""), CREATED)
        vdc.containers.append(c)
        self.world.containers[c.id] = c
        for y in x["vms"]:
            for name in _names(y):
                self.vm(c, y, name)
        return c

    def vm(self, c: Container, x: dict[str, Any], name: str) -> Vm:
        vdc = c.vdc
        base_vm = self.vm_of(vdc, x["base"]) if x["base"] else None
        home = self.datastore(vdc, x["datastore"])
        profile = next((p for p in vdc.profiles if p.name == x["profile"]), None) if x["profile"] else vdc.profiles[0]
        if profile is None:
            raise ValueError(f"vDC {vdc.name} has no profile {x['profile']}")
        disks = []
        for i, d in enumerate(x["disks"]):
            used = d["used"] if d["used"] is not None else d["size"] // 4
            disks.append(Disk(2000 + i, d["size"] // MIB, used // MIB, self.datastore(vdc, d["datastore"]) if d["datastore"] else home))
        self.round += 1
        host = x["host"] or vdc.vc.hosts[self.round % len(vdc.vc.hosts)]
        power = "off" if c.template else x["power"]
        vm = Vm(
            id=make_id("vm", c.id, name, str(len(c.vms))),
            name=name,
            container=c,
            moref=f"vm-{self.world.next_moref()}",
            host="" if c.template else host,
            power=power,
            cpus=x["cpus"],
            memory_mb=x["memory_mb"],
            guest=x["guest"],
            network=x["network"],
            profile=profile,
            datastore=home,
            disks=disks,
            base=base_vm,
        )
        if base_vm:
            for b in [base_vm, *self.world.bases(base_vm)]:
                self.world.add_shadow(b, home)  # nothing where the base itself lives
        self.world.add_vm(vm)
        return vm

    def bulk(self, x: dict[str, Any]) -> None:
        """Many VMs in orgs of their own, three of ten linked clones of a template unless said otherwise."""
        stores = [str(n) for n in x["datastores"]]
        prefix, left, n = x["prefix"], x["vms"], 0
        while left > 0:
            here = min(left, 1000)
            left -= here
            n += 1
            org = Org(make_id("org", f"{prefix}{n}"), f"{prefix}{n}", f"Bulk {n}")
            self.world.orgs[org.id] = org
            shape: dict[str, Any] = {
                "name": f"{prefix}{n}-vdc",
                "vcenter": x["vcenter"],
                "fast_provisioning": True,
                "enabled": True,
                "disks": [],
            }
            shape["profiles"] = [{"name": "Any", "datastores": stores}]
            shape["templates"] = [{"name": "base", "catalog": "bulk", "vms": [_plain("base", stores[n % len(stores)])]}]
            shape["vapps"] = []
            vdc = self.vdc(org, shape)
            for i in range(0, here - 1, x["per_vapp"]):
                vms = []
                for j in range(i, min(i + x["per_vapp"], here - 1)):
                    clone = j % 10 < x["clones_of_ten"]
                    vms.append(
                        _plain(
                            f"{prefix}{n}-{j:04d}",
                            stores[n % len(stores)] if clone else stores[j % len(stores)],
                            "base/base" if clone else "",
                        )
                    )
                self.container(vdc, {"name": f"{prefix}{n}-app{i // x['per_vapp']:03d}", "vms": vms}, False)


def _names(x: dict[str, Any]) -> Iterator[str]:
    for i in range(x["first"], x["first"] + x["count"]):
        yield x["name"].replace("%02d", f"{i:02d}").replace("%d", str(i))


def _plain(name: str, datastore: str, base_vm: str = "") -> dict[str, Any]:
    used = 1 if base_vm else 4
    disk = {"size": 20 << 30, "used": used << 30, "datastore": ""}
    return {"name": name, "count": 1, "first": 1, "datastore": datastore, "profile": "", "host": "", "power": "on", "cpus": 1, "memory_mb": 1024,
            "guest": "Other Linux (64-bit)", "network": "net1", "base": base_vm, "disks": [disk]}  # fmt: skip


def build(model: dict[str, Any]) -> World:
    """The World of a checked model. Raises ValueError."""
    return _Builder(model).build()
