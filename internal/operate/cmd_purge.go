package operate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

// purgeWait is how long a purge can be taken back on a terminal.
const purgeWait = 10 * time.Second

func newPurge(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "purge REF|REPOSITORY|DIGEST",
		Short: "Forget an image, a repository or a digest",
		Long: `Forgets something, so that the next pull fetches it anew:

  nginx:1.27      that tag, with what only it leads to
  nginx@sha256:…  that manifest, with what only it leads to
  nginx           the whole repository: all its tags and digests
  sha256:…        that blob or manifest, in every repository

What other images need stays. Clients that are reading are not disturbed. Remembered
"not found" answers of the repository are forgotten, too.

On a terminal it waits ten seconds, in which Ctrl-C takes it back; --now does not wait.`,
		Example: `  forebay purge nginx:1.27
  forebay purge ghcr.io/owner/app
  forebay purge sha256:…`,
		Args: cobra.ExactArgs(1),
	}
	force := cmd.Flags().Bool("force", false, "also what is pinned")
	now := cmd.Flags().Bool("now", false, "do not wait")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		if !*now && terminal.Is(o.Stderr) {
			ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			fmt.Fprintf(o.Stderr, "Purging %s in 10 s. Ctrl-C takes it back.\n", terminal.Printable(args[0]))
			select {
			case <-ctx.Done():
				return errors.New("taken back: nothing was purged")
			case <-time.After(purgeWait):
			}
		}
		var done admin.PurgeAnswer
		if told, err := o.Tell(ctx, http.MethodPost, "/purge", nil, admin.PurgeRequest{Target: args[0], Force: *force}, &done); told || err != nil {
			return err
		}
		_, err := fmt.Fprintf(o.Stdout, "purged %s %s: %s, %s freed in %s", done.What, done.Target,
			terminal.Count(int64(done.Tags), "tag", "tags"), terminal.Bytes(done.Bytes), terminal.Count(int64(done.Blobs), "file", "files"))
		if err == nil && done.Shared > 0 {
			_, err = fmt.Fprintf(o.Stdout, "; %s kept for other repositories", terminal.Count(int64(done.Shared), "file", "files"))
		}
		if err == nil {
			_, err = fmt.Fprintln(o.Stdout)
		}
		return err
	})
}
