// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Guest is what a VM has beside its managed object: the bytes of its disks, its snapshots, what its guest wrote. The order of
// locks is: the managed object's, then mu.
type Guest struct {
	mu       sync.Mutex // a write of the guest and a freezing exclude each other
	ref      types.ManagedObjectReference
	name     string
	running  bool
	busy     atomic.Bool // a snapshot operation or a move is under way
	moving   atomic.Bool // a move is
	disks    map[int32]*VDisk
	snaps    map[string]*Frozen
	sequence int64 // of the guest's writes
	stale    bool  // layers wait for consolidation
	merging  bool  // a consolidation is under way
	late     bool  // change tracking was switched on while there were snapshots
	leases   map[*Layer]int
	lease    *HttpNfcLease
}

// Frozen is a snapshot's bytes.
type Frozen struct {
	ref      types.ManagedObjectReference
	name     string
	created  time.Time
	sequence int64 // of the guest's last write before it
	disks    map[int32]*FrozenDisk
}

type FrozenDisk struct {
	layer    *Layer
	capacity int64
	writes   int64 // of the guest on this disk before it
	uuid     string
	seq      int64
	used     *Bitmap
	whole    bool
}

func (f *FrozenDisk) changeID() string {
	if f.uuid == "" {
		return ""
	}
	return fmt.Sprintf("%s/%d", f.uuid, f.seq)
}

// guest gives what belongs to a VM, with the disks that it has now; the caller holds the VM's lock.
func (l *Lab) guest(vm *mo.VirtualMachine) (*Guest, error) {
	l.guestsMu.Lock()
	g := l.guests[vm.Self]
	if g == nil {
		g = &Guest{ref: vm.Self, disks: map[int32]*VDisk{}, snaps: map[string]*Frozen{}, leases: map[*Layer]int{}}
		l.guests[vm.Self] = g
	}
	l.guestsMu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.name = vm.Name
	g.running = vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && !l.moves.is(l.moves.stopped, vm.Self)
	kept := map[int32]bool{}
	for _, d := range flatDisks(vm.Config.Hardware.Device) {
		kept[d.Key] = true
		v := g.disks[d.Key]
		if v != nil && v.root == rootOf(d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)) {
			v.capacity = max(v.capacity, d.CapacityInBytes)
			continue
		}
		v, err := l.openDisk(d)
		if err != nil {
			return nil, err
		}
		v.address = diskAddress(vm.Config.Hardware.Device, d)
		g.disks[d.Key] = v
	}
	for key, v := range g.disks {
		if !kept[key] {
			v.close()
			delete(g.disks, key)
		}
	}
	return g, nil
}

func rootOf(b *types.VirtualDiskFlatVer2BackingInfo) string {
	for b.Parent != nil {
		b = b.Parent
	}
	return b.FileName
}

// forget is called when a VM is gone.
func (l *Lab) forget(ref types.ManagedObjectReference) {
	l.guestsMu.Lock()
	g := l.guests[ref]
	delete(l.guests, ref)
	l.guestsMu.Unlock()
	if g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, v := range g.disks {
			v.close()
		}
	}
}

// diskAddress is a disk's name in the configuration file: scsi0:0, sata0:1, ide1:0, nvme0:0.
func diskAddress(devices []types.BaseVirtualDevice, d *types.VirtualDisk) string {
	unit := int32(0)
	if d.UnitNumber != nil {
		unit = *d.UnitNumber
	}
	for _, x := range devices {
		c, ok := x.(types.BaseVirtualController)
		if !ok || x.GetVirtualDevice().Key != d.ControllerKey {
			continue
		}
		kind := "scsi"
		switch x.(type) {
		case *types.VirtualIDEController:
			kind = "ide"
		case *types.VirtualNVMEController:
			kind = "nvme"
		case types.BaseVirtualSATAController:
			kind = "sata"
		}
		return fmt.Sprintf("%s%d:%d", kind, c.GetVirtualController().BusNumber, unit)
	}
	return ""
}

// deltaFormat: seSparse on VMFS 6 and for disks of 2 TB and more, else COWD. Reference: vSphere Virtual Machine Administration,
// "Snapshot Files": "SEsparse is the default format for all delta disks on the VMFS6 datastores … on VMFS5 for virtual disks of
// 2 TB and larger"; NFS and vSAN have their own, for which COWD stands here.
func (l *Lab) deltaFormat(vm string, v *VDisk) string {
	if f := l.switches.Get("delta_format", vm, v.key); f != "" {
		return f
	}
	if state := l.datastoreOf(v.root); v.capacity >= 2<<40 || state != nil && state.Model.Type == "VMFS" && state.Model.VMFS != 5 {
		return formatSESparse
	}
	return formatCOWD
}

