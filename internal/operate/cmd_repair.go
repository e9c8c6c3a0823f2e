package operate

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"forebay/cache/image"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

const platformHelp = "platform, such as linux/arm64; may be repeated; all for every platform"

func newRepair(p adminclient.Program) *cobra.Command {
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
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		job, err := o.Start(ctx, "/repair", admin.RepairRequest{Ref: args[0], Platforms: *platforms})
		if err != nil {
			return err
		}
		if *detach {
			return detached(o, job.ID)
		}
		return awaitRepair(ctx, o, job.ID)
	})
}

func detached(o *adminclient.Client, id string) error {
	_, err := fmt.Fprintf(o.Stdout, "job %s runs in the background: see it with forebay jobs\n", id)
	return err
}

// awaitRepair waits for a repair and tells how it went.
func awaitRepair(ctx context.Context, o *adminclient.Client, id string) error {
	var done admin.Repaired
	answer, err := o.Wait(ctx, id, &done)
	if err != nil {
		return err
	}
	if o.AsJSON {
		err = o.WriteAnswer(answer)
	} else {
		_, err = fmt.Fprintf(o.Stdout, "fetched %s, %s; the image is %s\n", terminal.Count(done.Fetched, "blob", "blobs"), terminal.Bytes(done.Bytes), done.State)
	}
	if err != nil || len(done.Failed) == 0 {
		if err == nil && done.State == image.Absent {
			fmt.Fprintln(o.Stderr, "Nobody has pulled a platform of it yet: name those to fetch with --platform.")
		}
		return err
	}
	var texts []string
	for _, f := range done.Failed {
		texts = append(texts, f.Digest.String()+": "+f.Error)
	}
	for _, text := range alike(texts) {
		fmt.Fprintln(o.Stderr, text)
	}
	return fmt.Errorf("%s could not be fetched", terminal.Count(int64(len(done.Failed)), "blob", "blobs"))
}
