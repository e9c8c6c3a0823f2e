package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

func newJobs(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "Show or cancel what a server does for operators in the background",
		Long:  `Shows the repairs, verifications and collections that run, and the last that ended.`,
		Example: `  forebay jobs
  forebay jobs --cancel 3`,
		Args: cobra.NoArgs,
	}
	cancel := cmd.Flags().String("cancel", "", "end the job with this ID")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		if *cancel != "" {
			if strings.Trim(*cancel, "0123456789") != "" {
				return command.Usage(fmt.Errorf("--cancel: %q is not the ID of a job", *cancel))
			}
			_, err := o.Ask(ctx, http.MethodDelete, "/jobs/"+*cancel, nil, nil, nil)
			return err
		}
		var list admin.JobList
		if told, err := o.Tell(ctx, http.MethodGet, "/jobs", nil, nil, &list); told || err != nil {
			return err
		}
		if len(list.Jobs) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "No job has run since the start of the server.")
			return err
		}
		t := o.Table("ID", "KIND", "TARGET", "STATE", "STARTED", "PROGRESS")
		for _, j := range list.Jobs {
			_, progress, _ := strings.Cut(terminal.Job(j), " ")
			if j.Error != "" {
				progress = j.Error
			}
			t.Row(j.ID, j.Kind, terminal.OrDash(j.Target), howEnded(j), terminal.Ago(j.Started), progress)
		}
		return t.Flush()
	})
}

// howEnded is how a job ended: one that has done all it was to do is done, though some of that may have failed.
func howEnded(j admin.Job) string {
	var result struct {
		Outcome string
		Failed  []json.RawMessage
	}
	if j.State != admin.Done || json.Unmarshal(j.Result, &result) != nil {
		return string(j.State)
	}
	if len(result.Failed) > 0 {
		result.Outcome = "partial"
	}
	return cmp.Or(result.Outcome, string(j.State))
}
