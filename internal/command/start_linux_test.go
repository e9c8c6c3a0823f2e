package command

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"
)

// TestForgetStart asks the kernel how much of the program is mapped, before and after.
func TestForgetStart(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ranges := unchanged(string(smaps), program)
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pagemap.Close() }() // only read
	page := uintptr(os.Getpagesize())
	mapped := func() (pages int) {
		t.Helper()
		for _, r := range ranges {
			b := make([]byte, (r[1]-r[0])/page*8)
			if _, err := pagemap.ReadAt(b, int64(r[0]/page*8)); err != nil {
				t.Fatal(err)
			}
			for one := range slices.Chunk(b, 8) {
				pages += int(binary.NativeEndian.Uint64(one) >> 63) // the bit "present"
			}
		}
		return pages
	}
	before := mapped()
	ForgetStart()
	if after := mapped(); before == 0 || after > before*3/4 {
		t.Errorf("%d pages of the program are mapped, %d before, want less than three quarters", after, before)
	}
}

// TestWhatIsForgotten: not what a probe has changed, not what is written, not another file.
func TestWhatIsForgotten(t *testing.T) {
	const smaps = `00400000-00402000 r-xp 00000000 fe:00 77                       /opt/two words/forebay
Rss:                   4 kB
Anonymous:             0 kB
VmFlags:
00402000-00403000 r-xp 00002000 fe:00 77                       /opt/two words/forebay
Anonymous:             4 kB
00403000-00405000 r--p 00003000 fe:00 77                       /opt/two words/forebay
Anonymous:             0 kB
00405000-00406000 rw-p 00005000 fe:00 77                       /opt/two words/forebay
Anonymous:             0 kB
00500000-00501000 r-xp 00000000 fe:00 78                       /opt/two words/forebay.old
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
`
	got, want := unchanged(smaps, "/opt/two words/forebay"), [][2]uintptr{{0x400000, 0x402000}, {0x403000, 0x405000}}
	if !slices.Equal(got, want) {
		t.Errorf("forgotten %x, want %x", got, want)
	}
}
