package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

func newPin(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin REF",
		Short: "Keep an image whole, whatever happens",
		Long: `Keeps an image from being evicted, whole: its index, manifests, configurations, layers,
and the signatures and other referrers that are known. A pinned tag is followed: what it
points to is kept.

With --platform those platforms are kept, and what is missing of them is fetched. Without,
whatever platform somebody pulls is kept, and nothing is fetched but manifests.

Pins that would not fit into storage.max_size are refused. Patterns of images to pin can
be set in the configuration, too (pins).

` + refHelp,
		Example: `  forebay pin nginx:1.27 --platform linux/amd64
  forebay pin ghcr.io/owner/app@sha256:… --platform all --detach`,
		Args: cobra.ExactArgs(1),
	}
	platforms := cmd.Flags().StringArray("platform", nil, platformHelp)
	detach := cmd.Flags().Bool("detach", false, "do not wait for what is fetched")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		var pin admin.PinAnswer
		in := admin.PinRequest{Ref: args[0], Platforms: *platforms, Fill: len(*platforms) > 0}
		answer, err := o.Ask(ctx, http.MethodPost, "/pins", nil, in, &pin)
		if err != nil {
			return err
		}
		if o.AsJSON {
			err = o.WriteAnswer(answer)
		} else {
			_, err = fmt.Fprintf(o.Stdout, "pinned %s (%s): %s, %s missing\n", pin.Ref, platformText(pin.Platforms), terminal.Bytes(pin.Bytes), terminal.Bytes(pin.MissingBytes))
		}
		switch {
		case err != nil || pin.Job == "" || o.AsJSON:
			return err
		case *detach:
			return detached(o, pin.Job)
		}
		return awaitRepair(ctx, o, pin.Job)
	})
}

func platformText(platforms []string) string {
	if len(platforms) == 0 {
		return "platforms that are pulled"
	}
	return strings.Join(platforms, ", ")
}

func newUnpin(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:   "unpin REF",
		Short: "Take a pin away",
		Long: `Takes a pin away. What it kept stays until it is evicted like everything else. REF is
the image as "forebay pins" shows it, or in a shorter form.`,
		Example: `  forebay unpin nginx:1.27`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		_, err := o.Ask(ctx, http.MethodDelete, "/pins", url.Values{"ref": args}, nil, nil)
		return err
	})
}

func newPins(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:   "pins",
		Short: "List what is pinned",
		Long: `Lists the pins, those of the configuration included, with what each takes. A pin that
is "not held" does not fit beside those before it, and may be evicted.`,
		Example: `  forebay pins`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		var list admin.PinList
		if told, err := o.Tell(ctx, http.MethodGet, "/pins", nil, nil, &list); told || err != nil {
			return err
		}
		if len(list.Pins) == 0 {
			_, err := fmt.Fprintln(o.Stderr, "Nothing is pinned.")
			return err
		}
		t := o.Table("IMAGE", "PLATFORMS", "STATE", "SIZE", "MISSING", "SINCE")
		for _, pin := range list.Pins {
			t.Row(pin.Ref, platformText(pin.Platforms), pinState(pin), terminal.Bytes(pin.Bytes), terminal.Bytes(pin.MissingBytes), pinSince(pin))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(o.Stdout, "\n%s pinned, %s may be\n", terminal.Bytes(list.Bytes), limitText(list.LimitBytes))
		return err
	})
}

func pinState(p admin.Pin) string {
	if !p.Held {
		return "not held"
	}
	return string(p.State)
}

func pinSince(p admin.Pin) string {
	if p.Pattern != "" {
		return "configuration: " + p.Pattern
	}
	return terminal.Ago(p.At)
}

func limitText(n int64) string {
	if n == 0 {
		return "any amount"
	}
	return terminal.Bytes(n)
}
