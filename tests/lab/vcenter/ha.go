// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// protect is vSphere HA, where a cluster has it and the switch ha_restart_seconds is set: VMs that died with their host are restarted on
// others of the cluster that have their files. References: vSphere Availability, "How vSphere HA Works"; ClusterDasConfigInfo;
// DasHostFailedEvent, VmRestartedOnAlternateHostEvent, VmFailoverFailed.
func (l *Lab) protect(sim *simulator.Context, h *simulator.HostSystem) {
	cr, cluster := computeOf(sim, h.Self)
	config := clusterConfig(sim, h)
	wait := l.switches.Number("ha_restart_seconds", "", -1)
	if cluster == nil || !isTrue(config.DasConfig.Enabled) || wait < 0 {
		return
	}
	time.AfterFunc(time.Duration(wait*float64(time.Second)), func() {
		sim := l.context()
		if !l.moves.is(l.moves.dead, h.Self) {
			return
		}
		failed := &types.DasHostFailedEvent{FailedHost: l.hostArgument(h)}
		failed.ComputeResource = &types.ComputeResourceEventArgument{EntityEventArgument: types.EntityEventArgument{Name: cr.Name},
			ComputeResource: cr.Self}
		failed.Datacenter = l.hostEvent(sim, h).Datacenter
		l.post(sim, failed)
		for _, vm := range l.vmsOn(sim, h) {
			if l.moves.is(l.moves.stopped, vm.Self) {
				sim.WithLock(vm, func() { l.restartElsewhere(sim, vm, h, cr.Host) })
			}
		}
	})
}

// restartElsewhere is called with the VM's lock held.
func (l *Lab) restartElsewhere(sim *simulator.Context, vm *simulator.VirtualMachine, from *simulator.HostSystem,
	hosts []types.ManagedObjectReference) {
	at := from
	for _, ref := range hosts {
		to, ok := sim.Map.Get(ref).(*simulator.HostSystem)
		if !ok || l.available(to) != nil || slices.ContainsFunc(vm.Datastore,
			func(d types.ManagedObjectReference) bool { return !slices.Contains(to.Datastore, d) }) {
			continue
		}
		off := types.VirtualMachinePowerStatePoweredOff
		l.moves.put(l.moves.stopped, vm.Self, false, false)
		sim.Update(vm, append(connection(types.VirtualMachineConnectionStateConnected),
			types.PropertyChange{Name: "runtime.powerState", Val: off}, types.PropertyChange{Name: "runtime.host",
				Val: ref}, types.PropertyChange{Name: "summary.runtime.host", Val: ref}))
		relist(sim, at, "vm", &at.Vm, vm.Self, false)
		relist(sim, to, "vm", &to.Vm, vm.Self, true)
		at = to
		if l.cannotStart(sim, vm) == nil {
			l.start(sim, vm)
			l.post(sim, &types.VmRestartedOnAlternateHostEvent{VmPoweredOnEvent: types.VmPoweredOnEvent{VmEvent: l.vmEvent(vm)},
				SourceHost: l.hostArgument(from)})
			return
		}
	}
	reason := localized(&types.InsufficientHostCapacityFault{})
	l.post(sim, &types.VmFailoverFailed{VmEvent: l.vmEvent(vm), Reason: &reason})
}
