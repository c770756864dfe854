// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

const (
	grainSize   = 64 << 10
	grainsOfGT  = 512
	streamFlags = 0x30001 // valid newline test, compressed grains, markers
)

// streamer writes a disk as a streamOptimized VMDK: what an NFC export sends. Reference: VMware "Virtual Disk Format 5.0", section
// "Stream-Optimized Compressed Sparse Extents": header with the grain directory at the end, embedded descriptor, grain markers with
// zlib data, a marker and a table after the grains of each table, directory, footer, end of stream. Grains of zeroes are left out.
type streamer struct {
	out      io.Writer
	at       int64 // bytes written
	capacity int64
	sent     int64 // bytes of grains
}

func (s *streamer) write(p []byte) error {
	n, err := s.out.Write(p)
	s.at += int64(n)
	return err
}

func (s *streamer) pad() error {
	if rest := s.at % sector; rest != 0 {
		return s.write(make([]byte, sector-rest))
	}
	return nil
}

func (s *streamer) header(directory uint64) []byte {
	h := make([]byte, sector)
	copy(h, "KDMV")
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(h[at:], v) }
	put64 := func(at int, v uint64) { binary.LittleEndian.PutUint64(h[at:], v) }
	put32(4, 3)
	put32(8, streamFlags)
	put64(12, uint64(s.capacity/sector))
	put64(20, grainSize/sector)
	put64(28, 1)  // descriptor
	put64(36, 20) // its sectors
	put32(44, grainsOfGT)
	put64(56, directory)
	put64(64, 128) // overhead
	copy(h[73:], "\n \r\n")
	binary.LittleEndian.PutUint16(h[77:], 1)
	return h
}

func (s *streamer) marker(kind uint32, sectors int64) error {
	m := make([]byte, sector)
	binary.LittleEndian.PutUint64(m, uint64(sectors))
	binary.LittleEndian.PutUint32(m[12:], kind)
	return s.write(m)
}

// begin writes the header and the descriptor.
func (s *streamer) begin(name string, like *VDisk) error {
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY %d SPARSE "%s"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%s"
ddb.virtualHWVersion = "19"
`, like.layers[0].cid, s.capacity/sector, strings.ReplaceAll(name, `"`, ""), max(s.capacity/sector/(255*63), 1), contentID(like.root))
	head := make([]byte, 128*sector)
	copy(head, s.header(0xffffffffffffffff))
	copy(head[sector:], text)
	return s.write(head)
}

// send writes the grains of a layer; step is called after each grain, and an error of it ends the stream.
func (s *streamer) send(layer *Layer, step func() error) error {
	used := NewBitmap()
	for l := layer; l != nil; l = l.parent {
		if l.store == nil {
			continue
		}
		areas, err := l.store.Extents()
		if err != nil {
			return err
		}
		for _, a := range areas {
			used.Mark(a.Start, a.Length)
		}
	}
	tables := make([]uint32, ceil(ceil(s.capacity, grainSize), grainsOfGT))
	table, current, any := make([]uint32, grainsOfGT), int64(-1), false
	buffer, data := make([]byte, grainSize), bytes.Buffer{}
	packer, err := zlib.NewWriterLevel(&data, zlib.BestSpeed)
	if err != nil {
		return err
	}
	finish := func() error {
		if !any {
			return nil
		}
		if err := s.marker(1, grainsOfGT*4/sector); err != nil {
			return err
		}
		tables[current], any = uint32(s.at/sector), false
		return s.write(words(table))
	}
	for _, a := range used.Areas(s.capacity) {
		for off := a.Start; off < a.Start+a.Length; off += grainSize {
			clear(buffer)
			if err := layer.ReadAt(buffer[:min(grainSize, s.capacity-off)], off); err != nil {
				return err
			}
			if isZero(buffer) {
				continue
			}
			if number := off / grainSize / grainsOfGT; number != current {
				if err := finish(); err != nil {
					return err
				}
				clear(table)
				current = number
			}
			data.Reset()
			packer.Reset(&data)
			if _, err := packer.Write(buffer); err != nil {
				return err
			}
			if err := packer.Close(); err != nil {
				return err
			}
			table[off/grainSize%grainsOfGT], any = uint32(s.at/sector), true
			head := binary.LittleEndian.AppendUint64(nil, uint64(off/sector))
			head = binary.LittleEndian.AppendUint32(head, uint32(data.Len()))
			if err := s.write(append(head, data.Bytes()...)); err != nil {
				return err
			}
			if err := s.pad(); err != nil {
				return err
			}
			s.sent += grainSize
			if err := step(); err != nil {
				return err
			}
		}
	}
	if err = finish(); err != nil {
		return err
	}
	return s.end(tables)
}

func words(values []uint32) []byte {
	out := make([]byte, 0, 4*len(values))
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

// end writes the directory, the footer and the end of the stream.
func (s *streamer) end(tables []uint32) error {
	directory := words(tables)
	if err := s.marker(2, ceil(int64(len(directory)), sector)); err != nil {
		return err
	}
	at := uint64(s.at / sector)
	if err := s.write(directory); err != nil {
		return err
	}
	if err := s.pad(); err != nil {
		return err
	}
	if err := s.marker(3, 1); err != nil {
		return err
	}
	if err := s.write(s.header(at)); err != nil {
		return err
	}
	return s.write(make([]byte, sector))
}
