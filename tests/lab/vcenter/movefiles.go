// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// parts of "[datastore] folder/file".
func parts(name string) (store, file string) {
	var p object.DatastorePath
	p.FromString(name)
	return p.Datastore, p.Path
}

// places are the folders of a VM's files by datastore, as they are now.
func (l *Lab) places(vm *mo.VirtualMachine) map[string]string {
	where := map[string]string{}
	for _, d := range flatDisks(vm.Config.Hardware.Device) {
		store, file := parts(d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName)
		where[store] = path.Dir(file)
	}
	store, file := parts(vm.Config.Files.VmPathName)
	where[store] = path.Dir(file)
	return where
}

// newPlace is the folder on a datastore that files of a VM come to: the one that it has there, else a new one of the same name, with _1, _2
// where that is taken.
func (l *Lab) newPlace(where map[string]string, vmx string, s *DatastoreState) string {
	if dir, ok := where[s.Model.Name]; ok {
		return dir
	}
	_, file := parts(vmx)
	wanted := path.Base(path.Dir(file))
	dir := wanted
	for n := 1; ; n++ {
		if _, err := os.Lstat(filepath.Join(s.Folder, filepath.FromSlash(dir))); err != nil {
			break
		}
		dir = fmt.Sprintf("%s_%d", wanted, n)
	}
	where[s.Model.Name] = dir
	return dir
}

type rename struct{ from, to string }

// commit moves the files and tells everybody where the VM is now. Files are renamed: the lab's datastores are folders of one file system,
// and the guest's open files stay open. It undoes what it did when a step fails. The caller holds the VM's lock.
func (l *Lab) commit(sim *simulator.Context, m *move, g *Guest) types.BaseMethodFault {
	vm := &m.vm.VirtualMachine
	g.mu.Lock()
	defer g.mu.Unlock()
	vmx := vm.Config.Files.VmPathName
	where := l.places(vm)
	var files []rename
	names := map[*Layer]string{}
	renamed := map[*VDisk][2]string{}
	if m.home != nil {
		_, file := parts(vmx)
		store, _ := parts(vmx)
		old := path.Dir(file)
		delete(where, store)
		dir := l.newPlace(where, vmx, m.home)
		for _, d := range flatDisks(vm.Config.Hardware.Device) { // disks that stay behind keep their folder
			if s, f := parts(d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName); s == store && m.disks[d.Key] == nil {
				where[s] = path.Dir(f)
			}
		}
		entries, _ := os.ReadDir(path.Dir(l.localPath(vmx)))
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".vmdk") && !e.IsDir() {
				files = append(files, rename{fmt.Sprintf("[%s] %s/%s", store, old, e.Name()), fmt.Sprintf("[%s] %s/%s", m.home.Model.Name, dir,
					e.Name())})
			}
		}
		vmx = fmt.Sprintf("[%s] %s", m.home.Model.Name, path.Join(dir, path.Base(file)))
	}
	for _, key := range l.inOrder(m, g, where) {
		x, v := m.disks[key], g.disks[key]
		if v == nil || x.to == l.datastoreOf(v.root) {
			continue
		}
		dir := l.newPlace(where, vmx, x.to)
		was := strings.TrimSuffix(path.Base(l.localPath(v.root)), ".vmdk")
		now := l.freeStem(fmt.Sprintf("[%s] %s/", x.to.Model.Name, dir), was, names)
		for _, layer := range v.layers {
			_, file := parts(layer.name)
			base := path.Base(file)
			if rest, ok := strings.CutPrefix(base, was); ok {
				base = now + rest
			}
			to := fmt.Sprintf("[%s] %s", x.to.Model.Name, path.Join(dir, base))
			if names[layer] = to; now != was {
				renamed[v] = [2]string{was, now}
			}
			files = append(files, rename{layer.name, to}, rename{extentName(layer.name, layer.format), extentName(to, layer.format)})
		}
	}
	if err := l.renameAll(files); err != nil {
		return &types.FileFault{File: err.Error()}
	}
	for _, x := range files {
		_ = os.Remove(path.Dir(l.localPath(x.from))) // the folder, where it is empty now
	}
	for layer, name := range names {
		layer.name = name
		if f, ok := layer.store.(*flat); ok {
			f.path = l.localPath(extentName(name, ""))
		}
	}
	for v, stems := range renamed {
		l.rewrite(v, stems[0], stems[1])
	}
	for key := range m.disks {
		if v := g.disks[key]; v != nil {
			v.root = rootLayer(v).name
			l.reformat(v, m.disks[key])
		}
	}
	l.announce(sim, m, g, vmx)
	return nil
}

