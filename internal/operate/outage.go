package operate

import (
	"context"
	"fmt"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

// outage has the server ask no registry for a while, and tells what came of it; or tells of the last one.
func outage(ctx context.Context, o *adminclient.Client, minutes int, last bool) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var d admin.Drill
	if !last {
		if _, err = o.Ask(ctx, http.MethodPost, "/drill", nil, map[string]int{"minutes": minutes}, &d); err != nil {
			return err
		}
		fmt.Fprintf(o.Stderr, "No registry is asked until %s. Ctrl-C ends it.\n", terminal.Moment(d.Until))
		select {
		case <-time.After(time.Until(d.Until)):
		case <-ctx.Done():
		}
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	method := map[bool]string{true: http.MethodGet, false: http.MethodDelete}[last] // which changes nothing of one that has ended
	answer, err := o.Ask(ask, method, "/drill", nil, nil, &d)
	if err != nil {
		return command.Hint(err, "It ends by itself at "+terminal.Moment(d.Until)+".")
	}
	if o.AsJSON {
		err = o.WriteAnswer(answer)
	} else {
		err = tellOutage(o, &d)
	}
	if err == nil && d.Failed > 0 {
		err = command.Exit(command.ExitPartial, fmt.Errorf("%s failed", terminal.Count(d.Failed, "request", "requests")))
	}
	return err
}

func tellOutage(o *adminclient.Client, d *admin.Drill) error {
	if d.From.IsZero() {
		_, err := fmt.Fprintln(o.Stdout, "No outage was rehearsed since the start.")
		return err
	}
	if len(d.Failures) > 0 {
		t := o.Table("CLIENT", "IMAGE", "TIMES", "WHY")
		for _, f := range d.Failures {
			t.Row(terminal.Printable(whoIs(f.Client, f.Name)), terminal.Printable(f.Upstream+"/"+f.Repository+" "+f.Reference), fmt.Sprint(f.Times), terminal.Printable(f.Fault))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(o.Stdout, "From %s to %s, %s served and %d failed.\n", terminal.Moment(d.From), terminal.Moment(d.Until), terminal.Count(d.Served, "request was", "requests were"), d.Failed)
	return err
}
