package terminal

import (
	"testing"

	"forebay/internal/admin"
)

func TestProgressIsReadable(t *testing.T) {
	for want, j := range map[string]admin.Job{
		"verify [##########..........]  50 %  1.0 KiB of 2.0 KiB": {Kind: "verify", State: admin.Running, Progress: admin.Progress{Bytes: 1024, BytesTotal: 2048}},
		"gc [####################] 100 %  0 B":                    {Kind: "gc", State: admin.Running, Progress: admin.Progress{Items: 7, ItemsTotal: 5}},
		"repair 0 B, 2 failed":                                    {Kind: "repair", Progress: admin.Progress{Faults: 2}},
		"gc 7 B":                                                  {Kind: "gc", State: admin.Done, Progress: admin.Progress{Bytes: 7, BytesTotal: 9}},
	} {
		if got := Job(j); got != want {
			t.Errorf("Job = %q, want %q", got, want)
		}
	}
	if got := Printable("a\x1b[31m\nb"); got != "a�[31m\nb" {
		t.Errorf("Printable = %q", got)
	}
}
