package carry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpproxy"

	"forebay/cache/event"
	"forebay/config"
	"forebay/config/parse"
	"forebay/internal/command"
	"forebay/internal/notify"
)

// Targets returns the targets of notifications of a configuration; o has the rest. Errors are those of a configuration.
func Targets(c *config.Config, o notify.Options) (notify.Targets, error) {
	o.Environment = httpproxy.FromEnvironment()
	kinds := event.Kinds()
	var all notify.Targets
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
		var ready notify.Targets
		if o.Targets = []notify.Target{one}; err == nil {
			ready, err = notify.NewTargets(o)
		}
		if err != nil {
			return nil, command.Usage(config.Faults{c.FaultAt(fmt.Sprintf("notify[%d]", i+1), err)})
		}
		all = append(all, ready...)
	}
	return all, nil
}

// NewNotify returns forebay notify.
func NewNotify(p command.Process, o notify.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify NAME",
		Short: "Send a sample to a target of notifications",
		Long: `Sends one message about an image that does not exist to a target of notify in the
configuration, as the mirror would, and tells what it answered.`,
		Example: `  forebay notify chat
  forebay notify --kinds       # what targets can be told of`,
		Args: cobra.MaximumNArgs(1),
	}
	load := command.ConfigFlags(cmd, p, command.NoSettings)
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
		targets, err := Targets(c, o)
		if err != nil {
			return err
		}
		var names []string
		for _, t := range targets {
			names = append(names, t.Name)
		}
		switch {
		case len(names) == 0:
			return command.Usage(errors.New("the configuration has no notify"))
		case len(args) == 0 || !slices.Contains(names, args[0]):
			return command.Usage(fmt.Errorf("name one of the targets: %s", strings.Join(names, ", ")))
		}
		if err := targets[slices.Index(names, args[0])].Try(cmd.Context(), o.Mirror); err != nil {
			return fmt.Errorf("notify %s: %w", args[0], err)
		}
		_, err = fmt.Fprintf(p.Stdout, "%s: took it\n", args[0])
		return err
	}
	return cmd
}
