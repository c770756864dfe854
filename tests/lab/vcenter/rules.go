// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// buildRules gives the clusters what the model says of DRS, HA, EVC, groups and rules. References: ClusterConfigSpecEx (drsConfig, dasConfig,
// rulesSpec, groupSpec), ClusterAffinityRuleSpec, ClusterAntiAffinityRuleSpec, ClusterVmHostRuleInfo, ClusterVmGroup, ClusterHostGroup.
func (l *Lab) buildRules(ctx context.Context) error {
	sim := l.context()
	setEVCModes(sim)
	vms := map[string]types.ManagedObjectReference{}
	for ref, s := range l.vms {
		vms[s.Model.Name] = ref
	}
	for _, c := range l.config.Model.Clusters {
		found, ok := sim.Map.FindByName(c.Name, l.hostFolder(sim)).(*simulator.ClusterComputeResource)
		if !ok {
			return fmt.Errorf("no cluster %s", c.Name)
		}
		spec, err := c.spec(vms, l.hosts)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		t, err := object.NewClusterComputeResource(l.client, found.Self).Reconfigure(ctx, spec, true)
		if _, err = wait(ctx, t, err); err != nil {
			return fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		if config, ok := found.ConfigurationEx.(*types.ClusterConfigInfoEx); ok && c.DPM { // reference: ClusterConfigInfoEx.dpmConfigInfo
			config.DpmConfigInfo = &types.ClusterDpmConfigInfo{Enabled: types.NewBool(true), DefaultDpmBehavior: types.DpmBehaviorManual}
		}
		if c.EVC != "" {
			for _, name := range c.Hosts {
				h := sim.Map.Get(l.hosts[name].Reference()).(*simulator.HostSystem)
				h.Summary.CurrentEVCModeKey = c.EVC
			}
			if s, ok := found.Summary.(*types.ClusterComputeResourceSummary); ok {
				s.CurrentEVCModeKey = c.EVC
			}
		}
	}
	for ref := range l.vms {
		vm := sim.Map.Get(ref).(*simulator.VirtualMachine)
		if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
			needs := baseline(sim.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem))
			vm.Runtime.MinRequiredEVCModeKey, vm.Summary.Runtime.MinRequiredEVCModeKey = needs, needs
		}
	}
	return nil
}

func (l *Lab) hostFolder(sim *simulator.Context) []types.ManagedObjectReference {
	return sim.Map.Get(l.folders.HostFolder.Reference()).(*simulator.Folder).ChildEntity
}

func (c *Cluster) spec(vms map[string]types.ManagedObjectReference, hosts map[string]*object.HostSystem) (*types.ClusterConfigSpecEx, error) {
	spec := &types.ClusterConfigSpecEx{DasConfig: &types.ClusterDasConfigInfo{Enabled: types.NewBool(c.HA)}}
	if c.DRS != "" {
		spec.DrsConfig = &types.ClusterDrsConfigInfo{Enabled: types.NewBool(c.DRS != "off")}
		if c.DRS != "off" {
			spec.DrsConfig.DefaultVmBehavior = types.DrsBehavior(c.DRS)
		}
	}
	refs := func(names []string) (list []types.ManagedObjectReference, err error) {
		for _, name := range names {
			ref, ok := vms[name]
			if !ok {
				return nil, fmt.Errorf("no VM %s", name)
			}
			list = append(list, ref)
		}
		return list, nil
	}
	add := types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}
	for _, g := range c.Groups {
		if len(g.Hosts) > 0 {
			group := &types.ClusterHostGroup{ClusterGroupInfo: types.ClusterGroupInfo{Name: g.Name, UserCreated: types.NewBool(true)}}
			for _, name := range g.Hosts {
				group.Host = append(group.Host, hosts[name].Reference())
			}
			spec.GroupSpec = append(spec.GroupSpec, types.ClusterGroupSpec{ArrayUpdateSpec: add, Info: group})
			continue
		}
		list, err := refs(g.VMs)
		if err != nil {
			return nil, err
		}
		spec.GroupSpec = append(spec.GroupSpec, types.ClusterGroupSpec{ArrayUpdateSpec: add,
			Info: &types.ClusterVmGroup{ClusterGroupInfo: types.ClusterGroupInfo{Name: g.Name, UserCreated: types.NewBool(true)}, Vm: list}})
	}
	for _, r := range c.Rules {
		base := types.ClusterRuleInfo{Name: r.Name, Enabled: types.NewBool(r.Enabled), Mandatory: types.NewBool(r.Mandatory),
			UserCreated: types.NewBool(true),
			Status:      types.ManagedEntityStatusGreen, InCompliance: types.NewBool(true)}
		list, err := refs(r.VMs)
		if err != nil {
			return nil, err
		}
		var info types.BaseClusterRuleInfo
		switch r.Type {
		case "affinity":
			info = &types.ClusterAffinityRuleSpec{ClusterRuleInfo: base, Vm: list}
		case "anti_affinity":
			info = &types.ClusterAntiAffinityRuleSpec{ClusterRuleInfo: base, Vm: list}
		case "run_on":
			info = &types.ClusterVmHostRuleInfo{ClusterRuleInfo: base, VmGroupName: r.VMGroup, AffineHostGroupName: r.HostGroup}
		case "avoid":
			info = &types.ClusterVmHostRuleInfo{ClusterRuleInfo: base, VmGroupName: r.VMGroup, AntiAffineHostGroupName: r.HostGroup}
		default:
			return nil, fmt.Errorf("rule %s: no type %q", r.Name, r.Type)
		}
		spec.RulesSpec = append(spec.RulesSpec, types.ClusterRuleSpec{ArrayUpdateSpec: add, Info: info})
	}
	return spec, nil
}

