package carry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/govern"
	"forebay/internal/terminal"
)

// NewSnapshot makes and reads snapshots.
func NewSnapshot(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Name what tags answer with at a time",
		Long: `A snapshot is what tags answered with at one time, under a name. It is kept whole, as far
as it fits, and clients pull by it: /v2/@NAME/… in place of /v2/…, or by a listener or a
host name of its own (as_of in the configuration).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSnapshotCreate(p), newSnapshotList(p), newSnapshotShow(p), newSnapshotDiff(p), newSnapshotPromote(p), newSnapshotExport(p), newSnapshotDrop(p))
	return cmd
}

func newSnapshotCreate(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME [PATTERN…]",
		Short: "Make a snapshot",
		Long: `Makes a snapshot of the tags that match, or of all that are known: of what they answer
with now, or, with --as-of, of what they pointed to at a time.`,
		Example: `  forebay snapshot create prod-2026-11
  forebay snapshot create base-1 'docker.io/library/*' ghcr.io/owner/app --as-of 2026-11-01`,
		Args: cobra.MinimumNArgs(1),
	}
	why := reasonFlag(cmd)
	at := cmd.Flags().String("as-of", "", "of what tags pointed to at that time")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		in := govern.SnapshotRequest{Name: args[0], Patterns: args[1:], Reason: *why}
		var err error
		if in.AsOf, err = instantFlag("as-of", *at); err != nil {
			return err
		}
		var out govern.Snapshot
		if told, err := o.Tell(ctx, http.MethodPost, "/snapshots", nil, in, &out); told || err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.Stdout, "%s: %s\n", out.Name, terminal.Count(int64(out.Count), "image", "images"))
		return err
	})
}

func newSnapshotList(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use: "list", Short: "List snapshots", Long: `Lists the snapshots by name.`, Example: `  forebay snapshot list`, Args: cobra.NoArgs,
	}, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		var d govern.Decisions
		if told, err := o.Tell(ctx, http.MethodGet, "/policy", nil, nil, &d); told || err != nil {
			return err
		}
		if len(d.Snapshots) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "There are no snapshots.")
			return err
		}
		t := o.Table("NAME", "MADE", "IMAGES", "OF", "BY", "REASON")
		for _, s := range d.Snapshots {
			t.Row(s.Name, terminal.Ago(s.Made), fmt.Sprint(s.Count), strings.Join(s.Patterns, " "), s.By, s.Reason)
		}
		return t.Flush()
	})
}

func newSnapshotShow(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use: "show NAME", Short: "Show the images of a snapshot", Long: `Lists the images of a snapshot with their digests, and since when each tag had its.`,
		Example: `  forebay snapshot show prod-2026-11`, Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		var s govern.Snapshot
		if told, err := o.Tell(ctx, http.MethodGet, "/snapshots/"+args[0], nil, nil, &s); told || err != nil {
			return err
		}
		t := o.Table("TAG", "DIGEST", "SINCE")
		for _, i := range s.Images {
			t.Row(i.Ref, i.Digest, terminal.Ago(i.Since))
		}
		return t.Flush()
	})
}

func newSnapshotDiff(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use: "diff A B", Short: "Tell how snapshot B differs from A",
		Long:    `Lists the tags by which two snapshots differ, how many layers are others, and since when.`,
		Example: `  forebay snapshot diff prod-2026-10 prod-2026-11`, Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		var d govern.SnapshotDiff
		if told, err := o.Tell(ctx, http.MethodGet, "/snapshots/"+args[0]+"/diff", map[string][]string{"with": {args[1]}}, nil, &d); told || err != nil {
			return err
		}
		if len(d.Changes) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "They are the same.")
			return err
		}
		t := o.Table("TAG", args[0], args[1], "SINCE", "LAYERS")
		for _, c := range d.Changes {
			t.Row(c.Ref, short(c.From), short(c.To), terminal.Ago(c.Since), fmt.Sprintf("+%d -%d", len(c.AddedLayers), len(c.RemovedLayers)))
		}
		return t.Flush()
	})
}

func newSnapshotPromote(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "promote NAME --reason TEXT", Short: "Let all its tags answer with what a snapshot says",
		Long:    `Does what "forebay tag promote" does, for every tag of a snapshot.`,
		Example: `  forebay snapshot promote prod-2026-10 --reason "back to what worked"`, Args: cobra.ExactArgs(1),
	}
	why := reasonFlag(cmd)
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		if strings.TrimSpace(*why) == "" {
			return command.Usage(errors.New("say why, with --reason: it is kept, and goes into the log"))
		}
		var out govern.SnapshotPromoted
		if told, err := o.Tell(ctx, http.MethodPost, "/snapshots/"+args[0]+"/promote", nil, govern.SnapshotPromotion{Reason: *why}, &out); told || err != nil {
			return err
		}
		_, err := fmt.Fprintf(o.Stdout, "promoted %s\n", terminal.Count(int64(out.Promoted), "tag", "tags"))
		return err
	})
}

func newSnapshotExport(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export NAME -o FILE", Short: "Write the images of a snapshot to a bundle",
		Long: `Writes the images of a snapshot to a bundle, as "forebay export" does. On the other side the
tags point to what the snapshot says.`,
		Example: `  forebay snapshot export prod-2026-11 -o prod.tar --sign ~/.ssh/id_ed25519`, Args: cobra.ExactArgs(1),
	}
	x := exporting{format: formatOCI}
	flags := cmd.Flags()
	flags.StringVarP(&x.output, "output", "o", "", "file to write, - for standard output")
	flags.StringSliceVar(&x.platforms, "platform", nil, "platform, such as linux/arm64; may be repeated; all for every platform")
	flags.BoolVar(&x.referrers, "referrers", false, "signatures, SBOMs and attestations that are kept, too")
	flags.BoolVar(&x.zstd, "zstd", false, "compress the archive; layers mostly are already")
	flags.StringVar(&x.sign, "sign", "", "file with an ed25519 key of OpenSSH or in PEM to sign with")
	flags.StringVar(&x.passphraseFile, "passphrase-file", "", "file with the passphrase of that key")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		var s govern.Snapshot
		if _, err := o.Ask(ctx, http.MethodGet, "/snapshots/"+args[0], nil, nil, &s); err != nil {
			return err
		}
		var refs []string
		for _, i := range s.Images {
			refs = append(refs, i.Ref)
		}
		x.asOf = args[0]
		if err := x.check(refs); err != nil {
			return command.Usage(err)
		}
		return export(ctx, o, x, refs)
	})
}

func newSnapshotDrop(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use: "drop NAME", Short: "Forget a snapshot",
		Long:    `Forgets a snapshot. What it kept stays until it is evicted like everything else.`,
		Example: `  forebay snapshot drop prod-2026-10`, Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		_, err := o.Ask(ctx, http.MethodDelete, "/snapshots/"+args[0], nil, nil, nil)
		return err
	})
}
