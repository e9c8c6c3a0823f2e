package operate

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

func newVerify(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read everything that is kept and compare it with its digest",
		Long: `Lets a running server read everything that it keeps and compare it with its digest, at
full speed. Blobs that are damaged are taken out, into the folder quarantine below the
storage folder as long as that is small. With --repair they are fetched again at once,
else when somebody pulls them.

The server does the same by itself in the background, slowly: see scrub.interval.

Exits with 1 if something was damaged and was not fetched again.`,
		Example: `  forebay verify
  forebay verify --repair`,
		Args: cobra.NoArgs,
	}
	repair := cmd.Flags().Bool("repair", false, "fetch again what is damaged")
	detach := cmd.Flags().Bool("detach", false, "do not wait: the server does it in the background")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		job, err := o.Start(ctx, "/verify", admin.VerifyRequest{Repair: *repair})
		if err != nil {
			return err
		}
		if *detach {
			return detached(o, job.ID)
		}
		var done admin.Verified
		answer, err := o.Wait(ctx, job.ID, &done)
		if err != nil {
			return err
		}
		if o.AsJSON {
			err = o.WriteAnswer(answer)
		} else {
			_, err = fmt.Fprintf(o.Stdout, "read %s, %s: %s damaged, %d fetched again\n",
				terminal.Count(done.Blobs, "file", "files"), terminal.Bytes(done.Bytes), terminal.Count(done.Faults, "is", "are"), done.Fetched)
		}
		if err != nil || done.Faults == done.Fetched {
			return err
		}
		for _, bad := range done.Damaged {
			if !bad.Fetched {
				fmt.Fprintf(o.Stderr, "%s: %s\n", bad.Digest, terminal.Printable(bad.Error))
			}
		}
		return fmt.Errorf("%s damaged and not fetched again", terminal.Count(done.Faults-done.Fetched, "file is", "files are"))
	})
}

func newCollect(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what nothing leads to",
		Long: `Removes what nothing leads to any more: files that no repository holds, records of the
index without a file, and fills that nobody went on with for a day. A mirror makes next
to none of it: this is for after a crash or a change by hand. Nothing that can be served
is removed; what is little used is evicted by itself.`,
		Example: `  forebay gc --dry-run
  forebay gc`,
		Args: cobra.NoArgs,
	}
	dryRun := cmd.Flags().Bool("dry-run", false, "only tell what would be removed")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		job, err := o.Start(ctx, "/gc", admin.CollectRequest{DryRun: *dryRun})
		if err != nil {
			return err
		}
		var done admin.Collected
		answer, err := o.Wait(ctx, job.ID, &done)
		if err != nil {
			return err
		}
		if o.AsJSON {
			return o.WriteAnswer(answer)
		}
		verb := "removed"
		if done.DryRun {
			verb = "would remove"
		}
		_, err = fmt.Fprintf(o.Stdout, "%s %s that nobody holds (%s), %s without a file, %s (%s)\n", verb,
			terminal.Count(done.Blobs, "file", "files"), terminal.Bytes(done.BlobBytes), terminal.Count(done.Rows, "record", "records"),
			terminal.Count(done.Partials, "old fill", "old fills"), terminal.Bytes(done.PartialBytes))
		return err
	})
}
