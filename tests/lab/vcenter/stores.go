// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
)

const (
	sector       = 512
	tableEntries = 4096 // of a grain table, in both formats of deltas
)

// Store is where the bytes of one layer of a disk are. All positions are bytes of disk and multiples of a sector.
type Store interface {
	// Runs tells what stands in a range, in order: the place in the file, or absent, or zero.
	Runs(off, n int64, yield func(off, n, place int64) error) error
	// Write puts bytes there; below reads what the disk holds now, for grains that are written in part.
	Write(p []byte, off int64, below func(p []byte, off int64) error) error
	// Extents are the areas that have something of their own.
	Extents() ([]Area, error)
	File() *os.File
	Close() error
}

const (
	absent = int64(-1)
	zero   = int64(-2)
)

// flat is a file of plain bytes.
type flat struct {
	file     *os.File
	path     string
	capacity int64
	owned    bool
}

func openFlat(path string, capacity int64) (*flat, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &flat{file: f, path: path, capacity: capacity}, nil
}

// own makes the file this program's alone and writable: it may be a hard link to a file of the model (see place).
func (f *flat) own() error {
	if f.owned {
		return nil
	}
	st, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if st.Sys().(*syscall.Stat_t).Nlink > 1 {
		temp := filepath.Join(filepath.Dir(f.path), ".put-own-"+filepath.Base(f.path))
		if err = sparseCopy(temp, f.path, f.capacity); err != nil {
			return err
		}
		if err = os.Rename(temp, f.path); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_ = f.file.Close()
	f.file, f.owned = file, true
	return nil
}

// extend makes the file longer, and its descriptor say so.
func (f *flat) extend(capacity int64, descriptor string) error {
	if err := f.own(); err != nil {
		return err
	}
	f.capacity = capacity
	text, err := os.ReadFile(descriptor)
	if err == nil {
		text = regexp.MustCompile(`(?m)^RW \d+ `).ReplaceAll(text, fmt.Appendf(nil, "RW %d ", capacity/sector))
		err = os.WriteFile(descriptor, text, 0o600)
	}
	return errors.Join(err, f.file.Truncate(capacity))
}

func (f *flat) Runs(off, n int64, yield func(off, n, place int64) error) error {
	return yield(off, n, off)
}

func (f *flat) Write(p []byte, off int64, _ func([]byte, int64) error) error {
	if err := f.own(); err != nil {
		return err
	}
	_, err := f.file.WriteAt(p, off)
	return err
}

func (f *flat) Extents() (areas []Area, err error) {
	const seekData, seekHole = 3, 4
	for at := int64(0); ; {
		start, err := f.file.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return areas, nil
		} else if err != nil {
			return nil, err
		}
		if at, err = f.file.Seek(start, seekHole); err != nil {
			return nil, err
		}
		areas = append(areas, Area{start, at - start})
	}
}

func (f *flat) File() *os.File { return f.file }
func (f *flat) Close() error   { return f.file.Close() }

// delta is what COWD and seSparse have in common: tables of 4,096 entries, made when their first grain is written.
type delta struct {
	file     *os.File
	capacity int64
	grain    int64
	tables   map[int64][]int64 // by number: places of grains in the file, absent or zero
	next     int64             // place of the next new grain
	kind     deltaKind
}

// deltaKind is what differs: where tables stand and how an entry is written.
type deltaKind interface {
	table(d *delta, number int64) error                          // makes a new table
	entries(d *delta, number, first int64, places []int64) error // writes entries of a table
	allocated(d *delta) error                                    // grains were added
}

func (d *delta) File() *os.File { return d.file }
func (d *delta) Close() error   { return d.file.Close() }

func (d *delta) Runs(off, n int64, yield func(off, n, place int64) error) error {
	span := d.grain * tableEntries
	for end := off + n; off < end; {
		number := off / span
		stop := min(end, (number+1)*span)
		table := d.tables[number]
		if table == nil {
			if err := yield(off, stop-off, absent); err != nil {
				return err
			}
			off = stop
			continue
		}
		i := (off - number*span) / d.grain
		place := table[i]
		to := min(number*span+(i+1)*d.grain, stop)
		for j := i + 1; to < stop; j++ {
			if place < 0 && table[j] != place || place >= 0 && table[j] != place+(j-i)*d.grain {
				break
			}
			to = min(to+d.grain, stop)
		}
		if place >= 0 {
			place += off % d.grain
		}
		if err := yield(off, to-off, place); err != nil {
			return err
		}
		off = to
	}
	return nil
}

