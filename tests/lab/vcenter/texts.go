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
	case *types.GenericVmConfigFault:
		return f.Reason
	case *types.HostNotConnected:
		return "Unable to communicate with the remote host, since it is disconnected."
	case *types.InvalidHostState:
		return "The operation is not allowed in the current state of the host."
	case *types.NoDiskSpace:
		return "Insufficient disk space on datastore '" + f.Datastore + "'."
	case *types.CannotAccessVmConfig:
		return "Unable to access the virtual machine configuration: " + f.Reason.LocalizedMessage
	case *types.CannotAccessVmDisk:
		return "Virtual disk '" + f.Device + "' is not accessible on the host: " + f.Fault.LocalizedMessage
	case *types.CannotAccessNetwork:
		return "Network interface '" + f.Device + "' uses network '" + f.Backing + "', which is not accessible."
	case *types.CannotAccessVmDevice:
		return "Device '" + f.Device + "' uses backing '" + f.Backing + "', which is not accessible."
	case *types.DeviceNotSupported:
		return "Device '" + f.Device + "' is not supported."
	case *types.CpuIncompatible1ECX:
		return "The target host does not support the virtual machine's current hardware requirements."
	case *types.VMotionNotConfigured:
		return "The VMotion interface is not configured (or is misconfigured) on host '" + f.FailedHost + "'."
	case *types.VmHostAffinityRuleViolation:
		return "Virtual machine '" + f.VmName + "' on host '" + f.HostName + "' would violate a virtual machine - host affinity rule."
	case *types.RuleViolation:
		return "The virtual machine would violate the rule '" + f.Rule.GetClusterRuleInfo().Name + "'."
	case *types.InvalidDatastore:
		return "Invalid datastore '" + f.Name + "'."
	case *types.AlreadyExists:
		return "The specified key, name, or identifier '" + f.Name + "' already exists."
	case *types.DuplicateName:
		return "The name '" + f.Name + "' already exists."
	case *types.NoHost:
		return "Host '" + f.Name + "' could not be reached."
	case *types.InsufficientMemoryResourcesFault:
		return "The amount of memory resource available in the host is insufficient for the operation."
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
