package adminclient

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
)

// completeWithin bounds what somebody waits for who presses the Tab key.
const completeWithin = 2 * time.Second

// Completer finds what an argument may be: something that the server knows.
type Completer func(ctx context.Context, c *Client, begun string) []string

// Complete has the shell complete the arguments of cmd by what the server knows. A server that does
// not answer is no reason to disturb who is typing.
func Complete(p Program, cmd *cobra.Command, find Completer) *cobra.Command {
	cmd.ValidArgsFunction = completion(p, find)
	return cmd
}

// CompleteFlag is Complete for a flag of cmd.
func CompleteFlag(p Program, cmd *cobra.Command, flag string, find Completer) {
	_ = cmd.RegisterFlagCompletionFunc(flag, completion(p, find)) // it fails only for a flag that is not there
}

func completion(p Program, find Completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
		defer cancel()
		f := &Flags{cmd: cmd}
		for name, to := range map[string]*string{"server": &f.server, "token-file": &f.tokenFile, "ca-file": &f.caFile, "cert-file": &f.certFile, "key-file": &f.keyFile, "config": &f.config, "context": &f.context} {
			if flag := cmd.Flags().Lookup(name); flag != nil {
				*to = flag.Value.String()
			}
		}
		c, err := f.Find(p)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		return find(ctx, c, begun), cobra.ShellCompDirectiveNoFileComp
	}
}

// Images completes the names of images that are kept.
func Images(ctx context.Context, c *Client, begun string) (names []string) {
	var page admin.ImagePage
	query := url.Values{"limit": {"100"}}
	if begun != "" {
		query.Set("pattern", begun+"*")
	}
	if _, err := c.Ask(ctx, http.MethodGet, "/images", query, nil, &page); err != nil {
		return nil
	}
	for _, i := range page.Images {
		names = append(names, i.Name())
	}
	return names
}

// Pins completes the names of what is pinned.
func Pins(ctx context.Context, c *Client, _ string) (names []string) {
	var list admin.PinList
	if _, err := c.Ask(ctx, http.MethodGet, "/pins", nil, nil, &list); err != nil {
		return nil
	}
	for _, pin := range list.Pins {
		names = append(names, pin.Ref)
	}
	return names
}

// Sets completes the names of prefetch sets.
func Sets(ctx context.Context, c *Client, _ string) (names []string) {
	var list admin.PrefetchSets
	if _, err := c.Ask(ctx, http.MethodGet, "/prefetch", nil, nil, &list); err != nil {
		return nil
	}
	for _, set := range list.Sets {
		names = append(names, set.Name)
	}
	return names
}

// Jobs completes the IDs of jobs that run.
func Jobs(ctx context.Context, c *Client, _ string) (ids []string) {
	var list admin.JobList
	if _, err := c.Ask(ctx, http.MethodGet, "/jobs", nil, nil, &list); err != nil {
		return nil
	}
	for _, j := range list.Jobs {
		if j.State == admin.Running {
			ids = append(ids, j.ID+"\t"+j.Kind+" "+j.Target)
		}
	}
	return ids
}
