// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// Fault is something that goes wrong on demand. Match is a part of the URL's path, of the VM's name or of the SOAP method;
// empty matches all. Times is how often it happens: 1 when absent, 0 for until it is removed.
type Fault struct {
	Kind       string `json:"kind"`
	Match      string `json:"match,omitempty"`
	AfterBytes int64  `json:"after_bytes,omitempty"` // folder_cut: bytes served since the fault was set; folder_short: length of the answer
	Status     int    `json:"status,omitempty"`
	RetryAfter int    `json:"retry_after,omitempty"` // seconds
	DelayMS    int    `json:"delay_ms,omitempty"`
	Fault      string `json:"fault,omitempty"` // soap_fault: the name of a type of fault
	Times      *int   `json:"times,omitempty"`
	Fired      int    `json:"fired"`

	served int64
}

var faultKinds = map[string]string{
	"folder_cut":           "the connection breaks after after_bytes bytes",
	"folder_status":        "status (and retry_after) instead of the file",
	"folder_delay":         "delay_ms before the answer",
	"folder_short":         "a 206 of after_bytes bytes although more were asked for",
	"folder_etag":          "another ETag, as if the file had changed",
	"session_expire":       "every session ends: now, or with match when that path is asked for",
	"soap_down":            "status (503) for every SOAP request",
	"soap_delay":           "delay_ms before a SOAP method (match)",
	"soap_fault":           "fault (a type's name) from a SOAP method (match)",
	"shutdown_hang":        "ShutdownGuest of the VM (match) has no effect",
	"snapshot_create_fail": "CreateSnapshot of the VM (match) ends with fault (SnapshotFault)",
	"snapshot_remove_fail": "RemoveSnapshot of the VM (match) ends with fault (SnapshotFault), and the snapshot stays",
	"consolidate_fail":     "the consolidation of the VM (match) ends with fault (FileLocked): consolidationNeeded",
	"quiesce_fail":         "a quiesced snapshot of the VM (match) ends with fault (ApplicationQuiesceFault)",
	"nfc_error":            "a lease of the VM (match) ends with fault (HostConnectFault) before it is ready",
	"relocate_fail":        "RelocateVM or MigrateVM of the VM (match) ends with fault (GenericVmConfigFault) after the half",
	"power_on_fail":        "PowerOnVM of the VM (match) ends with fault (GenericVmConfigFault)",
	"register_fail":        "RegisterVM of the path (match) ends with fault (InvalidState)",
	"cbt_file_fault":       "QueryChangedDiskAreas of the VM (match) answers FileFault",
}

type Faults struct {
	mu   sync.Mutex
	list []*Fault
}

func NewFaults() *Faults { return &Faults{} }

func (f *Faults) Add(fault *Fault) error {
	if _, ok := faultKinds[fault.Kind]; !ok {
		return fmt.Errorf("no fault %q", fault.Kind)
	}
	switch fault.Kind {
	case "folder_status", "soap_down":
		if fault.Status == 0 {
			fault.Status = 503
		}
		if fault.Status < 400 || fault.Status > 599 {
			return fmt.Errorf("status %d is no error", fault.Status)
		}
	case "soap_fault":
		if _, err := newFault(fault.Fault); err != nil {
			return err
		}
	}
	if fault.Times == nil {
		once := 1
		fault.Times = &once
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, fault)
	return nil
}

func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
}

// List copies what is set and not yet used up.
func (f *Faults) List() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Fault{}
	for _, x := range f.list {
		out = append(out, *x)
	}
	return out
}

// fire counts one use; the caller holds the lock.
func (f *Faults) fire(i int) *Fault {
	x := f.list[i]
	x.Fired++
	if *x.Times > 0 && x.Fired >= *x.Times {
		f.list = append(f.list[:i:i], f.list[i+1:]...)
	}
	c := *x
	return &c
}

// Take gives the first fault of this kind that matches, and counts it as used.
func (f *Faults) Take(kind, text string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, x := range f.list {
		if x.Kind == kind && strings.Contains(text, x.Match) {
			return f.fire(i)
		}
	}
	return nil
}

// Cut says how many of the next n bytes of a body may be written before the connection breaks.
func (f *Faults) Cut(text string, n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, x := range f.list {
		if x.Kind != "folder_cut" || !strings.Contains(text, x.Match) {
			continue
		}
		if x.served+int64(n) <= x.AfterBytes {
			x.served += int64(n)
			continue
		}
		left := int(x.AfterBytes - x.served)
		x.served = 0
		f.fire(i)
		return left
	}
	return n
}

// Soap is the fault that a method shall answer with, if any.
func (f *Faults) Soap(method, object string) types.BaseMethodFault {
	text := method + " " + object
	if d := f.Take("soap_delay", text); d != nil {
		time.Sleep(time.Duration(d.DelayMS) * time.Millisecond)
	}
	if x := f.Take("soap_fault", text); x != nil {
		if fault, err := newFault(x.Fault); err == nil {
			return fault
		}
	}
	return nil
}

func newFault(name string) (types.BaseMethodFault, error) {
	t, ok := types.TypeFunc()(name)
	if !ok {
		return nil, fmt.Errorf("no type %q", name)
	}
	fault, ok := reflect.New(t).Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%q is no fault", name)
	}
	if busy, ok := fault.(*types.TaskInProgress); ok { // its task is not optional
		busy.Task = types.ManagedObjectReference{Type: "Task", Value: "task-0"}
	}
	if gone, ok := fault.(*types.ManagedObjectNotFound); ok { // nor its object
		gone.Obj = types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-0"}
	}
	return fault, nil
}