// inOrder are the disks of a move: those that can keep their names before the others.
func (l *Lab) inOrder(m *move, g *Guest, where map[string]string) []int32 {
	keys := make([]int32, 0, len(m.disks))
	for key := range m.disks {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	taken := func(key int32) int {
		if v, dir := g.disks[key], where[m.disks[key].to.Model.Name]; v != nil && dir != "" {
			if _, err := os.Lstat(l.localPath(fmt.Sprintf("[%s] %s/%s", m.disks[key].to.Model.Name, dir, path.Base(l.localPath(v.root))))); err == nil {
				return 1
			}
		}
		return 0
	}
	slices.SortStableFunc(keys, func(a, b int32) int { return taken(a) - taken(b) })
	return keys
}

// freeStem is the name that a disk gets in a folder: its own, with _1, _2 where another has that. Disks of one VM on two datastores may have
// the same name.
func (l *Lab) freeStem(folder, wanted string, names map[*Layer]string) string {
	stem := wanted
	for n := 1; ; n++ {
		_, there := os.Lstat(l.localPath(folder + stem + ".vmdk"))
		taken := there == nil
		for _, name := range names {
			taken = taken || name == folder+stem+".vmdk"
		}
		if !taken {
			return stem
		}
		stem = fmt.Sprintf("%s_%d", wanted, n)
	}
}

// rewrite makes the descriptors of a chain that got another name say so.
func (l *Lab) rewrite(v *VDisk, was, now string) {
	for _, layer := range v.layers {
		if layer.parent != nil && layer.store != nil {
			_ = l.describe(v, layer)
			continue
		}
		local := l.localPath(layer.name)
		if text, err := os.ReadFile(local); err == nil {
			old, own := "\""+path.Base(extentName(was+".vmdk", ""))+"\"", "\""+path.Base(extentName(now+".vmdk", ""))+"\""
			_ = os.WriteFile(local, []byte(strings.ReplaceAll(string(text), old, own)), 0o600)
		}
	}
}

func rootLayer(v *VDisk) *Layer {
	layer := v.top
	for layer.parent != nil {
		layer = layer.parent
	}
	return layer
}

func (l *Lab) renameAll(files []rename) error {
	var done []rename
	for _, x := range files {
		from, to := l.localPath(x.from), l.localPath(x.to)
		if _, err := os.Lstat(from); err != nil {
			continue // a bulk VM's disk has no bytes
		}
		err := os.MkdirAll(path.Dir(to), 0o700)
		if _, there := os.Lstat(to); err == nil && there == nil && path.Ext(to) != ".vmdk" && path.Ext(to) != ".vmx" {
			err = os.Remove(to) // a log of before
		} else if err == nil && there == nil {
			err = fmt.Errorf("%s is there already", x.to)
		}
		if err == nil {
			err = os.Rename(from, to)
		}
		if err != nil {
			for _, y := range slices.Backward(done) {
				err = errors.Join(err, os.MkdirAll(path.Dir(y.to), 0o700), os.Rename(y.from, y.to))
			}
			return err
		}
		done = append(done, rename{to, from})
	}
	return nil
}

var thinLine = regexp.MustCompile(`(?m)^ddb\.thinProvisioned = .*\n`)

// reformat makes the descriptor of the base say thin or thick. The bytes are the same: of a thick disk the lab counts the capacity.
func (l *Lab) reformat(v *VDisk, x *diskMove) {
	local := l.localPath(v.root)
	text, err := os.ReadFile(local)
	if x.thin == nil || err != nil {
		return
	}
	text = thinLine.ReplaceAll(text, nil)
	if *x.thin {
		text = regexp.MustCompile(`(?m)^ddb\.uuid = `).ReplaceAll(text, []byte("ddb.thinProvisioned = \"1\"\nddb.uuid = "))
	}
	_ = os.WriteFile(local, text, 0o600)
}

// redirect gives disks their new datastore and format, and network adapters their new networks.
func (l *Lab) redirect(sim *simulator.Context, m *move, g *Guest, old []types.BaseVirtualDevice, vmx string,
	nics bool) []types.BaseVirtualDevice {
	devices := slices.Clone(old)
	for i, x := range devices {
		switch d := x.(type) {
		case *types.VirtualDisk:
			copied := *d
			switch b := d.Backing.(type) {
			case *types.VirtualDiskFlatVer2BackingInfo:
				if t := m.disks[d.Key]; t != nil {
					copied.Backing = redirected(b, t)
				}
			case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
				if m.home != nil {
					own := *b
					_, file := parts(b.FileName)
					store, home := parts(vmx)
					own.FileName, own.Datastore = fmt.Sprintf("[%s] %s", store, path.Join(path.Dir(home), path.Base(file))), &m.home.Ref
					copied.Backing = &own
				}
			}
			devices[i] = &copied
		case types.BaseVirtualEthernetCard:
			for _, c := range m.nics {
				spec := c.GetVirtualDeviceConfigSpec().Device.GetVirtualDevice()
				if !nics || spec.Key != x.GetVirtualDevice().Key {
					continue
				}
				own := ownDevice(x)
				own.GetVirtualDevice().Backing = spec.Backing
				_, name, distributed := l.networkOf(sim, spec.Backing)
				info := &types.Description{Label: label(x), Summary: name}
				if b, ok := spec.Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo); ok && distributed {
					info.Summary = "DVSwitch: " + b.Port.SwitchUuid
				}
				own.GetVirtualDevice().DeviceInfo = info
				devices[i] = own
			}
		}
	}
	return devices
}

