package disk

import (
	"encoding/json"
	"testing"
)

func FuzzDecodeState(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"size":9,"have":[[0,3],[5,9]]}`, `{"have":[[0]]}`, `{"have":[[9223372036854775807,-1]]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decodeState(b)
		if err != nil || !st.valid(1000) {
			return
		}
		var end int64
		for _, r := range st.Have {
			if r[0] < end || r[1] <= r[0] || r[1] > 1000 {
				t.Errorf("decodeState(%q) accepts range %v after %d", b, r, end)
			}
			end = r[1]
		}
		if _, err := json.Marshal(st); err != nil {
			t.Errorf("state of %q cannot be saved again: %v", b, err)
		}
	})
}
