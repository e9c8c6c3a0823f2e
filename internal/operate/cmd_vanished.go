package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

func newVanished(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vanished",
		Short: "List what registries do not have any more",
		Long: `Lists images and whole repositories that their registries say are gone, since when, and
who asked for them last. What is kept of them is served, and pinned, up to a tenth of the
store; when one is back its pin is taken away again.

A registry is believed when it has said so for ten minutes and answers otherwise. One that
refuses a repository ("denied") may only have found our credentials wanting: what was read
without any is served all the same, what was read by credentials is kept and not served.

"forebay copy" takes them to a registry of one's own; --forget lets one go.`,
		Example: `  forebay vanished
  forebay vanished --json
  forebay vanished --forget docker.io/library/nginx:1.27.3`,
		Args: cobra.NoArgs,
	}
	forget := cmd.Flags().String("forget", "", "take one off the list, and its pins away")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		if *forget != "" {
			if _, err := o.Ask(ctx, http.MethodDelete, "/vanished", url.Values{"ref": {*forget}}, nil, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintf(o.Stdout, "forgot %s\n", terminal.Printable(*forget))
			return err
		}
		var list admin.VanishedList
		if told, err := o.Tell(ctx, http.MethodGet, "/vanished", nil, nil, &list); told || err != nil {
			return err
		}
		if len(list.Vanished) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "Nothing is gone that was here.")
			return err
		}
		table := o.Table("IMAGE", "GONE SINCE", "HELD", "ASKED", "BY")
		for _, v := range list.Vanished {
			held := terminal.Bytes(v.Bytes) + " pinned"
			switch {
			case v.NotPinned != "":
				held += " (" + v.NotPinned + ")"
			case !v.Served:
				held += ", not served"
			}
			by := strings.Join(v.Clients, ", ")
			if !v.Last.IsZero() {
				by += ", last " + v.Last.UTC().Format(time.DateTime)
			}
			table.Row(v.Ref, v.Since.UTC().Format(time.DateTime), held, fmt.Sprint(v.Asked), by)
		}
		return table.Flush()
	})
}
