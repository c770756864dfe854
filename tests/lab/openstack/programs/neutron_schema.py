# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Neutron's database on SQLite, for which its migrations are not written: the head schema is created from the models.

Also what its migrations insert (the default rules of security groups) and one Open vSwitch agent that never runs, so
that ML2 binds ports on the host "lab". Stamping the schema as migrated is left to neutron-db-manage.

usage: neutron_schema.py --config-file neutron.conf
"""

import datetime
import json
import sys
import uuid

from neutron.common import config
from oslo_config import cfg

config.register_common_config_options()
config.init(sys.argv[1:])

import sqlalchemy
from neutron.db.migration.models import head
from neutron.objects import securitygroup_default_rules
from neutron_lib import context
from neutron_lib.db import api as db_api
from oslo_db import options

AGENT = {
    "bridge_mappings": {"physnet1": "br-ex"},
    "tunnel_types": [],
    "tunneling_ip": "127.0.0.1",
    "datapath_type": "system",
    "ovs_capabilities": {"datapath_types": ["netdev", "system"], "iface_types": ["internal", "system", "tap"]},
    "integration_bridge": "br-int",
    "vhostuser_socket_dir": "/var/run/openvswitch",
}


def add_default_rules() -> None:
    admin = context.get_admin_context()
    rule = securitygroup_default_rules.SecurityGroupDefaultRule
    with db_api.CONTEXT_WRITER.using(admin):
        for ethertype in ("IPv4", "IPv6"):
            rule(admin, direction="egress", ethertype=ethertype, used_in_default_sg=True, used_in_non_default_sg=True).create()
            rule(
                admin,
                direction="ingress",
                ethertype=ethertype,
                remote_group_id="PARENT",
                used_in_default_sg=True,
                used_in_non_default_sg=False,
            ).create()


def add_agent(engine: sqlalchemy.Engine, agents: sqlalchemy.Table) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None, microsecond=0)
    row = {
        "id": str(uuid.uuid4()),
        "agent_type": "Open vSwitch agent",
        "binary": "neutron-openvswitch-agent",
        "topic": "N/A",
        "host": "lab",
        "availability_zone": "nova",
        "admin_state_up": True,
        "created_at": now,
        "started_at": now,
        "heartbeat_timestamp": now + datetime.timedelta(days=3650),
        "configurations": json.dumps(AGENT),
        "load": 0,
    }
    with engine.begin() as connection:
        connection.execute(agents.insert().values(row))


def main() -> None:
    cfg.CONF.register_opts(options.database_opts, "database")
    engine = sqlalchemy.create_engine(cfg.CONF.database.connection)
    metadata = head.get_metadata()
    metadata.create_all(engine)
    add_default_rules()
    add_agent(engine, metadata.tables["agents"])


main()
