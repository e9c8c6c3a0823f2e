package operate

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"forebay/cache"
	"forebay/internal/admin"
	"forebay/internal/terminal"
)

func newWanted(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wanted",
		Short: "List what was asked for in vain while offline",
		Long: `Lists what clients asked a server for that it does not have and may not fetch, since it
or the registry is offline. The list can be taken to a site with a line:

  forebay wanted > wanted.txt            # where there is none
  forebay prefetch -f wanted.txt         # where there is one

It is a plain list. --json has more: also single blobs of images that are not known.
What has come since is left out. It survives restarts, and holds 10,000 entries at most.`,
		Example: `  forebay wanted
  forebay wanted --json > wanted.json
  forebay wanted --clear`,
		Args: cobra.NoArgs,
	}
	clearAll := cmd.Flags().Bool("clear", false, "empty the list")
	return onServer(p, cmd, func(ctx context.Context, o *operator, _ []string) error {
		if *clearAll {
			return o.clearWanted(ctx)
		}
		var list admin.WantedList
		answer, err := o.ask(ctx, http.MethodGet, "/wanted", nil, nil, &list)
		if err != nil {
			return err
		}
		if o.asJSON {
			return o.writeAnswer(answer)
		}
		if len(list.Wanted) == 0 {
			_, err := fmt.Fprintln(o.p.Stderr, "Nothing is wanted that is not here.")
			return err
		}
		for _, w := range list.Wanted {
			if err := o.wantedLine(w); err != nil {
				return err
			}
		}
		return nil
	})
}

func (o *operator) wantedLine(w cache.Wanted) error {
	before := ""
	if w.Blob { // no image, so no line of a list of images
		before = "# blob: "
	}
	_, err := fmt.Fprintf(o.p.Stdout, "%s%s  # %s, last %s\n", before, terminal.Printable(w.Ref), terminal.Count(w.Count, "time", "times"), w.Last.UTC().Format(time.DateTime))
	return err
}

func (o *operator) clearWanted(ctx context.Context) error {
	var done admin.Cleared
	answer, err := o.ask(ctx, http.MethodDelete, "/wanted", nil, struct{}{}, &done)
	if err != nil {
		return err
	}
	if o.asJSON {
		return o.writeAnswer(answer)
	}
	_, err = fmt.Fprintf(o.p.Stdout, "forgot %s\n", terminal.Count(int64(done.Cleared), "entry", "entries"))
	return err
}
