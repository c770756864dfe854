// Copyright (c) 2026, ferry.vmware contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import "slices"

// trackBlock is the resolution of changed block tracking. Reference: the areas that QueryChangedDiskAreas answers with are
// multiples of 64 KiB in the field (VDDK Programming Guide, "Changed Block Tracking on Virtual Disks").
const trackBlock = 64 << 10

const pageBlocks = 4096

// Bitmap is a set of blocks of trackBlock bytes, in pages that exist only where something is set.
type Bitmap struct {
	pages map[int64]*[pageBlocks / 64]uint64
}

func NewBitmap() *Bitmap { return &Bitmap{pages: map[int64]*[pageBlocks / 64]uint64{}} }

// Mark sets every block that the n bytes from off on touch.
func (b *Bitmap) Mark(off, n int64) {
	if n <= 0 {
		return
	}
	for i := off / trackBlock; i <= (off+n-1)/trackBlock; i++ {
		page := b.pages[i/pageBlocks]
		if page == nil {
			page = new([pageBlocks / 64]uint64)
			b.pages[i/pageBlocks] = page
		}
		page[i%pageBlocks/64] |= 1 << (i % 64)
	}
}

func (b *Bitmap) Or(other *Bitmap) {
	for n, page := range other.pages {
		own := b.pages[n]
		if own == nil {
			own = new([pageBlocks / 64]uint64)
			b.pages[n] = own
		}
		for i := range page {
			own[i] |= page[i]
		}
	}
}

func (b *Bitmap) Clone() *Bitmap {
	c := NewBitmap()
	c.Or(b)
	return c
}

// Area is a range of a disk, in bytes.
type Area struct {
	Start, Length int64
}

// Areas are the blocks that are set, neighbours joined, in ascending order, none past the capacity.
func (b *Bitmap) Areas(capacity int64) (areas []Area) {
	numbers := make([]int64, 0, len(b.pages))
	for n := range b.pages {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		page := b.pages[n]
		for i := range int64(pageBlocks) {
			if page[i/64]&(1<<(i%64)) == 0 {
				continue
			}
			start := (n*pageBlocks + i) * trackBlock
			length := min(trackBlock, capacity-start)
			if length <= 0 {
				continue
			}
			if last := len(areas) - 1; last >= 0 && areas[last].Start+areas[last].Length == start {
				areas[last].Length += length
			} else {
				areas = append(areas, Area{start, length})
			}
		}
	}
	return areas
}