// setEVCModes: reference: ServiceInstance.capability, Capability.supportedEVCMode ("all supported EVC modes"), EVCMode.vendor, vendorTier ("index for
// ordering the set of modes that apply to a given CPU vendor").
func setEVCModes(sim *simulator.Context) {
	instance, ok := sim.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance)
	if !ok {
		return
	}
	for vendor, keys := range evcModes {
		for i, key := range keys {
			mode := types.EVCMode{Vendor: vendor, VendorTier: int32(i + 1)}
			mode.Key, mode.Label, mode.Summary = key, key, key
			instance.Capability.SupportedEVCMode = append(instance.Capability.SupportedEVCMode, mode)
		}
	}
}

func clusterConfig(sim *simulator.Context, h *simulator.HostSystem) *types.ClusterConfigInfoEx {
	_, cluster := computeOf(sim, h.Self)
	if cluster == nil {
		return nil
	}
	config, _ := cluster.ConfigurationEx.(*types.ClusterConfigInfoEx)
	return config
}

// vmHost says whether a rule of VMs and hosts stands against a VM on a host.
func vmHost(config *types.ClusterConfigInfoEx, r *types.ClusterVmHostRuleInfo, vm, host types.ManagedObjectReference) bool {
	in := func(name string) bool {
		for _, g := range config.Group {
			switch g := g.(type) {
			case *types.ClusterVmGroup:
				if g.Name == name && slices.Contains(g.Vm, vm) {
					return true
				}
			case *types.ClusterHostGroup:
				if g.Name == name && slices.Contains(g.Host, host) {
					return true
				}
			}
		}
		return false
	}
	if r.Enabled != nil && !*r.Enabled || !in(r.VmGroupName) {
		return false
	}
	return r.AffineHostGroupName != "" && !in(r.AffineHostGroupName) || r.AntiAffineHostGroupName != "" && in(r.AntiAffineHostGroupName)
}

// checkRules: a mandatory rule of VMs and hosts is an error, all others are warnings. Reference: VmHostAffinityRuleViolation ("the virtual
// machine if powered on or VMotioned, would violate a VM-Host affinity rule"), RuleViolation; vSphere Resource Management, "VM-Host
// Affinity Rules".
func (l *Lab) checkRules(sim *simulator.Context, m *move) (errors, warnings []types.BaseMethodFault) {
	if !m.hot() {
		return nil, nil
	}
	if fault := l.mustRules(sim, m.vm.Self, m.vm.Name, m.to); fault != nil {
		errors = append(errors, fault)
	}
	config := clusterConfig(sim, m.to)
	if config == nil {
		return errors, nil
	}
	for _, x := range config.Rule {
		var broken bool
		switch r := x.(type) {
		case *types.ClusterVmHostRuleInfo:
			broken = !isTrue(r.Mandatory) && vmHost(config, r, m.vm.Self, m.to.Self)
		case *types.ClusterAffinityRuleSpec:
			broken = isTrue(r.Enabled) && slices.Contains(r.Vm, m.vm.Self) && slices.ContainsFunc(r.Vm, func(o types.ManagedObjectReference) bool {
				return o != m.vm.Self && !slices.Contains(m.to.Vm, o)
			})
		case *types.ClusterAntiAffinityRuleSpec:
			broken = isTrue(r.Enabled) && slices.Contains(r.Vm, m.vm.Self) && slices.ContainsFunc(r.Vm, func(o types.ManagedObjectReference) bool {
				return o != m.vm.Self && slices.Contains(m.to.Vm, o)
			})
		}
		if broken {
			host := m.to.Self
			warnings = append(warnings, &types.RuleViolation{Host: &host, Rule: x})
		}
	}
	return errors, warnings
}

