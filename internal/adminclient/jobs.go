package adminclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"forebay/internal/admin"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

// PollEvery is how often a job is asked how far it is.
const PollEvery = 250 * time.Millisecond

// Start begins a job.
func (c *Client) Start(ctx context.Context, path string, body any) (admin.Job, error) {
	var job admin.Job
	_, err := c.Ask(ctx, http.MethodPost, path, nil, body, &job)
	return job, err
}

// Wait shows how far a job is until it has ended, and decodes its result. An interrupt
// ends the waiting, not the job.
func (c *Client) Wait(ctx context.Context, id string, result any) (answer []byte, err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	show := terminal.Is(c.Stderr) && !c.AsJSON
	meter := terminal.NewJobMeter()
	tick := time.NewTicker(PollEvery)
	defer tick.Stop()
	for {
		var job admin.Job
		answer, err := c.Ask(ctx, http.MethodGet, "/jobs/"+id, nil, nil, &job)
		if errors.Is(err, context.Canceled) {
			hint := "The job goes on. See it with forebay jobs, end it with forebay jobs --cancel " + id + "."
			if c.Storage != nil { // there is no server that could
				hint = "What it has done is kept."
			}
			return nil, command.Hint(errors.New("interrupted"), hint)
		}
		if err != nil {
			return nil, err
		}
		if show {
			fmt.Fprint(c.Stderr, "\r\x1b[K"+meter.Line(job))
		}
		switch job.State {
		case admin.Running:
		case admin.Done:
			if show {
				fmt.Fprint(c.Stderr, "\r\x1b[K")
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
