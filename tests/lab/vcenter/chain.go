// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/vmware/govmomi/vim25/types"
)

const (
	formatCOWD     = string(types.VirtualDiskDeltaDiskFormatRedoLogFormat)
	formatSESparse = string(types.VirtualDiskDeltaDiskFormatSeSparseFormat)
)

// Layer is one file of a disk's chain: the flat base, or a delta over its parent.
type Layer struct {
	name   string // "[datastore] folder/disk.vmdk", the descriptor
	format string // empty: flat
	cid    uint32
	parent *Layer
	store  Store // nil: a disk of a bulk VM, without bytes
}

// extentName is the file that holds the bytes beside a descriptor. Reference: VMware KB 1002511 (files of a snapshot):
// "-flat.vmdk", "-delta.vmdk", and "-sesparse.vmdk" where the format is seSparse.
func extentName(descriptor, format string) string {
	base := strings.TrimSuffix(descriptor, ".vmdk")
	switch format {
	case formatCOWD:
		return base + "-delta.vmdk"
	case formatSESparse:
		return base + "-sesparse.vmdk"
	}
	return base + "-flat.vmdk"
}

// backingExtent is the same for a disk's backing.
func backingExtent(b *types.VirtualDiskFlatVer2BackingInfo) string {
	if b.Parent == nil {
		return extentName(b.FileName, "")
	}
	return extentName(b.FileName, b.DeltaDiskFormat)
}

// ReadAt reads the disk as this layer and its parents have it.
func (l *Layer) ReadAt(p []byte, off int64) error {
	if l == nil || l.store == nil {
		clear(p)
		return nil
	}
	return l.store.Runs(off, int64(len(p)), func(at, n, place int64) error {
		part := p[at-off : at-off+n]
		switch place {
		case absent:
			return l.parent.ReadAt(part, at)
		case zero:
			clear(part)
			return nil
		}
		return readRun(l.store, part, place)
	})
}

func (l *Layer) Write(p []byte, off int64) error {
	if l.store == nil {
		return errors.New("this disk has no bytes")
	}
	return l.store.Write(p, off, l.ReadAt)
}

// VDisk is a virtual disk with its chains: a tree of layers, of which the VM writes to one.
type VDisk struct {
	key         int32
	capacity    int64
	root        string // the base's descriptor
	top         *Layer
	layers      []*Layer
	independent bool
	address     string // scsi0:0
	track       *Track
	off         bool   // tracking switched off for this disk (extraConfig)
	mirror      *Layer // while the running layer is merged: what takes its writes too
	writes      int64
}

var snapshotSuffix = regexp.MustCompile(`-\d{6}\.vmdk$`)

