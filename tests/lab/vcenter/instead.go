// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// instead gives the object that answers in the simulator's place from this call on; nil: the simulator's own does.
func (l *Lab) instead(ctx *simulator.Context, c *simulator.Method) mo.Reference {
	switch o := ctx.Map.Get(c.This).(type) {
	case *simulator.HostSystem:
		return &HostSystem{HostSystem: o, lab: l}
	case *simulator.Folder:
		if c.Name == "RegisterVM_Task" {
			return &Folder{Folder: o, lab: l}
		}
	case *simulator.Task:
		if c.Name == "CancelTask" {
			return &Task{Task: o, lab: l}
		}
	case *simulator.Datacenter:
		if c.Name == "PowerOnMultiVM_Task" {
			return &Datacenter{Datacenter: o, lab: l}
		}
	case *simulator.EventManager:
		return &EventManager{EventManager: o, lab: l}
	case *simulator.AuthorizationManager:
		return &AuthorizationManager{AuthorizationManager: o, lab: l}
	case *simulator.ServiceInstance:
		if c.Name == "CurrentTime" {
			return &ServiceInstance{ServiceInstance: o, lab: l}
		}
	case *simulator.VmProvisioningChecker:
		return &Checker{VmProvisioningChecker: o, lab: l}
	}
	return nil
}

// needHost are the methods of a VM that its host carries out: they answer HostNotConnected where vCenter has lost it.
var needHost = []string{"PowerOffVM_Task", "ResetVM_Task", "SuspendVM_Task", "ShutdownGuest", "RebootGuest", "StandbyGuest",
	"ReconfigVM_Task",
	"CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveAllSnapshots_Task", "ConsolidateVMDisks_Task", "CloneVM_Task", "MarkAsTemplate", "ExportVm",
	"Destroy_Task", "QueryChangedDiskAreas", "UpgradeVM_Task", "RevertToCurrentSnapshot_Task"}

// notMoving are those that a move under way excludes: TaskInProgress.
var notMoving = []string{"PowerOnVM_Task", "PowerOffVM_Task", "ResetVM_Task", "SuspendVM_Task", "ReconfigVM_Task", "CloneVM_Task",
	"MarkAsTemplate", "Destroy_Task",
	"UnregisterVM", "UpgradeVM_Task"}

// unfit refuses what a VM in its state cannot do.
func (l *Lab) unfit(ctx *simulator.Context, c *simulator.Method) types.BaseMethodFault {
	if req, ok := c.Body.(*types.RetrieveEntityPermissions); ok && ctx.Map.Get(req.Entity) == nil { // the simulator would panic, locked
		return &types.ManagedObjectNotFound{Obj: req.Entity}
	}
	vm, ok := ctx.Map.Get(c.This).(*simulator.VirtualMachine)
	if !ok {
		return nil
	}
	if slices.Contains(needHost, c.Name) && vm.Runtime.ConnectionState != types.VirtualMachineConnectionStateConnected {
		return &types.HostNotConnected{}
	}
	if g := l.guestOf(vm.Self); g != nil && g.moving.Load() && slices.Contains(notMoving, c.Name) {
		return &types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-0"}}
	}
	return nil
}
