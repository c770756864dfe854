// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// HttpNfcLease is a lease for an export. Reference: vSphere Web Services API, HttpNfcLease: states initializing, ready, done, error;
// info.leaseTimeout; "the client must call HttpNfcLeaseProgress at regular intervals to keep the lease alive"; the URLs need no
// session, their path holds a ticket.
type HttpNfcLease struct {
	mo.HttpNfcLease
	lab   *Lab
	ctx   *simulator.Context // the session's, for what happens by itself
	guest *Guest
	host  types.ManagedObjectReference
	whole bool // of the VM, not of a snapshot
	token string

	mu       sync.Mutex
	files    map[string]*leaseFile // by the last part of the URL
	order    []string
	timer    *time.Timer
	duration time.Duration
	over     chan struct{} // closed at the end
	ended    bool
}

type leaseFile struct {
	url   types.HttpNfcLeaseDeviceUrl
	layer *Layer
	disk  *VDisk
	size  int64 // capacity in bytes
	local string
	sha1  string // of the last stream that was read to its end
	sent  int64
	data  int64
}

// ExportVm: reference: VirtualMachine.ExportVm, faults InvalidPowerState ("if the virtual machine is powered on"), TaskInProgress.
func (v *VirtualMachine) ExportVm(ctx *simulator.Context, _ *types.ExportVm) soap.HasFault {
	body := &methods.ExportVmBody{}
	if v.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		body.Fault_ = simulator.Fault("The attempted operation cannot be performed in the current state (Powered on).", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: v.Runtime.PowerState})
		return body
	}
	ref, fault := v.lab.export(ctx, v.VirtualMachine, nil)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.ExportVmResponse{Returnval: ref}
	return body
}

// ExportSnapshot: reference: VirtualMachineSnapshot.ExportSnapshot ("Obtains an export lease on this snapshot").
func (s *VirtualMachineSnapshot) ExportSnapshot(ctx *simulator.Context, _ *types.ExportSnapshot) soap.HasFault {
	body := &methods.ExportSnapshotBody{}
	vm, ok := ctx.Map.Get(s.Vm).(*simulator.VirtualMachine)
	var ref types.ManagedObjectReference
	var fault types.BaseMethodFault = &types.ManagedObjectNotFound{Obj: s.Vm}
	if ok {
		ctx.WithLock(vm, func() { ref, fault = s.lab.export(ctx, vm, &s.Self) })
	}
	if fault != nil {
		body.Fault_ = simulator.Fault(faultText(fault), fault)
		return body
	}
	body.Res = &types.ExportSnapshotResponse{Returnval: ref}
	return body
}

func (g *Guest) exported() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lease != nil && g.lease.whole
}

