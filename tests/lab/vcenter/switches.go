// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Switch is a way in which the lab behaves until it is set otherwise. VM and disk (key) narrow it; empty and 0 mean all.
type Switch struct {
	Name  string `json:"name"`
	VM    string `json:"vm,omitempty"`
	Disk  int32  `json:"disk,omitempty"`
	Value string `json:"value"`
}

var switchNames = map[string]string{
	"cbt_parts":                "at most so many areas in one answer of QueryChangedDiskAreas",
	"cbt_miss":                 "changed areas are left out: every:N (each Nth), or START-END in bytes",
	"cbt_star_miss":            "the same for \"*\"",
	"cbt_star_whole":           "1: \"*\" answers one area, the whole disk",
	"cbt_star_fault":           "1: \"*\" answers FileFault",
	"cbt_revert":               "what a revert does to the changeId: new (UUID, the default), keep (UUID, sequence goes on), lower (sequence goes back)",
	"cbt_consolidation_misses": "1: what the guest writes during consolidation is not tracked (KB 317933)",
	"cbt_query_ms":             "milliseconds before the answer of QueryChangedDiskAreas",
	"consolidate_rate":         "bytes per second of consolidation",
	"consolidate_seconds":      "seconds that a consolidation takes",
	"snapshot_seconds":         "seconds that the creation of a snapshot takes",
	"delta_format":             "redoLogFormat or seSparseFormat for new deltas, whatever the datastore",
	"nfc_timeout":              "seconds of a lease (300)",
	"nfc_init_ms":              "milliseconds that a lease is initializing",
	"nfc_max":                  "leases at once per host",
	"nfc_rate":                 "bytes per second of each NFC stream",
	"relocate_rate":            "bytes per second of a relocation",
	"relocate_seconds":         "seconds of a relocation that moves files, instead of relocate_rate and migrate_seconds",
	"migrate_seconds":          "seconds of a change of host",
	"power_on_seconds":         "seconds of PowerOnVM",
	"register_seconds":         "seconds of RegisterVM",
	"host_boot_seconds":        "seconds that a host needs after RebootHost (1)",
	"ha_restart_seconds":       "seconds until vSphere HA restarts the VMs of a dead host elsewhere, in clusters that have it; unset: it does not",
	"lock_fault":               "FileLocked: what PowerOnVM answers when another holds a VM's files; else GenericVmConfigFault",
	"lone_rules":               "remove: a rule of VMs goes with the last but one of its VMs",
	"privileges_missing":       "privileges (comma-separated; *: all) that the account lacks on the object of this name; System.Read: NoPermission",
	"invisible":                "1: the account may not see the VM",
	"clock_ahead":              "seconds that the clocks of vCenter and of its hosts (or of the host of this name) are ahead",
	"unregister_dead":          "refuse: UnregisterVM of a VM that ran on a lost host answers InvalidPowerState",
}

type Switches struct {
	mu   sync.Mutex
	list []Switch
}

// Set replaces the switch of the same name, VM and disk; an empty value takes it away.
func (s *Switches) Set(x Switch) error {
	if _, ok := switchNames[x.Name]; !ok {
		return fmt.Errorf("no switch %q", x.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(o Switch) bool { return o.Name == x.Name && o.VM == x.VM && o.Disk == x.Disk })
	if x.Value != "" {
		s.list = append(s.list, x)
	}
	return nil
}

func (s *Switches) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
}

func (s *Switches) List() []Switch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Switch{}, s.list...)
}

// Get gives the newest switch that fits; disk 0 asks for the VM.
func (s *Switches) Get(name, vm string, disk int32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range slices.Backward(s.list) {
		if x.Name == name && (x.VM == "" || x.VM == vm) && (x.Disk == 0 || x.Disk == disk) {
			return x.Value
		}
	}
	return ""
}

func (s *Switches) On(name, vm string, disk int32) bool {
	v := strings.ToLower(s.Get(name, vm, disk))
	return v != "" && v != "0" && v != "false" && v != "no"
}

// Number is the switch's value, or this one where it is not set.
func (s *Switches) Number(name, vm string, otherwise float64) float64 {
	if v, err := strconv.ParseFloat(s.Get(name, vm, 0), 64); err == nil {
		return v
	}
	return otherwise
}