func redirected(b *types.VirtualDiskFlatVer2BackingInfo, x *diskMove) *types.VirtualDiskFlatVer2BackingInfo {
	own := *b
	own.Datastore = &x.to.Ref
	if x.thin != nil {
		own.ThinProvisioned = x.thin
		own.EagerlyScrub = types.NewBool(isTrue(x.eager))
	} else if x.eager != nil {
		own.EagerlyScrub = x.eager
	}
	if b.Parent != nil {
		own.Parent = redirected(b.Parent, x)
	}
	return &own
}

// announce changes the managed objects: the VM, its snapshots, hosts, pools, datastores and networks. It is called with g.mu held.
func (l *Lab) announce(sim *simulator.Context, m *move, g *Guest, vmx string) {
	vm := &m.vm.VirtualMachine
	devices := l.redirect(sim, m, g, vm.Config.Hardware.Device, vmx, true)
	for _, f := range g.snaps {
		if snap, ok := sim.Map.Get(f.ref).(*simulator.VirtualMachineSnapshot); ok {
			sim.WithLock(snap, func() { snap.Config.Hardware.Device = l.redirect(sim, m, g, snap.Config.Hardware.Device, vmx, false) })
		}
	}
	was := slices.Clone(vm.Datastore)
	networks := slices.Clone(vm.Network)
	changes := []types.PropertyChange{{Name: "config.hardware.device", Val: devices}}
	if m.home != nil {
		files := vm.Config.Files
		dir := path.Dir(vmx)
		files.VmPathName, files.SnapshotDirectory, files.SuspendDirectory, files.LogDirectory = vmx, dir, dir, dir
		vm.Layout.ConfigFile, vm.Layout.LogFile, vm.Layout.SwapFile = nil, nil, ""
		changes = append(changes, types.PropertyChange{Name: "config.files", Val: files}, types.PropertyChange{Name: "summary.config.vmPathName",
			Val: vmx})
	}
	if m.elsewhere() {
		to := m.to.Self
		changes = append(changes, types.PropertyChange{Name: "runtime.host", Val: to}, types.PropertyChange{Name: "summary.runtime.host", Val: to})
	}
	if m.pool != nil {
		changes = append(changes, types.PropertyChange{Name: "resourcePool", Val: *m.pool})
	}
	old := vm.ResourcePool
	sim.Update(m.vm, changes)
	g.mu.Unlock()
	l.configure(sim, vm, g) // the names of the layers, here and in the snapshots
	g.mu.Lock()
	if m.elsewhere() {
		relist(sim, m.from, "vm", &m.from.Vm, vm.Self, false)
		relist(sim, m.to, "vm", &m.to.Vm, vm.Self, true)
	}
	if m.pool != nil {
		if old != nil {
			relistPool(sim, *old, vm.Self, false)
		}
		relistPool(sim, *m.pool, vm.Self, true)
	}
	stores, nets := l.uses(sim, vm)
	sim.Update(m.vm, []types.PropertyChange{{Name: "datastore", Val: stores}, {Name: "network", Val: nets}})
	l.relistStores(sim, vm.Self, was, stores)
	l.relistNetworks(sim, vm.Self, networks, nets)
	_ = os.WriteFile(l.localPath(vm.Config.Files.VmPathName), []byte(l.vmxOf(sim, vm)), 0o600)
	refreshStorage(sim, m.vm, &types.RefreshStorageInfo{This: vm.Self})
	l.fixStorage(vm)
	sim.Update(m.vm, []types.PropertyChange{{Name: "layoutEx", Val: *vm.LayoutEx}, {Name: "storage", Val: *vm.Storage},
		{Name: "summary.storage", Val: *vm.Summary.Storage}})
}