// openDisk takes a disk as the VM's configuration has it, without snapshots.
func (l *Lab) openDisk(d *types.VirtualDisk) (*VDisk, error) {
	b := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	v := &VDisk{key: d.Key, capacity: d.CapacityInBytes, root: b.FileName, independent: strings.HasPrefix(b.DiskMode, "independent")}
	base := &Layer{name: b.FileName, cid: crc32.ChecksumIEEE([]byte(b.Uuid)) & 0x7fffffff}
	local := l.localPath(b.FileName)
	file, err := openFlat(flatName(local), v.capacity)
	if err == nil {
		base.store = file
		if text, err := os.ReadFile(local); err == nil {
			if found := regexp.MustCompile(`(?m)^CID=([0-9a-fA-F]{8})`).FindSubmatch(text); found != nil {
				_, _ = fmt.Sscanf(string(found[1]), "%x", &base.cid)
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	v.top, v.layers = base, []*Layer{base}
	return v, nil
}

func (v *VDisk) close() {
	for _, l := range v.layers {
		if l.store != nil {
			_ = l.store.Close()
		}
	}
}

var layersMade atomic.Uint32

// grow puts a new delta over parent, which is frozen by it, and makes it the one that the VM writes to.
func (l *Lab) grow(v *VDisk, parent *Layer, format string) (*Layer, error) {
	stem := snapshotSuffix.ReplaceAllString(strings.TrimSuffix(v.root, ".vmdk")+".vmdk", "")
	stem = strings.TrimSuffix(stem, ".vmdk")
	child := &Layer{format: format, parent: parent, cid: crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", stem, layersMade.Add(1))) & 0x7fffffff}
	for n := 1; child.name == ""; n++ {
		name := fmt.Sprintf("%s-%06d.vmdk", stem, n)
		taken := false
		for _, other := range v.layers {
			taken = taken || other.name == name
		}
		if _, err := os.Lstat(l.localPath(name)); !taken && err != nil {
			child.name = name
		}
	}
	if parent.store != nil {
		extent := l.localPath(extentName(child.name, format))
		file, err := os.OpenFile(extent, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if format == formatSESparse {
			child.store, err = newSESparse(file, v.capacity)
		} else {
			child.store, err = newCOWD(file, v.capacity, path.Base(l.localPath(parent.name)))
		}
		if err == nil {
			err = l.describe(v, child)
		}
		if err != nil {
			_ = file.Close()
			_ = os.Remove(extent)
			return nil, err
		}
	}
	v.layers = append(v.layers, child)
	v.top = child
	return child, nil
}

// describe writes a delta's descriptor. Reference: VMware "Virtual Disk Format 5.0", chapter "Text Descriptor": parentCID,
// parentFileNameHint, createType "vmfsSparse", extent type VMFSSPARSE; "seSparse" and SESPARSE as QEMU's block/vmdk.c has them.
func (l *Lab) describe(v *VDisk, layer *Layer) error {
	kind, extent := "vmfsSparse", "VMFSSPARSE"
	if layer.format == formatSESparse {
		kind, extent = "seSparse", "SESPARSE"
	}
	track := ""
	if v.track != nil {
		track = fmt.Sprintf("# Change Tracking File\nchangeTrackPath=\"%s-ctk.vmdk\"\n\n", strings.TrimSuffix(path.Base(layer.name), ".vmdk"))
	}
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=%08x
parentCID=%08x
createType="%s"
parentFileNameHint="%s"
# Extent description
RW %d %s "%s"

%s# The Disk Data Base 
#DDB

ddb.longContentID = "%s"
`, layer.cid, layer.parent.cid, kind, path.Base(l.localPath(layer.parent.name)), v.capacity/sector, extent,
		path.Base(l.localPath(extentName(layer.name, layer.format))), track, contentID(layer.name))
	local := l.localPath(layer.name)
	if err := os.WriteFile(local+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(local+".new", local)
}

// drop removes a layer and its files.
func (l *Lab) drop(v *VDisk, layer *Layer) {
	for i, other := range v.layers {
		if other == layer {
			v.layers = append(v.layers[:i:i], v.layers[i+1:]...)
			break
		}
	}
	if layer.store != nil {
		_ = layer.store.Close()
		_ = os.Remove(l.localPath(layer.name))
		_ = os.Remove(l.localPath(extentName(layer.name, layer.format)))
	}
}

func (v *VDisk) children(parent *Layer) (children []*Layer) {
	for _, l := range v.layers {
		if l.parent == parent {
			children = append(children, l)
		}
	}
	return children
}

// write is a write of the guest; the caller holds the VM's mutex.
func (v *VDisk) write(p []byte, off int64, tracked bool) error {
	if off < 0 || off%sector != 0 || len(p)%sector != 0 || off+int64(len(p)) > v.capacity {
		return fmt.Errorf("bytes %d to %d are not sectors of a disk of %d bytes", off, off+int64(len(p)), v.capacity)
	}
	if err := v.top.Write(p, off); err != nil {
		return err
	}
	if v.mirror != nil {
		if err := v.mirror.Write(p, off); err != nil {
			return err
		}
	}
	if v.track != nil {
		v.track.mark(off, int64(len(p)), tracked)
	}
	v.writes++
	return nil
}

// backing describes a chain as the product does. Reference: VirtualDiskFlatVer2BackingInfo.parent ("the parent of this virtual
// disk file, if this is a delta disk backing"), deltaDiskFormat.
func (l *Lab) backing(like *types.VirtualDiskFlatVer2BackingInfo, layer *Layer, change string) *types.VirtualDiskFlatVer2BackingInfo {
	b := *like
	b.FileName, b.Parent, b.DeltaDiskFormat, b.ChangeId = layer.name, nil, "", change
	if layer.parent != nil {
		b.DeltaDiskFormat = layer.format
		b.Parent = l.backing(like, layer.parent, "")
	}
	return &b
}
