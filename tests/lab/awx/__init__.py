# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An AWX's API at the wire, for tests: what it answers is made of answers that were recorded from AWX 24.6.1. README.md beside this file."""
