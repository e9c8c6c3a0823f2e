package upkeep

import (
	"strings"
	"testing"
	"time"
)

func TestScrubLagIsMeasuredAgainstItsPlan(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const interval = 10 * time.Hour
	half := "sha256:8" + strings.Repeat("0", 63)
	// A round is planned to take 8 of 10 hours, so that it is at its half after 4.
	rows := map[string]struct {
		state          *scrubState
		behind, oldest time.Duration
	}{
		"off":                        {nil, 0, 0},
		"first round, in time":       {&scrubState{Began: now.Add(-3 * time.Hour), After: half}, 0, 3 * time.Hour},
		"first round, late":          {&scrubState{Began: now.Add(-6 * time.Hour), After: half}, 2 * time.Hour, 6 * time.Hour},
		"later round, late":          {&scrubState{Began: now.Add(-6 * time.Hour), Ended: now.Add(-8 * time.Hour), After: half}, 2 * time.Hour, interval + 2*time.Hour},
		"later round, in time":       {&scrubState{Began: now.Add(-3 * time.Hour), Ended: now.Add(-5 * time.Hour), After: half}, 0, interval},
		"between rounds":             {&scrubState{Began: now.Add(-9 * time.Hour), Ended: now.Add(-time.Hour), Next: now.Add(time.Hour)}, 0, 9 * time.Hour},
		"next round should have run": {&scrubState{Began: now.Add(-12 * time.Hour), Ended: now.Add(-4 * time.Hour), Next: now.Add(-2 * time.Hour)}, 2 * time.Hour, 12 * time.Hour},
		"nothing to read yet":        {&scrubState{Next: now.Add(time.Hour)}, 0, 0},
	}
	for name, row := range rows {
		k := &Keeper{opts: Options{ScrubInterval: interval}}
		k.scrubbed.Store(row.state)
		behind, oldest := k.scrubLag(now)
		if behind != row.behind || oldest != row.oldest {
			t.Errorf("%s: scrubLag = %s, %s; want %s, %s", name, behind, oldest, row.behind, row.oldest)
		}
	}
	off := &Keeper{}
	off.scrubbed.Store(&scrubState{Began: now.Add(-time.Hour)})
	if behind, oldest := off.scrubLag(now); behind != 0 || oldest != 0 {
		t.Errorf("scrub that is off: scrubLag = %s, %s; want none", behind, oldest)
	}
}
