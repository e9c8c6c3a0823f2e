package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

// pollEvery is how often a job is asked how far it is.
const pollEvery = 250 * time.Millisecond

// start begins a job.
func (o *operator) start(ctx context.Context, path string, body any) (admin.Job, error) {
	var job admin.Job
	_, err := o.ask(ctx, http.MethodPost, path, nil, body, &job)
	return job, err
}

// wait shows how far a job is until it has ended, and decodes its result. An interrupt
// ends the waiting, not the job.
func (o *operator) wait(ctx context.Context, id string, result any) (answer []byte, err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	show := terminal.Is(o.p.Stderr) && !o.asJSON
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		var job admin.Job
		answer, err := o.ask(ctx, http.MethodGet, "/jobs/"+id, nil, nil, &job)
		if errors.Is(err, context.Canceled) {
			return nil, command.Hint(errors.New("interrupted"), "The job goes on. See it with forebay jobs, end it with forebay jobs --cancel "+id+".")
		}
		if err != nil {
			return nil, err
		}
		if show {
			fmt.Fprint(o.p.Stderr, "\r\x1b[K"+terminal.Job(job))
		}
		switch job.State {
		case admin.Running:
		case admin.Done:
			if show {
				fmt.Fprint(o.p.Stderr, "\r\x1b[K")
			}
			return answer, json.Unmarshal(job.Result, result)
		case admin.Cancelled:
			return nil, fmt.Errorf("job %s was cancelled", id)
		default:
			return nil, errors.New(terminal.Printable(job.Error))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func newJobs(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "Show or cancel what a server does for operators in the background",
		Long:  `Shows the repairs, verifications and collections that run, and the last that ended.`,
		Example: `  forebay jobs
  forebay jobs --cancel 3`,
		Args: cobra.NoArgs,
	}
	cancel := cmd.Flags().String("cancel", "", "end the job with this ID")
	return onServer(p, cmd, func(ctx context.Context, o *operator, _ []string) error {
		if *cancel != "" {
			if strings.Trim(*cancel, "0123456789") != "" {
				return command.Usage(fmt.Errorf("--cancel: %q is not the ID of a job", *cancel))
			}
			_, err := o.ask(ctx, http.MethodDelete, "/jobs/"+*cancel, nil, nil, nil)
			return err
		}
		var list admin.JobList
		answer, err := o.ask(ctx, http.MethodGet, "/jobs", nil, nil, &list)
		if err != nil {
			return err
		}
		if o.asJSON {
			return o.writeAnswer(answer)
		}
		if len(list.Jobs) == 0 {
			_, err := fmt.Fprintln(o.p.Stderr, "No job has run since the start of the server.")
			return err
		}
		t := terminal.NewTable(o.p.Stdout, "ID", "KIND", "TARGET", "STATE", "STARTED", "PROGRESS")
		for _, j := range list.Jobs {
			_, progress, _ := strings.Cut(terminal.Job(j), " ")
			if j.Error != "" {
				progress = j.Error
			}
			t.Row(j.ID, j.Kind, terminal.OrDash(j.Target), string(j.State), terminal.Ago(j.Started), progress)
		}
		return t.Flush()
	})
}
