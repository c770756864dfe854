# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cinder's API, scheduler and volume service in one process, because oslo.messaging's fake:// works within a process only.

usage: cinder_all.py --config-file cinder.conf
"""

from cinder import monkey_patch

monkey_patch.patch()  # eventlet: before anything else is imported

import shlex
import sys

import cinder.cmd.scheduler  # noqa: F401  registers the scheduler's options
import os_brick
from cinder import coordination, objects, rpc, service, utils, version
from cinder.cmd import volume as volume_command
from cinder.common import config, constants
from cinder.volume.drivers import nfs
from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import priv_context
from oslo_service import service as oslo_service

_update_volume_stats = nfs.NfsDriver._update_volume_stats


def _with_multiattach(self) -> None:
    """The NFS driver offers no multiattach; in the lab it does. Its volumes are files, which many can open."""
    _update_volume_stats(self)
    self._stats["multiattach"] = True


def main() -> None:
    nfs.NfsDriver._update_volume_stats = _with_multiattach
    conf = cfg.CONF
    objects.register_all()
    conf(sys.argv[1:], project="cinder", version=version.version_string())
    logging.setup(conf, "cinder")
    config.set_middleware_defaults()
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(conf)
    coordination.COORDINATOR.start()
    rpc.init(conf)
    launcher = oslo_service.ServiceLauncher(conf)
    launcher.launch_service(service.Service.create(binary=constants.SCHEDULER_BINARY))
    for backend in conf.enabled_backends:
        conf.register_opt(volume_command.host_opt, group=backend)
        launcher.launch_service(
            service.Service.create(host=f"{conf.host}@{backend}", service_name=backend, binary=constants.VOLUME_BINARY, coordination=True)
        )
    launcher.launch_service(service.WSGIService("osapi_volume"))
    launcher.wait()


main()
