// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Track is changed block tracking of one disk. A changeId is "UUID/sequence"; the sequence goes up with each snapshot.
// References: VirtualDiskFlatVer2BackingInfo.changeId ("the change ID of the virtual disk for the corresponding snapshot or
// virtual machine. This can be used to track incremental changes to a virtual disk"); VDDK Programming Guide, "Changed Block
// Tracking on Virtual Disks", has samples such as "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446".
type Track struct {
	uuid  string
	seq   int64
	given int64             // the highest sequence of this UUID
	since map[int64]*Bitmap // by sequence: what changed from there to the next
	used  *Bitmap           // what "*" answers
	whole bool              // "*" cannot tell: the answer is the whole disk
}

func changeUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[0] = 0x52
	return fmt.Sprintf("% x-% x", b[:8], b[8:])
}

// newTrack starts tracking. "*" is only good where tracking began without snapshots (VDDK Programming Guide, "Querying All Changed
// Disk Areas": "the virtual machine must have no snapshots when CBT is enabled"), on VMFS.
func newTrack(v *VDisk, eager, vmfs, snapshots bool) *Track {
	t := &Track{uuid: changeUUID(), seq: 1, given: 1, since: map[int64]*Bitmap{1: NewBitmap()}, used: NewBitmap(), whole: eager || !vmfs || snapshots}
	if t.whole {
		return t
	}
	for _, layer := range v.layers {
		if layer.store == nil {
			continue
		}
		areas, err := layer.store.Extents()
		if err != nil {
			t.whole = true
		}
		for _, a := range areas {
			t.used.Mark(a.Start, a.Length)
		}
	}
	return t
}

func (t *Track) id() string { return fmt.Sprintf("%s/%d", t.uuid, t.seq) }

func (t *Track) mark(off, n int64, tracked bool) {
	if tracked {
		t.since[t.seq].Mark(off, n)
	}
	t.used.Mark(off, n)
}

// roll ends an epoch: what is changed from now on is after the changeId that it gives.
func (t *Track) roll() string {
	t.seq++
	t.given = max(t.given, t.seq)
	t.since[t.seq] = NewBitmap()
	return t.id()
}

// lower makes the sequence go back, which the product never should.
func (t *Track) lower(seq int64) {
	t.seq = max(seq, 1)
	for s := range t.since {
		if s >= t.seq {
			delete(t.since, s)
		}
	}
	t.since[t.seq] = NewBitmap()
}

// between are the areas that changed from one sequence to another.
func (t *Track) between(from, to, capacity int64) []Area {
	sum := NewBitmap()
	for s := from; s < to; s++ {
		if b := t.since[s]; b != nil {
			sum.Or(b)
		}
	}
	return sum.Areas(capacity)
}

// miss leaves out areas as the switch says: "every:N" (each Nth one), or "start-end" in bytes.
func miss(areas []Area, rule string) (left []Area) {
	if n, ok := strings.CutPrefix(rule, "every:"); ok {
		every, _ := strconv.Atoi(n)
		for i, a := range areas {
			if every < 1 || (i+1)%every != 0 {
				left = append(left, a)
			}
		}
		return left
	}
	var start, end int64
	_, _ = fmt.Sscanf(rule, "%d-%d", &start, &end)
	for _, a := range areas {
		stop := a.Start + a.Length
		if head := min(stop, start); a.Start < head {
			left = append(left, Area{a.Start, head - a.Start})
		}
		if tail := max(a.Start, end); tail < stop {
			left = append(left, Area{tail, stop - tail})
		}
	}
	return left
}

// QueryChangedDiskAreas: reference: VirtualMachine.QueryChangedDiskAreas: snapshot ("if not set, changes are computed against the
// "current" snapshot … will only work for virtual machines that are powered off"), startOffset ("callers will make multiple calls
// … and then examine the "length" property"), changeId; faults FileFault ("if the virtual disk files cannot be opened/queried"),
// NotFound ("if there is no such disk or snapshot": a snapshot that is gone answers ManagedObjectNotFound), InvalidArgument.
func (v *VirtualMachine) QueryChangedDiskAreas(ctx *simulator.Context, req *types.QueryChangedDiskAreas) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	info, fault := v.lab.changedAreas(v.VirtualMachine, req)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
	return body
}

func (l *Lab) changedAreas(vm *simulator.VirtualMachine, req *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	g, err := l.guest(&vm.VirtualMachine)
	if err != nil {
		return nil, &types.FileFault{File: err.Error()}
	}
	time.Sleep(time.Duration(l.switches.Number("cbt_query_ms", vm.Name, 0) * float64(time.Millisecond)))
	g.mu.Lock()
	defer g.mu.Unlock()
	wrong := func(name string) (*types.DiskChangeInfo, types.BaseMethodFault) {
		return nil, &types.InvalidArgument{InvalidProperty: name}
	}
	disk := g.disks[req.DeviceKey]
	var at *FrozenDisk
	switch {
	case req.Snapshot != nil:
		snap := g.snaps[req.Snapshot.Value]
		if snap == nil {
			return nil, &types.NotFound{}
		}
		if at = snap.disks[req.DeviceKey]; at == nil {
			return wrong("deviceKey")
		}
	case disk == nil:
		return wrong("deviceKey")
	case g.running:
		return nil, &types.InvalidPowerState{RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: types.VirtualMachinePowerStatePoweredOn}
	default:
		at = &FrozenDisk{layer: disk.top, capacity: disk.capacity}
		if t := disk.track; t != nil {
			at.uuid, at.seq, at.used, at.whole = t.uuid, t.seq+1, t.used, t.whole
		}
	}
	if req.StartOffset < 0 || req.StartOffset >= at.capacity {
		return wrong("startOffset")
	}
	bad := &types.FileFault{File: at.layer.name}
	if at.uuid == "" || l.faults.Take("cbt_file_fault", vm.Name) != nil {
		return nil, bad
	}
	var areas []Area
	if req.ChangeId == "*" {
		if l.switches.On("cbt_star_fault", vm.Name, req.DeviceKey) {
			return nil, bad
		}
		areas = []Area{{0, at.capacity}}
		if !at.whole && !l.switches.On("cbt_star_whole", vm.Name, req.DeviceKey) {
			areas = at.used.Areas(at.capacity)
		}
		if rule := l.switches.Get("cbt_star_miss", vm.Name, req.DeviceKey); rule != "" {
			areas = miss(areas, rule)
		}
	} else {
		uuid, number, _ := strings.Cut(req.ChangeId, "/")
		from, err := strconv.ParseInt(number, 10, 64)
		if err != nil || disk == nil || disk.track == nil || uuid != at.uuid || uuid != disk.track.uuid || from < 1 || from > disk.track.given {
			return nil, bad
		}
		areas = disk.track.between(from, at.seq, at.capacity)
		if rule := l.switches.Get("cbt_miss", vm.Name, req.DeviceKey); rule != "" {
			areas = miss(areas, rule)
		}
	}
	parts, _ := strconv.Atoi(l.switches.Get("cbt_parts", vm.Name, req.DeviceKey))
	info := &types.DiskChangeInfo{StartOffset: req.StartOffset, Length: at.capacity - req.StartOffset}
	for _, a := range areas {
		if start := max(a.Start, req.StartOffset); start < a.Start+a.Length {
			if parts > 0 && len(info.ChangedArea) == parts {
				last := info.ChangedArea[parts-1]
				info.Length = last.Start + last.Length - req.StartOffset
				break
			}
			info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: start, Length: a.Start + a.Length - start})
		}
	}
	return info, nil
}
