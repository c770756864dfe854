// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

// Model is the inventory as tests/lab/model.py has checked it and filled in its defaults: sizes are bytes, paths are
// absolute, times are seconds. See tests/lab/README.md for the file that a person writes.
type Model struct {
	Datacenter      string             `json:"datacenter"`
	Clusters        []Cluster          `json:"clusters"`
	StandaloneHosts []string           `json:"standalone_hosts"`
	Networks        []Network          `json:"networks"`
	Datastores      []Datastore        `json:"datastores"`
	VMs             []VM               `json:"vms"`
	Bulk            *Bulk              `json:"bulk"`
	Behaviour       Behaviour          `json:"behaviour"`
	ESXi            map[string]Product `json:"esxi"` // by host; "*" for the others
	Hardware        map[string]Host    `json:"hardware"`
	APIVersion      string             `json:"api_version"` // 6.5
}

type Cluster struct {
	Name   string   `json:"name"`
	Hosts  []string `json:"hosts"`
	DRS    string   `json:"drs"` // off, manual, partiallyAutomated, fullyAutomated; empty: the simulator's
	HA     bool     `json:"ha"`
	EVC    string   `json:"evc"`
	DPM    bool     `json:"dpm"`
	Groups []Group  `json:"groups"`
	Rules  []Rule   `json:"rules"`
}

// Group of VMs or of hosts, by their names.
type Group struct {
	Name  string   `json:"name"`
	VMs   []string `json:"vms"`
	Hosts []string `json:"hosts"`
}

// Rule is affinity, anti_affinity (of VMs), run_on or avoid (a group of VMs, a group of hosts).
type Rule struct {
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	VMs       []string `json:"vms"`
	VMGroup   string   `json:"vm_group"`
	HostGroup string   `json:"host_group"`
	Mandatory bool     `json:"mandatory"`
	Enabled   bool     `json:"enabled"`
}

// Host is the hardware of an ESXi host; what is 0 or empty stays as the simulator has it.
type Host struct {
	CPUMHz    int32  `json:"cpu_mhz"` // of one core
	Cores     int16  `json:"cores"`
	MemoryMB  int64  `json:"memory_mb"`
	Vendor    string `json:"vendor"`
	Model     string `json:"model"`
	EVC       string `json:"evc"` // the best mode that its CPU has
	NoVMotion bool   `json:"no_vmotion"`

	TimeServers []string `json:"time_servers"` // null: it does not tell
}

// Product is what an ESXi host says it is.
type Product struct {
	Version string `json:"version"` // 7.0.3
	Build   string `json:"build"`
}

type Network struct {
	Name        string   `json:"name"`
	Distributed bool     `json:"distributed"`
	Hosts       []string `json:"hosts"` // empty: all
}

type Datastore struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"` // VMFS, NFS, NFS41, vsan, VVOL
	VMFS     int      `json:"vmfs"` // version, 6 or 5
	Capacity int64    `json:"capacity"`
	Free     *int64   `json:"free"` // absent: capacity less what the VMs occupy
	Hosts    []string `json:"hosts"`
}

type VM struct {
	Name            string            `json:"name"`
	UUID            string            `json:"uuid"`      // instanceUuid
	BiosUUID        string            `json:"bios_uuid"` // config.uuid
	Host            string            `json:"host"`
	Datastore       string            `json:"datastore"`
	Folder          string            `json:"folder"` // below the datacenter's vm folder
	Template        bool              `json:"template"`
	GuestID         string            `json:"guest_id"`
	GuestFullName   string            `json:"guest_full_name"`
	Firmware        string            `json:"firmware"`
	SecureBoot      bool              `json:"secure_boot"`
	CPUs            int32             `json:"cpus"`
	CoresPerSocket  int32             `json:"cores_per_socket"`
	MemoryMB        int64             `json:"memory_mb"`
	Power           string            `json:"power"`            // on, off, suspended
	Tools           string            `json:"tools"`            // running, hangs, not_running, not_installed
	ShutdownSeconds float64           `json:"shutdown_seconds"` // what the guest needs to shut down
	HwVersion       string            `json:"hw_version"`
	HostName        string            `json:"hostname"`
	Annotation      string            `json:"annotation"`
	Custom          map[string]string `json:"custom"`
	CBT             bool              `json:"cbt"`
	Passthrough     []string          `json:"passthrough"`        // PCI addresses
	ISO             string            `json:"iso"`                // in the CD-ROM drive: "[datastore] file.iso"
	MemoryReserved  int64             `json:"memory_reserved_mb"` //
	Traits          Traits            `json:"traits"`
	Disks           []Disk            `json:"disks"`
	NICs            []NIC             `json:"nics"`
}

type Disk struct {
	Controller   string `json:"controller"` // pvscsi, lsilogic, lsilogic-sas, buslogic, ide, sata, nvme
	Bus          int32  `json:"bus"`
	Unit         int32  `json:"unit"`
	Path         string `json:"path"` // raw bytes; empty: no flat file exists
	Capacity     int64  `json:"capacity"`
	Provisioning string `json:"provisioning"` // thin, thick, eagerZeroedThick
	UUID         string `json:"uuid"`
	Datastore    string `json:"datastore"` // empty: the VM's
	Mode         string `json:"mode"`
	Sharing      string `json:"sharing"`     // multi_writer
	BusSharing   string `json:"bus_sharing"` // of its controller: physical, virtual
	Lacks        string `json:"lacks"`       // of an rdm: datastore, capacity
	RDM          string `json:"rdm"`         // physical, virtual: a raw device mapping, without bytes
	File         string `json:"-"`           // where it is, once the VM is there
}

type NIC struct {
	Network string `json:"network"`
	MAC     string `json:"mac"`
	Type    string `json:"type"`
	IP      string `json:"ip"`

	number    int32 // of ethernetN
	portgroup string
}

type Bulk struct {
	VMs    int    `json:"vms"`
	Prefix string `json:"prefix"`
}

// Behaviour holds the switches for what the real product leaves open, or does differently from version to version.
type Behaviour struct {
	// LockedStatus answers a GET of the disk that a running VM has locked. The reference does not say what it is; in the
	// field vCenter proxies to the host, the host cannot open the file, and 500 comes back. 0: serve the bytes.
	LockedStatus int `json:"locked_status"`
}