// uses are the datastores and networks of a VM.
func (l *Lab) uses(sim *simulator.Context, vm *mo.VirtualMachine) (stores, networks []types.ManagedObjectReference) {
	add := func(list *[]types.ManagedObjectReference, ref types.ManagedObjectReference) {
		if !slices.Contains(*list, ref) {
			*list = append(*list, ref)
		}
	}
	if s := l.datastoreOf(vm.Config.Files.VmPathName); s != nil {
		add(&stores, s.Ref)
	}
	for _, d := range vm.Config.Hardware.Device {
		switch b := d.GetVirtualDevice().Backing.(type) {
		case *types.VirtualDiskFlatVer2BackingInfo:
			if b.Datastore != nil {
				add(&stores, *b.Datastore)
			}
		case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
			if b.Datastore != nil {
				add(&stores, *b.Datastore)
			}
		}
		if _, ok := d.(types.BaseVirtualEthernetCard); ok {
			if ref, _, _ := l.networkOf(sim, d.GetVirtualDevice().Backing); ref != nil {
				add(&networks, *ref)
			}
		}
	}
	return stores, networks
}

func (l *Lab) relistStores(sim *simulator.Context, vm types.ManagedObjectReference, was, now []types.ManagedObjectReference) {
	for _, ref := range slices.Concat(was, now) {
		if ds, ok := sim.Map.Get(ref).(*simulator.Datastore); ok && slices.Contains(was, ref) != slices.Contains(now, ref) {
			relist(sim, ds, "vm", &ds.Vm, vm, slices.Contains(now, ref))
		}
	}
}

func (l *Lab) relistNetworks(sim *simulator.Context, vm types.ManagedObjectReference, was, now []types.ManagedObjectReference) {
	for _, ref := range slices.Concat(was, now) {
		if slices.Contains(was, ref) == slices.Contains(now, ref) {
			continue
		}
		switch n := sim.Map.Get(ref).(type) {
		case *mo.Network:
			relist(sim, n, "vm", &n.Vm, vm, slices.Contains(now, ref))
		case *simulator.DistributedVirtualPortgroup:
			relist(sim, n, "vm", &n.Vm, vm, slices.Contains(now, ref))
		}
	}
}
