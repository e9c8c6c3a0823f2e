package operate

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

func newRefresh(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:   "refresh REF",
		Short: "Ask the registry what a tag points to, now",
		Long: `Asks the registry what a tag points to, however short ago that was asked, and whatever
it said. That is one HEAD, which no registry counts as a pull; if the tag moved, its new
manifest is fetched, too.

` + refHelp,
		Example: `  forebay refresh nginx:1.27`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		var r admin.RefreshAnswer
		if told, err := o.Tell(ctx, http.MethodPost, "/refresh", nil, admin.RefRequest{Ref: args[0]}, &r); told || err != nil {
			return err
		}
		var err error
		switch {
		case r.Before == "":
			_, err = fmt.Fprintf(o.Stdout, "%s is %s\n", r.Ref, r.Digest)
		case r.Moved:
			_, err = fmt.Fprintf(o.Stdout, "%s moved\n  from %s\n  to   %s\n", r.Ref, terminal.Printable(r.Before), r.Digest)
		default:
			_, err = fmt.Fprintf(o.Stdout, "%s has not moved: %s\n", r.Ref, r.Digest)
		}
		return err
	})
}
