// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/vpx"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Lab is the running vCenter: the simulator's service and what we keep beside its objects.
type Lab struct {
	config  *Config
	service *simulator.Service
	dc      *simulator.Datacenter
	folders *object.DatacenterFolders
	client  *vim25.Client

	hosts      map[string]*object.HostSystem
	pools      map[string]*object.ResourcePool // by host
	datastores map[string]*DatastoreState
	vms        map[types.ManagedObjectReference]*VMState
	vmFolders  map[string]*object.Folder
	fields     map[string]int32

	wrappers *Wrappers
	locks    *Locks
	faults   *Faults
	stats    *Stats
	switches Switches

	guestsMu  sync.Mutex
	guests    map[types.ManagedObjectReference]*Guest
	conns     connections
	leases    Leases
	tasks     atomic.Int64 // numbers of tasks, and of snapshots
	vmsMu     sync.Mutex   // of vms
	moves     *Moves
	events    *EventLog
	snapshots atomic.Int64
}

// DatastoreState is a datastore of the model and the folder that holds its files.
type DatastoreState struct {
	Model  Datastore
	Folder string
	Ref    types.ManagedObjectReference
	filled atomic.Int64 // bytes that others than VMs occupy
	alarm  atomic.Value // types.ManagedEntityStatus of the usage alarm
}

// VMState is what a VM of the model has beside its managed object.
type VMState struct {
	Model VM
	Ref   types.ManagedObjectReference
}

func wait(ctx context.Context, t *object.Task, err error) (*types.TaskInfo, error) {
	if err != nil {
		return nil, err
	}
	info, err := t.WaitForResult(ctx, nil)
	var e task.Error
	if errors.As(err, &e) {
		return nil, fmt.Errorf("%s: %T %+v", info.Name, e.Fault(), e.Fault())
	}
	return info, err
}

// NewLab builds the inventory. Nothing is served yet.
func NewLab(c *Config) (*Lab, error) {
	m := &simulator.Model{ServiceContent: vpx.ServiceContent, RootFolder: vpx.RootFolder}
	if c.Model.APIVersion != "" { // reference: AboutInfo.apiVersion, from which the simulator makes vimServiceVersions.xml
		m.ServiceContent.About.ApiVersion = c.Model.APIVersion
	}
	if err := m.Create(); err != nil {
		return nil, err
	}
	l := &Lab{
		config: c, service: m.Service,
		hosts: map[string]*object.HostSystem{}, pools: map[string]*object.ResourcePool{}, datastores: map[string]*DatastoreState{},
		vms: map[types.ManagedObjectReference]*VMState{}, vmFolders: map[string]*object.Folder{}, fields: map[string]int32{},
		faults: NewFaults(), locks: NewLocks(), stats: NewStats(), guests: map[types.ManagedObjectReference]*Guest{},
		moves: NewMoves(),
	}
	// Simulator.Authenticate compares with exactly this user and password; anything else is InvalidLogin.
	l.service.Listen = &url.URL{Scheme: "https", Host: c.Listen, Path: vim25.Path, User: url.UserPassword(c.User, c.Password)}
	ctx := context.Background()
	var err error
	if l.client, err = vim25.NewClient(ctx, l.service); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{l.buildHosts, l.buildNetworks, l.buildDatastores, l.buildVMs, l.buildRules} {
		if err = step(ctx); err != nil {
			return nil, err
		}
	}
	reg := m.Map()
	reg.SessionManager().ServiceHostName = c.Listen
	l.service.RegisterSDK(reg, reg.Path+"/vimService")
	l.wrappers = NewWrappers(l)
	reg.Handler = l.wrappers.Handle
	reg.AddHandler(l.wrappers)
	if l.events, err = l.newEventLog(); err != nil {
		return nil, err
	}
	for _, s := range l.datastores {
		if s.Model.Free != nil { // what the model leaves free now: the rest belongs to others
			used, _ := l.usage(s)
			s.filled.Store(s.Model.Capacity - used - *s.Model.Free)
		}
	}
	l.refreshDatastores()
	return l, nil
}

// context gives a simulator context of its own: object locks belong to one context at a time.
func (l *Lab) context() *simulator.Context {
	c := *l.service.Context
	return &c
}

