package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

func newStats(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:     "stats",
		Short:   "Show figures of what is kept",
		Long:    `Shows how much a running server keeps, and how much room it has.`,
		Example: `  forebay stats --json`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		var s admin.Stats
		if told, err := o.Tell(ctx, http.MethodGet, "/stats", nil, nil, &s); told || err != nil {
			return err
		}
		t := o.Table()
		statRows(t, s)
		return t.Flush()
	})
}

func statRows(t *terminal.Table, s admin.Stats) {
	t.Row("Kept:", terminal.Count(s.Blobs, "file", "files")+", "+terminal.Bytes(s.BlobBytes))
	t.Row("Known:", terminal.Count(s.Tags, "tag", "tags")+" in "+terminal.Count(s.Repositories, "repository", "repositories"))
	t.Row("Folder:", terminal.Bytes(s.UsedBytes)+" of "+limitText(s.MaxBytes))
	t.Row("Disk:", humanize.IBytes(s.DiskFree)+" free of "+humanize.IBytes(s.DiskTotal))
	t.Row("Pinned:", terminal.Bytes(s.PinnedBytes)+" of "+limitText(s.PinLimitBytes))
	t.Row("Evicted:", terminal.Count(s.EvictedBlobs, "file", "files")+", "+terminal.Bytes(s.EvictedBytes)+" since the start")
	t.Row("Tags moved:", humanize.Comma(s.TagsMoved)+" since the start, and "+humanize.Comma(s.ReleasesMoved)+" of full versions")
	t.Row("Damaged:", humanize.Comma(s.Scrub.Damaged)+" since the start; in quarantine "+
		terminal.Count(s.QuarantineFiles, "file", "files")+", "+terminal.Bytes(s.QuarantineBytes))
	t.Row("Scrub:", scrubText(s.Scrub))
	bucketRows(t, s)
}

// bucketRows tell of the bucket, if there is one.
func bucketRows(t *terminal.Table, s admin.Stats) {
	b := s.Bucket
	if b == nil {
		return
	}
	of := ""
	if b.MaxBytes > 0 {
		of = " of " + humanize.IBytes(uint64(b.MaxBytes))
	}
	t.Row("Bucket:", terminal.Count(b.Objects, "object", "objects")+", "+terminal.Bytes(b.ObjectBytes)+of)
	more := ""
	if b.More {
		more = " or more"
	}
	t.Row("Uploads:", fmt.Sprintf("%s%s queued, %s; %s done since the start, %s failures; %s evicted before",
		terminal.Count(int64(b.Queued), "blob", "blobs"), more, terminal.Bytes(b.QueuedBytes), humanize.Comma(b.Uploaded), humanize.Comma(b.Failures), humanize.Comma(s.EvictedUnsaved)))
	if !b.RefsBehind.IsZero() && time.Since(b.RefsBehind) > 2*time.Minute {
		t.Row("Bucket:", "has no links, tags and pins of after "+terminal.Ago(b.RefsBehind))
	}
	if b.RefsDamaged > 0 {
		t.Row("Bucket:", terminal.Count(b.RefsDamaged, "segment", "segments")+" of links and tags with damaged lines")
	}
	if b.LastError != "" && !b.Degraded {
		t.Row("Bucket:", "last failed "+terminal.Ago(b.LastErrorAt)+": "+b.LastError)
	}
}

func scrubText(s admin.Scrub) string {
	switch {
	case !s.Enabled:
		return "off"
	case s.Began.IsZero():
		return "begins soon"
	case s.Done == 1:
		return "all was read, the last " + terminal.Ago(s.Ended)
	}
	return fmt.Sprintf("%.0f %% of a round that began %s", s.Done*100, terminal.Ago(s.Began))
}

