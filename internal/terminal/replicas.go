package terminal

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"forebay/internal/fleet"
)

// Replicas shows the mirrors of a fleet: what they are to each other since their start.
func Replicas(table func(head ...string) *Table, all []fleet.Replica) error {
	t := table("MIRROR", "STATE", "ADDRESS", "ZONE", "VERSION", "SINCE", "LED", "FOLLOWED", "ALONE", "FROM OTHERS", "TO OTHERS", "ENGINE")
	for _, r := range all {
		if r.State != "here" {
			t.Row(r.Name, r.State+", seen "+Ago(r.Seen), r.Address, OrDash(r.Zone), r.Version, Ago(r.StartedAt), "-", "-", "-", "-", "-", "-")
			continue
		}
		engine := fmt.Sprintf("%.1f ms", r.EngineTook*1000)
		if !r.EngineAway.IsZero() {
			engine = "away, " + Ago(r.EngineAway)
		}
		t.Row(r.Name, r.State, r.Address, OrDash(r.Zone), r.Version, Ago(r.StartedAt), humanize.Comma(r.Led), humanize.Comma(r.Followed), humanize.Comma(r.Alone), Bytes(r.BytesIn), Bytes(r.BytesOut), engine)
	}
	return t.Flush()
}
