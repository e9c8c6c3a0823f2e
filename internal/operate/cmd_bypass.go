package operate

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

func newBypass(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bypass",
		Short: "Tell who seems not to pull through the mirror",
		Long: `Lists signs that somebody goes past the mirror: pulls of a registry's limit that were not
spent here, clients that get manifests here and layers elsewhere, clients that came on several
days and do not any more, and those of the file client_names.file, and nodes of the Kubernetes cluster that it runs in, if it
may list them, that never came. None is proof.
LINE is what is probably missing there; forebay client-config prints all of it, and forebay
doctor looks for the cause on the machine itself.`,
		Example: `  forebay bypass
  forebay bypass -o json`,
		Args: cobra.NoArgs,
	}
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		var list admin.AroundList
		if told, err := o.Tell(ctx, http.MethodGet, "/around", nil, nil, &list); told || err != nil {
			return err
		}
		if len(list.Around) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "Nothing shows that anybody goes past the mirror.")
			return err
		}
		t := o.Table("WHO", "SINCE", "WHAT", "LINE")
		for _, a := range list.Around {
			t.Row(terminal.Printable(whoIs(a.Client, a.Name)), terminal.OrDash(terminal.Ago(a.Since)), terminal.Printable(a.What), a.Line)
		}
		return t.Flush()
	})
}

// whoIs is a client for people.
func whoIs(address, name string) string {
	if address == "" {
		return cmp.Or(name, "unknown")
	}
	if name != "" {
		return address + " (" + name + ")"
	}
	return address
}
