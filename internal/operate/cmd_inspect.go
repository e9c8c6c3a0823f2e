package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"forebay/cache/image"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

const refHelp = `REF is an image as clients write it: nginx, nginx:1.27, ghcr.io/owner/app@sha256:…
Without a tag it is latest.`

func newInspect(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:   "inspect REF",
		Short: "Show what is kept of an image, part by part",
		Long: `Shows the platforms of an image with their manifest, configuration and layers, and
whether each is kept. Asks no registry.

` + refHelp,
		Example: `  forebay inspect nginx:1.27
  forebay inspect ghcr.io/owner/app@sha256:… --json`,
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		var i admin.Image
		if told, err := o.Tell(ctx, http.MethodGet, "/image", url.Values{"ref": args}, nil, &i); told || err != nil {
			return err
		}
		return showImage(o, i)
	})
}

func showImage(o *adminclient.Client, i admin.Image) error {
	t := o.Table()
	t.Row("Image:", i.Name())
	t.Row("Digest:", i.Digest.String())
	t.Row("Type:", terminal.OrDash(i.MediaType))
	t.Row("State:", string(i.State))
	t.Row("Kept:", terminal.Bytes(i.KeptBytes))
	if i.State == image.Incomplete {
		missing := terminal.Bytes(i.MissingBytes)
		if i.MissingMore {
			missing += " or more"
		}
		t.Row("Missing:", missing)
	}
	if i.Pinned {
		t.Row("Pinned:", "yes")
	}
	for _, s := range i.Signatures {
		t.Row("Signature:", s.State+" by rule "+s.Rule+": "+s.Why)
	}
	if i.Tag != "" {
		t.Row("Checked:", terminal.Ago(i.CheckedAt))
		t.Row("Changed:", terminal.Ago(i.ChangedAt))
	}
	t.Row("Used:", terminal.Used(i.UsedAt))
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range i.Platforms {
		size := ""
		if p.Size >= 0 {
			size = ", " + terminal.Bytes(p.Size)
		}
		if _, err := fmt.Fprintf(o.Stdout, "\n%s: %s%s\n", terminal.Printable(terminal.OrDash(p.Platform)), p.State, size); err != nil {
			return err
		}
		parts := o.Table()
		for _, part := range p.Parts {
			parts.Row("  "+part.Role, part.Digest.String(), terminal.Bytes(part.Size), string(part.State))
		}
		if len(p.Parts) == 0 {
			parts.Row("  manifest", p.Digest.String())
		}
		if err := parts.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func newTag(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Look into tags",
		Long:  `Tells what a tag pointed to over time, as far as this mirror has seen it.`,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(adminclient.OnServer(p, &cobra.Command{
		Use:   "history REF",
		Short: "Show what a tag pointed to",
		Long: `Shows the digests that a tag pointed to, the latest first, when each was first and last
seen there, and whether its manifest is still kept.

` + refHelp,
		Example: `  forebay tag history nginx:1.27`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		var h admin.History
		if told, err := o.Tell(ctx, http.MethodGet, "/history", url.Values{"ref": args}, nil, &h); told || err != nil {
			return err
		}
		t := o.Table("DIGEST", "FIRST SEEN", "LAST SEEN", "KEPT")
		for _, b := range h.Bindings {
			kept := "no"
			if b.Kept {
				kept = "yes"
			}
			t.Row(b.Digest.String(), terminal.Ago(b.FirstSeen), terminal.Ago(b.LastSeen), kept)
		}
		return t.Flush()
	}))
	return cmd
}
