// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Checker tells what a move would fail on. Reference: VirtualMachineProvisioningChecker: CheckMigrate_Task, CheckRelocate_Task ("tests the
// feasibility of a proposed RelocateVM_Task operation"), QueryVMotionCompatibilityEx_Task ("investigates the general VMotion compatibility
// of a set of virtual machines with a set of hosts"); the tests of testType are not told apart.
type Checker struct {
	*simulator.VmProvisioningChecker
	lab *Lab
}

func (l *Lab) checked(sim *simulator.Context, ref types.ManagedObjectReference, spec *types.VirtualMachineRelocateSpec,
	state types.VirtualMachinePowerState) (types.CheckResult, types.BaseMethodFault) {
	result := types.CheckResult{Vm: &ref, Host: spec.Host}
	vm, ok := sim.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return result, &types.ManagedObjectNotFound{Obj: ref}
	}
	var errors, warnings []types.BaseMethodFault
	sim.WithLock(vm, func() {
		m, fault := l.planMove(sim, vm, spec)
		if fault != nil {
			errors = append(errors, fault)
			return
		}
		result.Host = &m.to.Self
		errors, warnings = l.checkMove(sim, m)
		if state != "" && state != vm.Runtime.PowerState {
			errors = append(errors, &types.InvalidPowerState{RequestedState: state, ExistingState: vm.Runtime.PowerState})
		}
	})
	for _, f := range errors {
		result.Error = append(result.Error, localized(f))
	}
	for _, f := range warnings {
		result.Warning = append(result.Warning, localized(f))
	}
	return result, nil
}

func (c *Checker) task(ctx *simulator.Context, name, description string, vm types.ManagedObjectReference,
	work func(sim *simulator.Context) ([]types.CheckResult, types.BaseMethodFault)) types.ManagedObjectReference {
	return c.lab.taskOn(ctx, vm, c.lab.nameOf(vm), name, description, func(sim *simulator.Context, _ *simulator.Task) (types.AnyType,
		types.BaseMethodFault) {
		results, fault := work(sim)
		if fault != nil {
			return nil, fault
		}
		return types.ArrayOfCheckResult{CheckResult: results}, nil
	})
}

func (c *Checker) CheckRelocateTask(ctx *simulator.Context, req *types.CheckRelocate_Task) soap.HasFault {
	ref := c.task(ctx, "CheckRelocateTask", "vm.check.ProvisioningChecker.checkRelocate", req.Vm,
		func(sim *simulator.Context) ([]types.CheckResult, types.BaseMethodFault) {
			r, fault := c.lab.checked(sim, req.Vm, &req.Spec, "")
			return []types.CheckResult{r}, fault
		})
	return &methods.CheckRelocate_TaskBody{Res: &types.CheckRelocate_TaskResponse{Returnval: ref}}
}

// CheckMigrateTask: without a host, every host of the pool is checked: "a CheckResult for each host".
func (c *Checker) CheckMigrateTask(ctx *simulator.Context, req *types.CheckMigrate_Task) soap.HasFault {
	ref := c.task(ctx, "CheckMigrateTask", "vm.check.ProvisioningChecker.checkMigrate", req.Vm,
		func(sim *simulator.Context) (results []types.CheckResult, fault types.BaseMethodFault) {
			hosts := []types.ManagedObjectReference{}
			switch {
			case req.Host != nil:
				hosts = append(hosts, *req.Host)
			case req.Pool != nil:
				owner, _ := computeOf(sim, *req.Pool)
				if owner == nil {
					return nil, &types.ManagedObjectNotFound{Obj: *req.Pool}
				}
				hosts = owner.Host
			default:
				return nil, wrong("host")
			}
			for _, host := range hosts {
				r, fault := c.lab.checked(sim, req.Vm, &types.VirtualMachineRelocateSpec{Host: &host, Pool: req.Pool}, req.State)
				if fault != nil {
					return nil, fault
				}
				results = append(results, r)
			}
			return results, nil
		})
	return &methods.CheckMigrate_TaskBody{Res: &types.CheckMigrate_TaskResponse{Returnval: ref}}
}

// QueryVMotionCompatibilityExTask: VMs that cannot be moved to a host because of it have errors; pools are left out of account.
func (c *Checker) QueryVMotionCompatibilityExTask(ctx *simulator.Context, req *types.QueryVMotionCompatibilityEx_Task) soap.HasFault {
	body := &methods.QueryVMotionCompatibilityEx_TaskBody{}
	if len(req.Vm) == 0 {
		body.Fault_ = simulator.Fault(faultText(wrong("vm")), wrong("vm"))
		return body
	}
	ref := c.task(ctx, "QueryVMotionCompatibilityExTask", "vm.check.ProvisioningChecker.queryVMotionCompatibilityEx", req.Vm[0],
		func(sim *simulator.Context) (results []types.CheckResult, fault types.BaseMethodFault) {
			for _, vm := range req.Vm {
				for _, host := range req.Host {
					spec := &types.VirtualMachineRelocateSpec{Host: &host}
					if owner, _ := computeOf(sim, host); owner != nil {
						spec.Pool = owner.ResourcePool
					}
					r, fault := c.lab.checked(sim, vm, spec, "")
					if fault != nil {
						return nil, fault
					}
					results = append(results, r)
				}
			}
			return results, nil
		})
	body.Res = &types.QueryVMotionCompatibilityEx_TaskResponse{Returnval: ref}
	return body
}
