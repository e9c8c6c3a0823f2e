package upkeep

import (
	"testing"
	"testing/synctest"

	"forebay/internal/pull"
	"forebay/test/cachetest"
)

func TestRefreshAsksNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		a := r.Image(t, hub.Name, "1", "a")
		read(t, c, hub, "1")
		got, err := c.Refresh(t.Context(), hub, "1")
		if err != nil || got.Moved || got.Digest.Hash != a.Digest || !got.Kept {
			t.Errorf("Refresh of what did not move = %+v, %v", got, err)
		}
		b := r.Image(t, hub.Name, "1", "b")
		got, err = c.Refresh(t.Context(), hub, "1")
		if err != nil || !got.Moved || got.Digest.Hash != b.Digest || got.Before != a.Digest.String() || !got.Kept {
			t.Errorf("Refresh of what moved = %+v, %v", got, err)
		}
		history, err := c.History(hub, "1")
		if err != nil || len(history) != 2 || history[0].Digest.Hash != b.Digest || history[1].Digest.Hash != a.Digest || !history[1].Kept {
			t.Errorf("History = %+v, %v", history, err)
		}
		if _, err := c.Refresh(t.Context(), hub, "none"); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Refresh of nothing = %v, want not found", err)
		}
		r.Fail(&pull.Error{Kind: pull.Unavailable})
		if _, err := c.Refresh(t.Context(), hub, "1"); pull.KindOf(err) != pull.Unavailable {
			t.Errorf("Refresh while the upstream is down = %v", err)
		}
		read(t, c, hub, "1", b.Blobs[:0]...)
	})
}
