// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"os"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// used says whether a snapshot is on a layer.
func (g *Guest) used(key int32, layer *Layer) bool {
	for _, f := range g.snaps {
		if d := f.disks[key]; d != nil && d.layer == layer {
			return true
		}
	}
	return false
}

// loose finds a layer that no snapshot needs: the one to merge into, and the child that is merged into it (nil: it can be
// dropped). The caller holds mu.
func (l *Lab) loose(g *Guest) (v *VDisk, into, child *Layer) {
	for _, v := range g.disks {
		for _, layer := range v.layers {
			if layer == v.top || g.used(v.key, layer) {
				continue
			}
			switch children := v.children(layer); {
			case len(children) == 0 && layer.parent != nil:
				return v, layer, nil
			case len(children) == 1:
				return v, layer, children[0]
			}
		}
	}
	return nil, nil, nil
}

func (l *Lab) waiting(g *Guest) bool {
	v, _, _ := l.loose(g)
	return v != nil
}

// consolidate merges every layer that no snapshot needs into its parent, at the speed that the switches say, while the guest goes
// on writing: its writes go to both files from the beginning of the merge. Reference: vSphere Virtual Machine Administration,
// "Consolidate Snapshots"; VMware KB 2002779. The files that a lease of NFC reads are locked.
func (l *Lab) consolidate(sim *simulator.Context, t *simulator.Task, vm *simulator.VirtualMachine, g *Guest) types.BaseMethodFault {
	start, done, total := time.Now(), int64(0), int64(1)
	g.mu.Lock()
	g.merging = true
	defer func() {
		g.mu.Lock()
		g.merging = false
		g.mu.Unlock()
	}()
	for _, v := range g.disks {
		for _, layer := range v.layers {
			if layer.parent != nil && layer.store != nil && !g.used(v.key, layer.parent) {
				areas, _ := layer.store.Extents()
				for _, a := range areas {
					total += a.Length
				}
			}
		}
	}
	g.mu.Unlock()
	seconds := l.switches.Number("consolidate_seconds", vm.Name, 0)
	rate := l.switches.Number("consolidate_rate", vm.Name, 0)
	if seconds > 0 {
		rate = float64(total) / seconds
	}
	pace := func(n int64) {
		done += n
		if rate > 0 {
			left := time.Duration(float64(done)/rate*float64(time.Second)) - time.Since(start)
			pause(sim, t, left.Seconds(), 5+int(90*min((done-n)*100/total, 100)/100), 5+int(90*min(done*100/total, 100)/100))
		}
	}
	for {
		g.mu.Lock()
		v, into, child := l.loose(g)
		if v == nil {
			g.mu.Unlock()
			break
		}
		if g.leases[into] > 0 || child != nil && g.leases[child] > 0 {
			g.mu.Unlock()
			return &types.FileLocked{FileFault: types.FileFault{File: into.name}}
		}
		if child == nil {
			l.drop(v, into)
			g.mu.Unlock()
			continue
		}
		err := l.merge(vm, g, v, into, child, pace)
		g.mu.Unlock()
		if err != nil {
			return &types.FileFault{File: err.Error()}
		}
		sim.WithLock(vm, func() { l.configure(sim, &vm.VirtualMachine, g) })
	}
	if seconds > 0 {
		pause(sim, t, seconds-time.Since(start).Seconds(), 95, 99)
	}
	sim.WithLock(vm, func() {
		g.mu.Lock()
		g.stale = false
		g.mu.Unlock()
		l.stun(vm, g)
		l.configure(sim, &vm.VirtualMachine, g)
	})
	return nil
}