func (d *delta) Extents() (areas []Area, err error) {
	numbers := make([]int64, 0, len(d.tables))
	for n := range d.tables {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	span := d.grain * tableEntries
	for _, n := range numbers {
		_ = d.Runs(n*span, min(span, d.capacity-n*span), func(off, length, place int64) error {
			if place == absent {
				return nil
			}
			if last := len(areas) - 1; last >= 0 && areas[last].Start+areas[last].Length == off {
				areas[last].Length += length
			} else {
				areas = append(areas, Area{off, length})
			}
			return nil
		})
	}
	return areas, nil
}

func (d *delta) Write(p []byte, off int64, below func([]byte, int64) error) error {
	first, end := off/d.grain*d.grain, (off+int64(len(p))+d.grain-1)/d.grain*d.grain
	if first != off || end != off+int64(len(p)) {
		whole := make([]byte, end-first)
		if err := below(whole[:min(int64(len(whole)), d.capacity-first)], first); err != nil {
			return err
		}
		copy(whole[off-first:], p)
		p, off = whole, first
	}
	span := d.grain * tableEntries
	for len(p) > 0 {
		number := off / span
		n := min(int64(len(p)), (number+1)*span-off)
		if d.tables[number] == nil {
			table := make([]int64, tableEntries)
			for i := range table {
				table[i] = absent
			}
			if err := d.kind.table(d, number); err != nil {
				return err
			}
			d.tables[number] = table
		}
		if err := d.grains(d.tables[number], number, (off-number*span)/d.grain, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return d.kind.allocated(d)
}

// grains writes whole grains of one table, from entry i on: in place where they are, else at the end of the file.
func (d *delta) grains(table []int64, number, i int64, p []byte) error {
	_, zeroes := d.kind.(*seSparse)
	for len(p) > 0 {
		n := int64(1)
		kind := func(k int64) int64 {
			switch {
			case table[i+k] >= 0:
				return 0
			case zeroes && isZero(p[k*d.grain:(k+1)*d.grain]):
				return zero
			}
			return absent
		}
		what := kind(0)
		for n*d.grain < int64(len(p)) && kind(n) == what && (what != 0 || table[i+n] == table[i]+n*d.grain) {
			n++
		}
		size := n * d.grain
		place := table[i]
		switch what {
		case absent:
			place = d.next
			d.next += size
			fallthrough
		case 0:
			if _, err := d.file.WriteAt(p[:size], place); err != nil {
				return err
			}
		}
		if what != 0 {
			for k := range n {
				if table[i+k] = zero; what == absent {
					table[i+k] = place + k*d.grain
				}
			}
			if err := d.kind.entries(d, number, i, table[i:i+n]); err != nil {
				return err
			}
		}
		p, i = p[size:], i+n
	}
	return nil
}

var zeroes [64 << 10]byte

func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroes))
		if !bytes.Equal(p[:n], zeroes[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }

// cowd is the format of createType vmfsSparse. Reference: VMware "Virtual Disk Format 5.0", section "ESX Server Sparse
// Extents": COWDisk_Header of four sectors, grain directory at sector 4, tables of 4,096 entries of 32 bits, grains of one sector.
type cowd struct {
	directory int64 // bytes
}

func newCOWD(file *os.File, capacity int64, parent string) (*delta, error) {
	entries := ceil(capacity, sector*tableEntries)
	k := &cowd{directory: 4 * sector}
	d := &delta{file: file, capacity: capacity, grain: sector, tables: map[int64][]int64{}, kind: k}
	d.next = k.directory + ceil(entries*4, sector)*sector
	head := make([]byte, 4*sector)
	copy(head, "COWD")
	for i, v := range []int64{1, 3, capacity / sector, 1, k.directory / sector, entries, d.next / sector} {
		binary.LittleEndian.PutUint32(head[4+4*i:], uint32(v))
	}
	copy(head[32:32+1023], parent)
	if _, err := file.WriteAt(head, 0); err != nil {
		return nil, err
	}
	return d, file.Truncate(d.next)
}

func (k *cowd) table(d *delta, number int64) error {
	var entry [4]byte
	binary.LittleEndian.PutUint32(entry[:], uint32(d.next/sector))
	if _, err := d.file.WriteAt(entry[:], k.directory+4*number); err != nil {
		return err
	}
	d.next += 4 * tableEntries
	return d.file.Truncate(d.next)
}

func (k *cowd) entries(d *delta, number, first int64, places []int64) error {
	var at [4]byte
	if _, err := d.file.ReadAt(at[:], k.directory+4*number); err != nil {
		return err
	}
	out := make([]byte, 4*len(places))
	for i, place := range places {
		binary.LittleEndian.PutUint32(out[4*i:], uint32(place/sector))
	}
	_, err := d.file.WriteAt(out, int64(binary.LittleEndian.Uint32(at[:]))*sector+4*first)
	return err
}

// allocated writes COWDisk_Header.freeSector.
func (k *cowd) allocated(d *delta) error {
	var free [4]byte
	binary.LittleEndian.PutUint32(free[:], uint32(d.next/sector))
	_, err := d.file.WriteAt(free[:], 28)
	return err
}

// seSparse is the format of VMFS 6. The vendor has not published it; what QEMU's block/vmdk.c (vmdk_open_se_sparse) reads is
// the reference: constant and volatile header, directory and tables of 64 bit entries, grains of 4 KiB counted from their area.
type seSparse struct {
	directory, tables, grains int64 // bytes
	made                      int64 // tables
	numbers                   map[int64]int64
}

func newSESparse(file *os.File, capacity int64) (*delta, error) {
	const grain = 8
	sectors := capacity / sector
	tables := ceil(sectors, grain*tableEntries)
	align := func(n int64) int64 { return ceil(n, 2048) * 2048 }
	directory, directorySize := int64(4096), ceil(tables*8, sector)
	tablesAt, tablesSize := align(directory+directorySize), tables*64
	bitmap, bitmapSize := align(tablesAt+tablesSize), ceil(ceil(sectors, grain), 8*sector)
	backmap, backmapSize := align(bitmap+bitmapSize), ceil(ceil(sectors, grain)*8, sector)
	grains := align(backmap + backmapSize)
	head := make([]byte, 2*sector)
	for i, v := range []int64{0xcafebabe, 0x0000000200000001, sectors, grain, 64, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2048, 2048,
		directory, directorySize, tablesAt, tablesSize, bitmap, bitmapSize, backmap, backmapSize, grains, ceil(sectors, grain) * grain} {
		binary.LittleEndian.PutUint64(head[8*i:], uint64(v))
	}
	binary.LittleEndian.PutUint64(head[sector:], 0xcafecafe)
	if _, err := file.WriteAt(head, 0); err != nil {
		return nil, err
	}
	k := &seSparse{directory: directory * sector, tables: tablesAt * sector, grains: grains * sector, numbers: map[int64]int64{}}
	d := &delta{file: file, capacity: capacity, grain: grain * sector, tables: map[int64][]int64{}, next: k.grains, kind: k}
	return d, file.Truncate(k.grains)
}

func (k *seSparse) table(d *delta, number int64) error {
	var entry [8]byte
	binary.LittleEndian.PutUint64(entry[:], 0x10000000<<32|uint64(k.made))
	if _, err := d.file.WriteAt(entry[:], k.directory+8*number); err != nil {
		return err
	}
	k.numbers[number] = k.made
	k.made++
	return nil
}

func (k *seSparse) entries(d *delta, number, first int64, places []int64) error {
	out := make([]byte, 8*len(places))
	for i, place := range places {
		value := uint64(2) << 60 // a grain of zeroes, over a parent too
		if place != zero {
			n := uint64(place-k.grains) / uint64(d.grain)
			value = 3<<60 | (n&0xfff)<<48 | n>>12
		}
		binary.LittleEndian.PutUint64(out[8*i:], value)
	}
	_, err := d.file.WriteAt(out, k.tables+k.numbers[number]*8*tableEntries+8*first)
	return err
}

func (k *seSparse) allocated(*delta) error { return nil }

// readRun fills p from one run of a store.
func readRun(s Store, p []byte, place int64) error {
	n, err := s.File().ReadAt(p, place)
	if errors.Is(err, io.EOF) { // the last grain of a capacity that is no multiple of one
		clear(p[n:])
		err = nil
	}
	return err
}
