package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpproxy"

	"forebay/cache/event"
	"forebay/config"
	"forebay/config/parse"
	"forebay/internal/command"
	"forebay/internal/notify"
	"forebay/internal/trouble"
	"forebay/upstream/dial"
)

// newNotifier returns what tells the targets of the configuration; ours are our own listeners, nil for none.
func newNotifier(c *config.Config, ours *dial.Ours, log *zap.Logger) (*notify.Notifier, error) {
	o := notify.Options{Mirror: hostname(), Ours: ours, Environment: httpproxy.FromEnvironment(), UserAgent: "forebay/" + version, Log: log}
	kinds := event.Kinds()
	for i, t := range c.Notify {
		one := notify.Target{
			Name: t.Name, URL: t.URL.Reveal(), Secret: t.Secret.Reveal(), Images: t.Images, Template: t.Template, ContentType: t.ContentType, CAFile: t.CAFile,
		}
		one.Headers, _ = parse.HeaderPairs(t.Headers.Reveal()) // which was checked
		var err error
		for _, name := range t.Events {
			if one.Kinds = append(one.Kinds, event.Kind(name)); !slices.Contains(kinds, event.Kind(name)) {
				err = fmt.Errorf("events: there is no kind %q: `forebay notify --kinds` lists them", name)
			}
		}
		if err == nil {
			_, err = notify.New(notify.Options{Targets: []notify.Target{one}})
		}
		if err != nil {
			return nil, command.Usage(config.Faults{c.FaultAt(fmt.Sprintf("notify[%d]", i+1), err)})
		}
		o.Targets = append(o.Targets, one)
	}
	return notify.New(o)
}

// tellTrouble takes in that a trouble has begun, or ended.
func (m *mirror) tellTrouble(t trouble.Trouble, ended bool) {
	e := event.Event{At: time.Now(), Kind: event.TroubleBegan, Upstream: t.Upstream, Detail: t.What + ": " + cmp.Or(t.Cause, string(t.Severity))}
	if ended {
		e.Kind, e.Detail = event.TroubleEnded, fmt.Sprintf("%s: over after %s", t.What, time.Since(t.Since).Round(time.Second))
	}
	m.tellEvent(e)
}

func newNotify(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify NAME",
		Short: "Send a sample to a target of notifications",
		Long: `Sends one message about an image that does not exist to a target of notify in the
configuration, as the mirror would, and tells what it answered.`,
		Example: `  forebay notify chat
  forebay notify --kinds       # what targets can be told of`,
		Args: cobra.MaximumNArgs(1),
	}
	load := command.ConfigFlags(cmd, p)
	kinds := cmd.Flags().Bool("kinds", false, "list the kinds of events; those that a target is told of by default are marked")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *kinds {
			for _, k := range event.Kinds() {
				mark := ""
				if slices.Contains(notify.Urgent(), k) {
					mark = " *"
				}
				fmt.Fprintln(p.Stdout, string(k)+mark)
			}
			return nil
		}
		c, err := load("")
		if err != nil {
			return err
		}
		n, err := newNotifier(c, nil, zap.NewNop())
		if err != nil {
			return err
		}
		var names []string
		for _, t := range c.Notify {
			names = append(names, t.Name)
		}
		switch {
		case len(names) == 0:
			return command.Usage(errors.New("the configuration has no notify"))
		case len(args) == 0 || !slices.Contains(names, args[0]):
			return command.Usage(fmt.Errorf("name one of the targets: %s", strings.Join(names, ", ")))
		}
		if err := n.Try(cmd.Context(), args[0]); err != nil {
			return fmt.Errorf("notify %s: %w", args[0], err)
		}
		_, err = fmt.Fprintf(p.Stdout, "%s: took it\n", args[0])
		return err
	}
	return cmd
}
