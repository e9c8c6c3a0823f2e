package operate

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/imageset"
	"forebay/internal/terminal"
)

func newWanted(p adminclient.Program) *cobra.Command {
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
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		if *clearAll {
			return clearWanted(ctx, o)
		}
		var list imageset.WantedList
		if told, err := o.Tell(ctx, http.MethodGet, "/wanted", nil, nil, &list); told || err != nil {
			return err
		}
		if len(list.Wanted) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "Nothing is wanted that is not here.")
			return err
		}
		for _, w := range list.Wanted {
			if err := wantedLine(o, w); err != nil {
				return err
			}
		}
		return nil
	})
}

func wantedLine(o *adminclient.Client, w imageset.WantedImage) error {
	before := ""
	if w.Blob { // no image, so no line of a list of images
		before = "# blob: "
	}
	_, err := fmt.Fprintf(o.Stdout, "%s%s  # %s, last %s\n", before, terminal.Printable(w.Ref), terminal.Count(w.Count, "time", "times"), w.Last.UTC().Format(time.DateTime))
	return err
}

func clearWanted(ctx context.Context, o *adminclient.Client) error {
	var done admin.Cleared
	if told, err := o.Tell(ctx, http.MethodDelete, "/wanted", nil, struct{}{}, &done); told || err != nil {
		return err
	}
	_, err := fmt.Fprintf(o.Stdout, "forgot %s\n", terminal.Count(int64(done.Cleared), "entry", "entries"))
	return err
}