func newStatus(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show at a glance how a running server does",
		Long: `Shows what is wrong first, and what to do about it: then how the registries do, what they
will still give, what is being fetched, and how much is kept.`,
		Example: `  forebay status
  forebay status --watch`,
		Args: cobra.NoArgs,
	}
	watch := cmd.Flags().Bool("watch", false, "show it again every two seconds")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		if !*watch {
			return status(ctx, o)
		}
		// A terminal shows what fits it, the troubles first; a file gets all of it each time.
		screen, to := terminal.NewScreen(o.Stdout), o.Stdout
		onScreen := terminal.Is(to) && !o.AsJSON
		if onScreen {
			o.Stdout = screen
		}
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			if err := status(ctx, o); err != nil {
				return err
			}
			if onScreen {
				if err := screen.Show(); err != nil {
					return err
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// status shows the mirror once.
func status(ctx context.Context, o *adminclient.Client) error {
	var s admin.Status
	if told, err := o.Tell(ctx, http.MethodGet, "/status", nil, nil, &s); told || err != nil {
		return err
	}
	if _, err := fmt.Fprintf(o.Stdout, "forebay %s on %s at %s, up %s\n\n", terminal.Printable(s.Version), terminal.Printable(s.Name), o.Address(),
		(time.Duration(s.UptimeSeconds) * time.Second).String()); err != nil {
		return err
	}
	if err := showTroubles(o, s.Troubles); err != nil {
		return err
	}
	if err := showReplicas(ctx, o); err != nil {
		return err
	}
	t := o.Table("UPSTREAM", "STATE", "LAST ASKED", "429 SINCE THE START")
	for _, u := range s.Upstreams {
		state := u.State
		if u.Sparing {
			state += ", spared"
		}
		var limits []string
		for _, kind := range slices.Sorted(maps.Keys(u.Limited)) {
			limits = append(limits, kind+" "+humanize.Comma(u.Limited[kind]))
		}
		t.Row(u.Name, state, terminal.Ago(u.LastAsked), terminal.OrDash(strings.Join(limits, ", ")))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := errors.Join(terminal.Budgets(o.Stdout, o.Table, s.Upstreams), showFills(o, s)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(o.Stdout); err != nil {
		return err
	}
	t = o.Table()
	usageRows(t, s.Usage)
	statRows(t, s.Stats)
	return t.Flush()
}

// showReplicas shows the mirrors of the fleet, if there is one.
func showReplicas(ctx context.Context, o *adminclient.Client) error {
	var all admin.ReplicaList
	if _, err := o.Ask(ctx, http.MethodGet, "/replicas", nil, nil, &all); err != nil || len(all.Replicas) == 0 {
		if adminclient.IsCode(err, "no_route") {
			err = nil // a server of before
		}
		return err
	}
	if err := terminal.Replicas(o.Table, all.Replicas); err != nil {
		return err
	}
	_, err := fmt.Fprintln(o.Stdout)
	return err
}

// usageRows tells what the mirror did for its clients.
func usageRows(t *terminal.Table, u admin.Usage) {
	answered := u.Answered()
	t.Row("Requests:", humanize.Comma(answered)+" since the start, "+percentText(u.HitRatio)+" answered without fetching; "+
		terminal.Count(u.Error, "error", "errors"))
	t.Row("Traffic:", terminal.Bytes(u.ClientBytes)+" to clients, "+terminal.Bytes(u.UpstreamBytes)+" from registries")
	saved := terminal.Count(u.SavedPulls, "pull", "pulls") + " of " + humanize.Comma(u.Pulls) + ", " + terminal.Bytes(u.SavedBytes) +
		" (" + percentText(u.ByteRatio) + ")"
	if u.Price > 0 {
		saved += fmt.Sprintf(", %.2f %s", u.Saved, terminal.Printable(u.Currency))
	}
	t.Row("Saved:", saved)
}

// percentText is a share for people; one that is not known is negative.
func percentText(share float64) string {
	if share < 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", share*100)
}

// showFills lists what is being fetched and what jobs do.
func showFills(o *adminclient.Client, s admin.Status) error {
	if len(s.Fills)+len(s.Jobs) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(o.Stdout); err != nil {
		return err
	}
	t := o.Table("IN PROGRESS", "WHAT", "DONE", "CLIENTS")
	for _, f := range s.Fills {
		kind := "fill"
		if f.Verifying {
			kind = "check"
		}
		t.Row(kind, f.Upstream+"/"+f.Repository+"@"+terminal.ShortDigest(f.Digest.Hash), terminal.Bytes(f.Bytes)+" of "+terminal.Bytes(f.Size), strconv.Itoa(f.Clients))
	}
	for _, j := range s.Jobs {
		_, progress, _ := strings.Cut(terminal.Job(j), " ")
		t.Row("job "+j.ID, j.Kind+" "+j.Target, progress, "-")
	}
	return t.Flush()
}