// mustRules are the mandatory rules, which hold for a power on too.
func (l *Lab) mustRules(sim *simulator.Context, vm types.ManagedObjectReference, name string,
	host *simulator.HostSystem) types.BaseMethodFault {
	config := clusterConfig(sim, host)
	if config == nil {
		return nil
	}
	for _, x := range config.Rule {
		if r, ok := x.(*types.ClusterVmHostRuleInfo); ok && isTrue(r.Mandatory) && vmHost(config, r, vm, host.Self) {
			return &types.VmHostAffinityRuleViolation{VmName: name, HostName: host.Name}
		}
	}
	return nil
}

// leaveRules takes a VM that leaves the inventory out of the groups and rules of its cluster. Reference: vSphere Resource Management, "Create a
// Virtual Machine DRS Group" and "Create a Host DRS Group" (what leaves the cluster loses its affiliation, also when it comes back). What the
// product does with a rule of which fewer than two VMs are left is not documented: the rule stays, or goes by the switch lone_rules.
func (l *Lab) leaveRules(sim *simulator.Context, vm, host types.ManagedObjectReference) {
	_, cluster := computeOf(sim, host)
	if cluster == nil {
		return
	}
	sim.WithLock(cluster, func() {
		old, ok := cluster.ConfigurationEx.(*types.ClusterConfigInfoEx)
		if !ok {
			return
		}
		without := func(vms []types.ManagedObjectReference) []types.ManagedObjectReference {
			return slices.DeleteFunc(slices.Clone(vms), func(r types.ManagedObjectReference) bool { return r == vm })
		}
		config := *old
		config.Group, config.Rule = slices.Clone(old.Group), nil
		for i, g := range config.Group {
			if group, ok := g.(*types.ClusterVmGroup); ok {
				own := *group
				own.Vm = without(group.Vm)
				config.Group[i] = &own
			}
		}
		for _, x := range old.Rule {
			left := 2
			switch r := x.(type) {
			case *types.ClusterAffinityRuleSpec:
				own := *r
				own.Vm = without(r.Vm)
				x, left = &own, len(own.Vm)
			case *types.ClusterAntiAffinityRuleSpec:
				own := *r
				own.Vm = without(r.Vm)
				x, left = &own, len(own.Vm)
			}
			if left >= 2 || l.switches.Get("lone_rules", "", 0) != "remove" {
				config.Rule = append(config.Rule, x)
			}
		}
		sim.Update(cluster, []types.PropertyChange{{Name: "configurationEx", Val: &config}})
	})
}

func (l *Lab) hostModel(name string) *Host {
	if h, ok := l.config.Model.Hardware[name]; ok {
		return &h
	}
	if h, ok := l.config.Model.Hardware["*"]; ok {
		return &h
	}
	return nil
}

// setHardware: references: HostHardwareSummary (vendor, model, cpuMhz, numCpuCores, memorySize in bytes), HostHardwareInfo,
// HostListSummary.maxEVCModeKey.
func (l *Lab) setHardware(name string) {
	m := l.hostModel(name)
	h := l.service.Context.Map.Get(l.hosts[name].Reference()).(*simulator.HostSystem)
	l.addClock(h)
	h.Summary.Config.VmotionEnabled = m == nil || !m.NoVMotion // reference: HostConfigSummary.vmotionEnabled
	if m == nil {
		return
	}
	s, info := h.Summary.Hardware, h.Hardware
	if m.CPUMHz > 0 {
		s.CpuMhz, info.CpuInfo.Hz = m.CPUMHz, int64(m.CPUMHz)*1_000_000
	}
	if m.Cores > 0 {
		s.NumCpuCores, s.NumCpuThreads, s.NumCpuPkgs = m.Cores, 2*m.Cores, 1
		info.CpuInfo.NumCpuCores, info.CpuInfo.NumCpuThreads, info.CpuInfo.NumCpuPackages = m.Cores, 2*m.Cores, 1
	}
	if m.MemoryMB > 0 {
		s.MemorySize, info.MemorySize = m.MemoryMB<<20, m.MemoryMB<<20
	}
	if m.Vendor != "" {
		s.Vendor, info.SystemInfo.Vendor = m.Vendor, m.Vendor
	}
	if m.Model != "" {
		s.Model, info.SystemInfo.Model = m.Model, m.Model
	}
	h.Summary.MaxEVCModeKey = strings.TrimSpace(m.EVC)
	if m.TimeServers != nil {
		setClock(h, m.TimeServers)
	}
}

// without takes a network away from a host that does not have it: the simulator gives "VM Network" to all.
func (l *Lab) without(host string, network types.ManagedObjectReference) {
	h := l.service.Context.Map.Get(l.hosts[host].Reference()).(*simulator.HostSystem)
	h.Network = slices.DeleteFunc(slices.Clone(h.Network), func(r types.ManagedObjectReference) bool { return r == network })
}