func (l *Lab) buildHosts(ctx context.Context) error {
	m := &l.config.Model
	dc, err := object.NewRootFolder(l.client).CreateDatacenter(ctx, m.Datacenter)
	if err != nil {
		return err
	}
	l.dc = l.service.Context.Map.Get(dc.Reference()).(*simulator.Datacenter)
	if l.folders, err = dc.Folders(ctx); err != nil {
		return err
	}
	add := func(name string, pool *object.ResourcePool, info *types.TaskInfo, err error) error {
		if err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
		ref := info.Result.(types.ManagedObjectReference)
		if ref.Type != "HostSystem" { // AddStandaloneHost answers with the ComputeResource
			var cr mo.ComputeResource
			if err = object.NewComputeResource(l.client, ref).Properties(ctx, ref, []string{"host"}, &cr); err != nil {
				return err
			}
			ref = cr.Host[0]
		}
		h := object.NewHostSystem(l.client, ref)
		if pool == nil {
			if pool, err = h.ResourcePool(ctx); err != nil {
				return err
			}
		}
		l.hosts[name], l.pools[name] = h, pool
		l.setHardware(name)
		return nil
	}
	for _, c := range m.Clusters {
		cluster, err := l.folders.HostFolder.CreateCluster(ctx, c.Name, types.ClusterConfigSpecEx{})
		if err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		pool, err := cluster.ResourcePool(ctx)
		if err != nil {
			return err
		}
		for _, name := range c.Hosts {
			t, err := cluster.AddHost(ctx, types.HostConnectSpec{HostName: name}, true, nil, nil)
			info, err := wait(ctx, t, err)
			if err = add(name, pool, info, err); err != nil {
				return err
			}
		}
	}
	for _, name := range m.StandaloneHosts {
		t, err := l.folders.HostFolder.AddStandaloneHost(ctx, types.HostConnectSpec{HostName: name}, true, nil, nil)
		info, err := wait(ctx, t, err)
		if err = add(name, nil, info, err); err != nil {
			return err
		}
	}
	// at the end: the simulator looks at the versions of a cluster's hosts when another one comes, and does not know all of them
	for name := range l.hosts {
		p, ok := m.ESXi[name]
		if !ok {
			p, ok = m.ESXi["*"]
		}
		if ok {
			l.setProduct(name, p)
		}
	}
	return nil
}

// hostNames in a fixed order, so that MoRefs are the same at every start.
func (l *Lab) hostNames() []string {
	names := make([]string, 0, len(l.hosts))
	for name := range l.hosts {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (l *Lab) buildNetworks(ctx context.Context) error {
	reg := l.service.Context.Map
	names := l.hostNames()
	var dvs *object.DistributedVirtualSwitch
	for _, n := range l.config.Model.Networks {
		if n.Distributed {
			if dvs == nil {
				t, err := l.folders.NetworkFolder.CreateDVS(ctx, types.DVSCreateSpec{ConfigSpec: &types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{Name: "DVS0"}}})
				info, err := wait(ctx, t, err)
				if err != nil {
					return err
				}
				dvs = object.NewDistributedVirtualSwitch(l.client, info.Result.(types.ManagedObjectReference))
				spec := &types.DVSConfigSpec{}
				for _, h := range names {
					if len(n.Hosts) > 0 && !slices.Contains(n.Hosts, h) {
						continue
					}
					spec.Host = append(spec.Host, types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: string(types.ConfigSpecOperationAdd), Host: l.hosts[h].Reference()})
				}
				t, err = dvs.Reconfigure(ctx, spec)
				if _, err = wait(ctx, t, err); err != nil {
					return err
				}
			}
			t, err := dvs.AddPortgroup(ctx, []types.DVPortgroupConfigSpec{{
				Name: n.Name, Type: string(types.DistributedVirtualPortgroupPortgroupTypeEarlyBinding), NumPorts: 8,
			}})
			if _, err = wait(ctx, t, err); err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
			continue
		}
		net := reg.FindByName(n.Name, l.dc.Network)
		if net == nil { // "VM Network" comes with the datacenter, as the installer of ESXi makes it
			ns, err := l.hosts[names[0]].ConfigManager().NetworkSystem(ctx)
			if err != nil {
				return err
			}
			err = ns.AddPortGroup(ctx, types.HostPortGroupSpec{Name: n.Name, VswitchName: "vSwitch0"})
			if err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
			net = reg.FindByName(n.Name, l.dc.Network)
		}
		network := net.(*mo.Network)
		network.Summary = &types.NetworkSummary{Network: &network.Self, Name: n.Name, Accessible: true}
		sim := l.context()
		for _, h := range names {
			if len(n.Hosts) > 0 && !slices.Contains(n.Hosts, h) {
				l.without(h, network.Self)
				continue
			}
			host := reg.Get(l.hosts[h].Reference()).(*simulator.HostSystem)
			reg.AddReference(sim, network, &network.Host, host.Self)
			reg.AddReference(sim, host, &host.Network, network.Self)
			switch cr := reg.Get(*host.Parent).(type) {
			case *simulator.ClusterComputeResource:
				reg.AddReference(sim, cr, &cr.Network, network.Self)
			case *mo.ComputeResource:
				reg.AddReference(sim, cr, &cr.Network, network.Self)
			}
		}
	}
	return nil
}