// export makes a lease; the caller holds the VM's lock.
func (l *Lab) export(ctx *simulator.Context, vm *simulator.VirtualMachine, snapshot *types.ManagedObjectReference) (ref types.ManagedObjectReference, fault types.BaseMethodFault) {
	busy := &types.TaskInProgress{Task: types.ManagedObjectReference{Type: "Task", Value: "task-0"}}
	g, err := l.guest(&vm.VirtualMachine)
	if err != nil {
		return ref, &types.FileFault{File: err.Error()}
	}
	var token [16]byte
	_, _ = rand.Read(token[:])
	own := *ctx
	lease := &HttpNfcLease{lab: l, ctx: &own, guest: g, whole: snapshot == nil, token: hex.EncodeToString(token[:]), files: map[string]*leaseFile{},
		over: make(chan struct{}), duration: time.Duration(l.switches.Number("nfc_timeout", vm.Name, 300) * float64(time.Second))}
	lease.State = types.HttpNfcLeaseStateInitializing
	lease.Mode = string(types.HttpNfcLeaseModePushOrGet)
	lease.Capabilities = types.HttpNfcLeaseCapabilities{PullModeSupported: true}
	if vm.Runtime.Host != nil {
		lease.host = *vm.Runtime.Host
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lease != nil || g.busy.Load() {
		return ref, busy
	}
	devices := vm.Config.Hardware.Device
	at := func(key int32) (*Layer, int64) {
		if v := g.disks[key]; v != nil {
			return v.top, v.capacity
		}
		return nil, 0
	}
	if snapshot != nil {
		f := g.snaps[snapshot.Value]
		snap, ok := ctx.Map.Get(*snapshot).(*simulator.VirtualMachineSnapshot)
		if f == nil || !ok {
			return ref, &types.ManagedObjectNotFound{Obj: *snapshot}
		}
		devices = snap.Config.Hardware.Device
		at = func(key int32) (*Layer, int64) {
			if d := f.disks[key]; d != nil {
				return d.layer, d.capacity
			}
			return nil, 0
		}
	}
	lease.fill(vm, devices, at)
	for _, f := range lease.files {
		for layer := f.layer; layer != nil; layer = layer.parent {
			g.leases[layer]++
		}
	}
	g.lease = lease
	ctx.Session.Put(lease)
	go lease.open(vm.Name, vm.Self)
	return lease.Self, nil
}

// fill lists what can be read. Reference: HttpNfcLeaseDeviceUrl: key "/vm-42/ParaVirtualSCSIController0:0" in the field, disk,
// targetId, fileSize ("only set for non-disk file backings"); "*" for the host: "the client must substitute the "*" with the hostname
// or IP address used when connecting to the server".
func (n *HttpNfcLease) fill(vm *simulator.VirtualMachine, devices []types.BaseVirtualDevice, at func(int32) (*Layer, int64)) {
	add := func(name string, f *leaseFile, key string, disk bool) {
		f.url = types.HttpNfcLeaseDeviceUrl{
			Key: fmt.Sprintf("/%s/%s", vm.Self.Value, key), ImportKey: fmt.Sprintf("/%s/%s", vm.Name, key),
			Url: "https://*/nfc/" + n.token + "/" + name, Disk: types.NewBool(disk), TargetId: name,
		}
		n.files[name], n.order = f, append(n.order, name)
	}
	count := 0
	for _, d := range flatDisks(devices) {
		layer, size := at(d.Key)
		if layer == nil {
			continue
		}
		class := ""
		for _, x := range devices {
			if c, ok := x.(types.BaseVirtualController); ok && x.GetVirtualDevice().Key == d.ControllerKey {
				class = fmt.Sprintf("%s%d", reflect.TypeOf(x).Elem().Name(), c.GetVirtualController().BusNumber)
			}
		}
		f := &leaseFile{layer: layer, disk: n.guest.disks[d.Key], size: size}
		if f.disk == nil {
			continue // removed since
		}
		add(fmt.Sprintf("disk-%d.vmdk", count), f, fmt.Sprintf("%s:%d", class, *d.UnitNumber), true)
		count++
	}
	if vmx := n.lab.localPath(vm.Config.Files.VmPathName); vmx != "" {
		nvram := strings.TrimSuffix(vmx, ".vmx") + ".nvram"
		if st, err := os.Stat(nvram); err == nil {
			add(filepath.Base(nvram), &leaseFile{local: nvram}, "nvram", false)
			n.files[filepath.Base(nvram)].url.FileSize = st.Size()
		}
	}
}

// open is the time that a host needs until the URLs answer.
func (n *HttpNfcLease) open(name string, vm types.ManagedObjectReference) {
	time.Sleep(time.Duration(n.lab.switches.Number("nfc_init_ms", name, 20) * float64(time.Millisecond)))
	if f := n.lab.faults.Take("nfc_error", name); f != nil {
		n.finish(types.HttpNfcLeaseStateError, faultOr(f.Fault, &types.HostConnectFault{}))
		return
	}
	if most := n.lab.switches.Number("nfc_max", "", 0); !n.lab.leases.open(n, int(most)) {
		n.finish(types.HttpNfcLeaseStateError, &types.InsufficientHostCapacityFault{Host: &n.host})
		return
	}
	info := &types.HttpNfcLeaseInfo{Lease: n.Self, Entity: vm, LeaseTimeout: int32(n.duration / time.Second)}
	for _, key := range n.order {
		f := n.files[key]
		info.DeviceUrl = append(info.DeviceUrl, f.url)
		info.TotalDiskCapacityInKB += f.size / 1024
	}
	n.mu.Lock()
	n.timer = time.AfterFunc(n.duration, func() { n.finish(types.HttpNfcLeaseStateError, &types.Timedout{}) })
	n.mu.Unlock()
	n.update([]types.PropertyChange{
		{Name: "initializeProgress", Val: int32(100)}, {Name: "info", Val: info}, {Name: "state", Val: types.HttpNfcLeaseStateReady},
	})
}

func (n *HttpNfcLease) update(changes []types.PropertyChange) {
	own := *n.ctx
	own.WithLock(n, func() { own.Update(n, changes) })
}

// finish ends the lease once: streams are cut, the VM is free again.
func (n *HttpNfcLease) finish(state types.HttpNfcLeaseState, fault types.BaseMethodFault) {
	n.mu.Lock()
	if n.ended {
		n.mu.Unlock()
		return
	}
	n.ended = true
	close(n.over)
	if n.timer != nil {
		n.timer.Stop()
	}
	n.mu.Unlock()
	n.lab.leases.close(n)
	n.guest.mu.Lock()
	n.guest.lease = nil
	for _, f := range n.files {
		for layer := f.layer; layer != nil; layer = layer.parent {
			if n.guest.leases[layer]--; n.guest.leases[layer] <= 0 {
				delete(n.guest.leases, layer)
			}
		}
	}
	n.guest.mu.Unlock()
	changes := []types.PropertyChange{{Name: "state", Val: state}}
	if fault != nil {
		changes = append(changes, types.PropertyChange{Name: "error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultText(fault)}})
	}
	go n.update(changes) // a caller may hold the lease's lock
}

// dead answers what a lease says that is over: reference: faults Timedout ("if lease has timed out"), InvalidState.
func (n *HttpNfcLease) dead() *soap.Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.ended && n.timer != nil:
		return nil
	case n.Error != nil:
		if _, ok := n.Error.Fault.(*types.Timedout); ok {
			return simulator.Fault("The lease has timed out.", &types.Timedout{})
		}
	}
	return simulator.Fault("The lease is not ready.", &types.InvalidState{})
}

// HttpNfcLeaseProgress: reference: "Sets an estimated percentage of completion … and extends the lease".
func (n *HttpNfcLease) HttpNfcLeaseProgress(ctx *simulator.Context, req *types.HttpNfcLeaseProgress) soap.HasFault {
	if fault := n.dead(); fault != nil {
		return &methods.HttpNfcLeaseProgressBody{Fault_: fault}
	}
	n.mu.Lock()
	n.timer.Reset(n.duration)
	n.mu.Unlock()
	ctx.Update(n, []types.PropertyChange{{Name: "transferProgress", Val: req.Percent}})
	return &methods.HttpNfcLeaseProgressBody{Res: &types.HttpNfcLeaseProgressResponse{}}
}

// HttpNfcLeaseComplete: reference: "Indicates that the client has finished".
func (n *HttpNfcLease) HttpNfcLeaseComplete(_ *simulator.Context, _ *types.HttpNfcLeaseComplete) soap.HasFault {
	if fault := n.dead(); fault != nil {
		return &methods.HttpNfcLeaseCompleteBody{Fault_: fault}
	}
	n.finish(types.HttpNfcLeaseStateDone, nil)
	return &methods.HttpNfcLeaseCompleteBody{Res: &types.HttpNfcLeaseCompleteResponse{}}
}

// HttpNfcLeaseAbort: reference: "Aborts the lease and releases any resources held", with the client's fault.
func (n *HttpNfcLease) HttpNfcLeaseAbort(_ *simulator.Context, req *types.HttpNfcLeaseAbort) soap.HasFault {
	var fault types.BaseMethodFault = &types.RequestCanceled{}
	if req.Fault != nil && req.Fault.Fault != nil {
		fault = req.Fault.Fault
	}
	n.finish(types.HttpNfcLeaseStateError, fault)
	return &methods.HttpNfcLeaseAbortBody{Res: &types.HttpNfcLeaseAbortResponse{}}
}

// HttpNfcLeaseGetManifest: reference: HttpNfcLeaseManifestEntry: sha1 "of the data stream sent from the server", size, capacity,
// populatedSize.
func (n *HttpNfcLease) HttpNfcLeaseGetManifest(_ *simulator.Context, _ *types.HttpNfcLeaseGetManifest) soap.HasFault {
	n.mu.Lock()
	defer n.mu.Unlock()
	res := &types.HttpNfcLeaseGetManifestResponse{}
	for _, name := range n.order {
		if f := n.files[name]; f.sha1 != "" {
			res.Returnval = append(res.Returnval, types.HttpNfcLeaseManifestEntry{Key: f.url.Key, Sha1: f.sha1, Size: f.sent, Disk: *f.url.Disk, Capacity: f.size, PopulatedSize: f.data})
		}
	}
	return &methods.HttpNfcLeaseGetManifestBody{Res: res}
}

// Leases are those that are open, by their ticket.
type Leases struct {
	mu   sync.Mutex
	list map[string]*HttpNfcLease
}

// open takes a lease in, unless its host has as many as it can.
func (k *Leases) open(n *HttpNfcLease, most int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	same := 0
	for _, other := range k.list {
		if other.host == n.host {
			same++
		}
	}
	if most > 0 && same >= most {
		return false
	}
	if k.list == nil {
		k.list = map[string]*HttpNfcLease{}
	}
	k.list[n.token] = n
	return true
}

func (k *Leases) close(n *HttpNfcLease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.list, n.token)
}

