// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// faultText is what the product says, in locale en_US.
func faultText(fault types.BaseMethodFault) string {
	switch f := fault.(type) {
	case *types.FileLocked:
		return "Unable to access file " + f.File + " since it is locked"
	case *types.FileFault:
		return "Error caused by file " + f.File
	case *types.InvalidArgument:
		return "A specified parameter was not correct: " + f.InvalidProperty
	case *types.TaskInProgress:
		return "The operation is not allowed in the current state: another task is already in progress."
	case *types.InvalidPowerState:
		return "The attempted operation cannot be performed in the current state (" + string(f.ExistingState) + ")."
	case *types.InvalidState:
		return "The operation is not allowed in the current state."
	case *types.ApplicationQuiesceFault, *types.FilesystemQuiesceFault:
		return "An error occurred while quiescing the virtual machine. See the virtual machine's event log for details."
	case *types.SnapshotFault:
		return "An error occurred while taking or removing a snapshot."
	case *types.TooManySnapshotLevels:
		return "The maximum number of snapshot levels has been reached."
	case *types.NotFound:
		return "The requested object was not found."
	case *types.Timedout:
		return "Operation timed out."
	case *types.InsufficientHostCapacityFault:
		return "The host does not have sufficient resources to satisfy the request."
	case *types.InvalidDeviceOperation:
		return "Invalid operation for device '" + f.Property + "'."
	case *types.RequestCanceled:
		return "The task was canceled by a user."
	}
	return "An error occurred."
}

// describeError replaces the name of a Go type, which the simulator writes as a task's message.
func describeError(task *mo.Task) {
	if e := task.Info.Error; e != nil && strings.HasPrefix(e.LocalizedMessage, "*types.") {
		e.LocalizedMessage = faultText(e.Fault)
	}
}