func (l *Lab) datastoreOf(name string) *DatastoreState {
	store, _, _ := strings.Cut(strings.TrimPrefix(name, "["), "]")
	return l.datastores[store]
}

// configure puts the running layers and changeIds into the VM's configuration, and the frozen ones into its snapshots'.
// The caller holds the VM's lock.
func (l *Lab) configure(sim *simulator.Context, vm *mo.VirtualMachine, g *Guest, more ...types.PropertyChange) {
	g.mu.Lock()
	devices := l.devices(vm.Config.Hardware.Device, func(key int32) (*Layer, string) {
		v := g.disks[key]
		if v == nil {
			return nil, ""
		}
		if v.track != nil {
			return v.top, v.track.id()
		}
		return v.top, ""
	})
	for _, f := range g.snaps {
		snap, ok := sim.Map.Get(f.ref).(*simulator.VirtualMachineSnapshot)
		if !ok {
			continue
		}
		frozen := l.devices(snap.Config.Hardware.Device, f.backing)
		sim.WithLock(snap, func() {
			sim.Update(snap, []types.PropertyChange{{Name: "config.hardware.device", Val: frozen}})
		})
	}
	stale := g.stale
	options, changed := g.extraConfig(vm)
	g.mu.Unlock()
	changes := append([]types.PropertyChange{{Name: "config.hardware.device", Val: devices}}, more...)
	if changed {
		changes = append(changes, types.PropertyChange{Name: "config.extraConfig", Val: options})
	}
	if vm.Runtime.ConsolidationNeeded == nil || *vm.Runtime.ConsolidationNeeded != stale {
		changes = append(changes, types.PropertyChange{Name: "runtime.consolidationNeeded", Val: stale},
			types.PropertyChange{Name: "summary.runtime.consolidationNeeded", Val: stale})
	}
	sim.Update(vm, changes)
	for _, ref := range vm.Datastore {
		for _, s := range l.datastores {
			if s.Ref == ref {
				l.refreshDatastore(s)
			}
		}
	}
}

func (f *Frozen) backing(key int32) (*Layer, string) {
	if d := f.disks[key]; d != nil {
		return d.layer, d.changeID()
	}
	return nil, ""
}

// devices copies a list of devices, with other backings of disks.
func (l *Lab) devices(old []types.BaseVirtualDevice, of func(key int32) (*Layer, string)) []types.BaseVirtualDevice {
	devices := slices.Clone(old)
	for i, x := range devices {
		d, ok := x.(*types.VirtualDisk)
		if !ok {
			continue
		}
		b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if layer, change := of(d.Key); ok && layer != nil {
			copied := *d
			copied.Backing = l.backing(b, layer, change)
			devices[i] = &copied
		}
	}
	return devices
}

// task runs work on a VM without holding the VM's lock: a consolidation takes its time, while the VM can be read.
func (l *Lab) task(ctx *simulator.Context, vm *simulator.VirtualMachine, name string,
	work func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault)) types.ManagedObjectReference {
	return l.taskOn(ctx, vm.Self, vm.Name, name, "VirtualMachine."+strings.ToLower(name[:1])+strings.TrimSuffix(name[1:], "Task"), work)
}

// taskOn does so for any object. The simulator's own tasks lock their entity, so the task gets a name of ours for an entity until it runs.
func (l *Lab) taskOn(ctx *simulator.Context, self types.ManagedObjectReference, of, name, description string,
	work func(sim *simulator.Context, t *simulator.Task) (types.AnyType, types.BaseMethodFault)) types.ManagedObjectReference {
	stand := types.ManagedObjectReference{Type: "FerryTask", Value: fmt.Sprint(l.tasks.Add(1))}
	started := make(chan struct{})
	t := simulator.CreateTask(stand, name, func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		<-started
		return work(l.context(), t)
	})
	ref := t.Run(ctx)
	ctx.WithLock(t, func() {
		t.Info.Entity, t.Info.EntityName = &self, of
		t.Info.DescriptionId = description
	})
	close(started)
	return ref
}

// progress of a task, in percent.
func progress(sim *simulator.Context, t *simulator.Task, percent int) {
	sim.WithLock(t, func() { sim.Update(t, []types.PropertyChange{{Name: "info.progress", Val: int32(percent)}}) })
}

// pause sleeps, with progress from one percentage to another.
func pause(sim *simulator.Context, t *simulator.Task, seconds float64, from, to int) {
	for end, start := time.Now().Add(time.Duration(seconds*float64(time.Second))), time.Now(); ; {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, 50*time.Millisecond))
		progress(sim, t, from+int(float64(to-from)*min(time.Since(start).Seconds()/seconds, 1)))
	}
}
