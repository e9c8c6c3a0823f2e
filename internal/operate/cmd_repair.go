package operate

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"forebay/cache/image"
	"forebay/internal/admin"
	"forebay/internal/terminal"
)

const platformHelp = "platform, such as linux/arm64; may be repeated; all for every platform"

func newRepair(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repair REF",
		Short: "Fetch what is missing of an image",
		Long: `Fetches what is missing of an image, so that it can be served without its registry.
Without --platform that is done for the platforms that somebody pulled or that are
pinned. Waits until it is done; an interrupt ends the waiting only.

` + refHelp,
		Example: `  forebay repair nginx:1.27
  forebay repair nginx:1.27 --platform linux/amd64 --platform linux/arm64
  forebay repair nginx:1.27 --detach`,
		Args: cobra.ExactArgs(1),
	}
	platforms := cmd.Flags().StringArray("platform", nil, platformHelp)
	detach := cmd.Flags().Bool("detach", false, "do not wait: the server does it in the background")
	return onServer(p, cmd, func(ctx context.Context, o *operator, args []string) error {
		job, err := o.start(ctx, "/repair", admin.RepairRequest{Ref: args[0], Platforms: *platforms})
		if err != nil {
			return err
		}
		if *detach {
			return o.detached(job.ID)
		}
		return o.awaitRepair(ctx, job.ID)
	})
}

func (o *operator) detached(id string) error {
	_, err := fmt.Fprintf(o.p.Stdout, "job %s runs in the background: see it with forebay jobs\n", id)
	return err
}

// awaitRepair waits for a repair and tells how it went.
func (o *operator) awaitRepair(ctx context.Context, id string) error {
	var done admin.Repaired
	answer, err := o.wait(ctx, id, &done)
	if err != nil {
		return err
	}
	if o.asJSON {
		err = o.writeAnswer(answer)
	} else {
		_, err = fmt.Fprintf(o.p.Stdout, "fetched %s, %s; the image is %s\n", terminal.Count(done.Fetched, "thing", "things"), terminal.Bytes(done.Bytes), done.State)
	}
	if err != nil || len(done.Failed) == 0 {
		if err == nil && done.State == image.Absent {
			fmt.Fprintln(o.p.Stderr, "Nobody has pulled a platform of it yet: name those to fetch with --platform.")
		}
		return err
	}
	for _, f := range done.Failed {
		fmt.Fprintf(o.p.Stderr, "%s: %s\n", f.Digest, terminal.Printable(f.Error))
	}
	return fmt.Errorf("%s could not be fetched", terminal.Count(int64(len(done.Failed)), "thing", "things"))
}