func (l *Lab) buildDatastores(ctx context.Context) error {
	for _, d := range l.config.Model.Datastores {
		folder := filepath.Join(l.config.State, "vmfs", "volumes", fixedUUID("datastore:"+d.Name))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		state := &DatastoreState{Model: d, Folder: folder}
		for _, h := range d.Hosts {
			host, ok := l.hosts[h]
			if !ok {
				return fmt.Errorf("datastore %s: no host %s", d.Name, h)
			}
			system, err := host.ConfigManager().DatastoreSystem(ctx)
			if err != nil {
				return err
			}
			ds, err := system.CreateLocalDatastore(ctx, d.Name, folder)
			if err != nil {
				return fmt.Errorf("datastore %s on %s: %w", d.Name, h, err)
			}
			if ds.Reference().Value != "" { // a second mount answers with an empty reference
				state.Ref = ds.Reference()
			}
		}
		l.datastores[d.Name] = state
		ds := l.service.Context.Map.Get(state.Ref).(*simulator.Datastore)
		l.describeDatastore(ds, state)
	}
	return nil
}

// describeDatastore gives the datastore its type. Reference: vSphere Web Services API, DatastoreSummary.type and
// DatastoreInfo with its subclasses VmfsDatastoreInfo, NasDatastoreInfo, VsanDatastoreInfo, VvolDatastoreInfo.
// summary.url stays the local folder, since the simulator resolves paths with it; info.url has the product's form.
func (l *Lab) describeDatastore(ds *simulator.Datastore, s *DatastoreState) {
	id := path.Base(s.Folder)
	base := types.DatastoreInfo{Name: s.Model.Name, Url: "ds:///vmfs/volumes/" + id + "/", MaxFileSize: 64 << 40, MaxVirtualDiskCapacity: 62 << 40}
	volume := types.HostFileSystemVolume{Type: s.Model.Type, Name: s.Model.Name, Capacity: s.Model.Capacity}
	ds.Summary.Type = s.Model.Type
	shared := len(s.Model.Hosts) > 1
	ds.Summary.MultipleHostAccess = &shared
	switch s.Model.Type {
	case "NFS", "NFS41":
		ds.Info = &types.NasDatastoreInfo{DatastoreInfo: base, Nas: &types.HostNasVolume{HostFileSystemVolume: volume, RemoteHost: "nas.lab.example", RemotePath: "/export/" + s.Model.Name}}
	case "vsan":
		ds.Info = &types.VsanDatastoreInfo{DatastoreInfo: base, MembershipUuid: id}
	case "VVOL":
		ds.Info = &types.VvolDatastoreInfo{DatastoreInfo: base}
	default:
		local := !shared
		ds.Info = &types.VmfsDatastoreInfo{DatastoreInfo: base, Vmfs: &types.HostVmfsVolume{
			HostFileSystemVolume: volume, BlockSizeMb: 1, BlockSize: 1024, MaxBlocks: 63963136, MajorVersion: 6, Version: "6.82", Uuid: id, Local: &local,
			Extent: []types.HostScsiDiskPartition{{DiskName: "naa." + strings.ReplaceAll(id, "-", ""), Partition: 1}},
		}}
	}
}

// refreshDatastores computes free space anew: capacity less what the files occupy on a thin, and the capacity of a thick
// disk. Reference: DatastoreSummary.freeSpace ("available space of this datastore, in bytes").
func (l *Lab) refreshDatastores() {
	for _, s := range l.datastores {
		l.refreshDatastore(s)
	}
}

func (l *Lab) refreshDatastore(s *DatastoreState) {
	ds, ok := l.service.Context.Map.Get(s.Ref).(*simulator.Datastore)
	if !ok {
		return
	}
	used, promised := l.usage(s)
	free := max(s.Model.Capacity-used-s.filled.Load(), 0)
	ds.Summary.Capacity, ds.Summary.FreeSpace, ds.Summary.Uncommitted = s.Model.Capacity, free, promised
	info := ds.Info.GetDatastoreInfo()
	info.FreeSpace = free
}

// usage is what VMs occupy on a datastore, and what their thin disks may yet take, in bytes.
func (l *Lab) usage(s *DatastoreState) (used, promised int64) {
	reg := l.service.Context.Map
	ds, ok := reg.Get(s.Ref).(*simulator.Datastore)
	if !ok {
		return 0, 0
	}
	for _, ref := range ds.Vm {
		vm, ok := reg.Get(ref).(*simulator.VirtualMachine)
		if !ok {
			continue
		}
		for _, d := range flatDisks(vm.Config.Hardware.Device) {
			b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			if b.Datastore == nil || *b.Datastore != s.Ref {
				continue
			}
			for ; b != nil; b = b.Parent {
				size := d.CapacityInBytes
				if b.Parent != nil || b.ThinProvisioned != nil && *b.ThinProvisioned {
					size = allocated(l.localPath(backingExtent(b)))
				}
				if b.Parent == nil {
					promised += d.CapacityInBytes - size
				}
				used += size
			}
		}
	}
	return used, promised
}

// localPath is the file behind "[datastore] folder/file"; empty when there is no such datastore.
func (l *Lab) localPath(name string) string {
	var p object.DatastorePath
	if !p.FromString(name) {
		return ""
	}
	s, ok := l.datastores[p.Datastore]
	if !ok {
		return ""
	}
	return filepath.Join(s.Folder, filepath.FromSlash(path.Clean("/"+p.Path)))
}
