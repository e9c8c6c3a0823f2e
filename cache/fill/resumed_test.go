package fill

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"forebay/test/cachetest"
)

// Who comes to pieces that an earlier fill left gets an answer, for which the upstream sends what is missing of
// the piece that is wanted: of one that is there nothing, or a byte that proves that the repository holds it.
func TestPiecesOfAnEarlierFillAreGoneOnWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, d := cachetest.BlobOf(32<<20, 7)
		size := int64(len(data))
		dir := t.TempDir()
		s := &cachetest.Script{Data: data, Pace: time.Millisecond}
		for _, round := range []struct {
			what       string
			from, upto int64
			proven     bool
			sent       int64
		}{
			{"first", size - 1000, size, false, 1000},
			{"there", size - 1000, size - 500, false, 1},
			{"there, and proven", size - 1000, size, true, 0},
			{"elsewhere", 20 << 20, 20<<20 + 10, true, 10},
			{"half there", size - 1100, size - 900, false, 100},
		} {
			before := s.Sent
			r := startRig(t, s, d, rigOptions{dir: dir, piece: [2]int64{round.from, round.upto}, owner: func(k keeper, f *Fill) Owner {
				f.sources[0].proven = round.proven
				return k
			}})
			r.ready()
			if got, err := r.read(round.from, round.upto); err != nil || !bytes.Equal(got, data[round.from:round.upto]) {
				t.Errorf("%s: %d bytes, %v", round.what, len(got), err)
			}
			r.fill.LetGo()
			<-r.done // it lingers, and ends
			if sent := s.Sent - before; sent != round.sent {
				t.Errorf("%s: the upstream sent %d bytes, want %d", round.what, sent, round.sent)
			}
			r.close()
		}
	})
}