func (k *Leases) get(token string) *HttpNfcLease {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list[token]
}

var errLeaseOver = errors.New("the lease is over")

// NFC serves GET /nfc/TICKET/FILE: a stream from its beginning, without ranges and without a length.
func (l *Lab) NFC(w http.ResponseWriter, r *http.Request) {
	token, name := path.Split(strings.TrimPrefix(r.URL.Path, "/nfc/"))
	lease := l.leases.get(strings.Trim(token, "/"))
	if lease == nil {
		http.NotFound(w, r)
		return
	}
	f := lease.files[name]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		http.Error(w, "405 Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	shown := fmt.Sprintf("[nfc] %s/%s", lease.guest.name, name)
	l.stats.Request(shown)
	if x := l.faults.Take("folder_delay", r.URL.Path); x != nil {
		time.Sleep(time.Duration(x.DelayMS) * time.Millisecond)
	}
	if x := l.faults.Take("folder_status", r.URL.Path); x != nil {
		http.Error(w, http.StatusText(x.Status), x.Status)
		return
	}
	out := &countingWriter{ResponseWriter: w, lab: l, name: shown, match: r.URL.Path}
	if err := lease.send(out, f, name); err != nil {
		panic(http.ErrAbortHandler) // the connection breaks off
	}
}

func (n *HttpNfcLease) send(w http.ResponseWriter, f *leaseFile, name string) error {
	sum := sha1.New()
	if f.layer == nil {
		data, err := os.ReadFile(f.local)
		if err != nil {
			return err
		}
		_, err = io.MultiWriter(sum, w).Write(data)
		n.sent(f, sum, int64(len(data)), int64(len(data)))
		return err
	}
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	s := &streamer{out: io.MultiWriter(w, sum), capacity: f.size}
	if err := s.begin(name, f.disk); err != nil {
		return err
	}
	rate, start := n.lab.switches.Number("nfc_rate", n.guest.name, 0), time.Now()
	err := s.send(f.layer, func() error {
		if rate > 0 {
			if left := time.Duration(float64(s.at)/rate*float64(time.Second)) - time.Since(start); left > 0 {
				select {
				case <-n.over:
				case <-time.After(left):
				}
			}
		}
		select {
		case <-n.over:
			return errLeaseOver
		default:
			return nil
		}
	})
	if err == nil {
		n.sent(f, sum, s.at, s.sent)
	}
	return err
}

func (n *HttpNfcLease) sent(f *leaseFile, sum hash.Hash, size, data int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f.sha1, f.sent, f.data = hex.EncodeToString(sum.Sum(nil)), size, data
}