// merge copies a child's bytes into its parent, and puts the parent in its place. It is called with mu held, and gives it back now
// and then. The parent keeps its name and its CID, which the children of the child then name as theirs.
func (l *Lab) merge(vm *simulator.VirtualMachine, g *Guest, v *VDisk, into, child *Layer, pace func(int64)) error {
	if child.store != nil {
		areas, err := child.store.Extents()
		if err != nil {
			return err
		}
		if child == v.top {
			v.mirror = into
			defer func() { v.mirror = nil }()
		}
		buffer := make([]byte, 1<<20)
		for _, a := range areas {
			for at := a.Start; at < a.Start+a.Length; {
				p := buffer[:min(int64(len(buffer)), a.Start+a.Length-at)]
				if err = child.ReadAt(p, at); err == nil {
					err = into.Write(p, at)
				}
				if err != nil {
					return err
				}
				at += int64(len(p))
				g.mu.Unlock()
				pace(int64(len(p)))
				g.mu.Lock()
			}
		}
	}
	for _, f := range g.snaps {
		if d := f.disks[v.key]; d != nil && d.layer == child {
			d.layer = into
		}
	}
	if child == v.top {
		v.top = into
	}
	below := v.children(child)
	l.drop(v, child)
	for _, next := range below {
		next.parent = into
		if next.store != nil {
			if err := l.describe(v, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// RevertToSnapshotTask: reference: VirtualMachineSnapshot.RevertToSnapshot_Task ("change the execution state of the virtual machine
// to the state of this snapshot"): a snapshot without memory leaves the VM powered off.
func (s *VirtualMachineSnapshot) RevertToSnapshotTask(ctx *simulator.Context, _ *types.RevertToSnapshot_Task) soap.HasFault {
	body := &methods.RevertToSnapshot_TaskBody{}
	ref, fault := s.lab.revert(ctx, s.Vm, s.Self, "RevertToSnapshotTask")
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.RevertToSnapshot_TaskResponse{Returnval: ref}
	return body
}

// RevertToCurrentSnapshotTask: reference: VirtualMachine.RevertToCurrentSnapshot_Task; fault NotFound "if the virtual machine does
// not have a current snapshot".
func (v *VirtualMachine) RevertToCurrentSnapshotTask(ctx *simulator.Context, _ *types.RevertToCurrentSnapshot_Task) soap.HasFault {
	body := &methods.RevertToCurrentSnapshot_TaskBody{}
	if v.Snapshot == nil || v.Snapshot.CurrentSnapshot == nil {
		body.Fault_ = simulator.Fault("There is no current snapshot.", &types.NotFound{})
		return body
	}
	ref, fault := v.lab.revert(ctx, v.Self, *v.Snapshot.CurrentSnapshot, "RevertToCurrentSnapshotTask")
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.RevertToCurrentSnapshot_TaskResponse{Returnval: ref}
	return body
}

func (l *Lab) revert(ctx *simulator.Context, of, to types.ManagedObjectReference, task string) (ref types.ManagedObjectReference, fault types.BaseMethodFault) {
	vm, ok := ctx.Map.Get(of).(*simulator.VirtualMachine)
	if !ok {
		return ref, &types.ManagedObjectNotFound{Obj: of}
	}
	var g *Guest
	ctx.WithLock(vm, func() { g, fault = l.begin(vm) })
	if fault != nil {
		return ref, fault
	}
	return l.task(ctx, vm, task, func(sim *simulator.Context, _ *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		defer g.busy.Store(false)
		var err error
		sim.WithLock(vm, func() {
			l.powerDown(sim, vm)
			g.mu.Lock()
			f := g.snaps[to.Value]
			if f == nil {
				err = os.ErrNotExist
			} else {
				err = l.rewind(vm.Name, g, f)
			}
			g.mu.Unlock()
			if err == nil {
				info := *vm.Snapshot
				info.CurrentSnapshot = &to
				l.configure(sim, &vm.VirtualMachine, g, snapshotChanges(&info)...)
			}
		})
		if err != nil {
			return nil, &types.FileFault{File: err.Error()}
		}
		return nil, nil
	}), nil
}

// rewind puts a new delta over a snapshot's layer, and drops what the VM wrote to until now.
func (l *Lab) rewind(vm string, g *Guest, f *Frozen) error {
	for key, d := range f.disks {
		v := g.disks[key]
		if v == nil {
			continue
		}
		old := v.top
		if _, err := l.grow(v, d.layer, l.deltaFormat(vm, v)); err != nil {
			return err
		}
		if !g.used(key, old) && len(v.children(old)) == 0 && old.parent != nil {
			l.drop(v, old)
		}
		t := v.track
		if t == nil || d.uuid == "" {
			continue
		}
		t.used = d.used.Clone()
		switch l.switches.Get("cbt_revert", vm, key) {
		case "keep":
			t.roll()
		case "lower":
			t.lower(d.seq)
			t.given = t.seq
		default:
			t.reset()
		}
	}
	g.stale = l.waiting(g)
	return nil
}

// reset begins with another UUID: every changeId until now is unknown. "*" can only be the whole disk, where snapshots are there.
func (t *Track) reset() {
	t.uuid, t.seq, t.given = changeUUID(), 1, 1
	t.since = map[int64]*Bitmap{1: NewBitmap()}
}
