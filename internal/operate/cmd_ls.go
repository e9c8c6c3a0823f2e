package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"forebay/cache/image"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
)

const patternHelp = `PATTERN is an image (nginx:1.27), a repository (ghcr.io/owner/app), or a pattern with
*, ? and [sets], such as "nginx:1.*" or "ghcr.io/*": * stands for any text, slashes too.`

func newList(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:   "ls [PATTERN]",
		Short: "List the images that are kept",
		Long: `Lists what a running server keeps: tags, and manifests that were pulled by digest
only. Asks no registry.

` + patternHelp + `

SIZE is what of the image is kept, USED is its last pull.`,
		Example: `  forebay ls
  forebay ls nginx
  forebay ls "ghcr.io/owner/*" --json`,
		Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		return list(ctx, o, strings.Join(args, ""), false, o.Table("REPOSITORY", "TAG", "DIGEST", "SIZE", "USED"),
			func(t *terminal.Table, i admin.Image) {
				tag := i.Tag
				if tag == "" {
					tag = "-"
				}
				if i.Pinned {
					tag += " (pinned)"
				}
				name := i.Upstream + "/" + i.Repository
				if t.Form == terminal.Names { // which other commands are given
					name = i.Name()
				}
				t.Row(name, tag, terminal.ShortDigest(i.Digest.Hash), terminal.Bytes(i.KeptBytes), terminal.Used(i.UsedAt))
			})
	})
}

func newImages(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "images [PATTERN]",
		Short: "Tell which images can be served without their registry",
		Long: `Tells for each image and platform whether all of it is kept, so that it can be served
when the registry cannot be reached, or how much is missing. Asks no registry.

  complete    all of it is here
  incomplete  it was pulled, and some of it is not here: clients leave out layers that they
              have, and what is little used is evicted; "forebay repair" fetches it
  absent      nobody has pulled this platform; told only of images that nobody has pulled
              any platform of

` + patternHelp,
		Example: `  forebay images
  forebay images --missing
  forebay images "nginx:*"`,
		Args: cobra.MaximumNArgs(1),
	}
	missing := cmd.Flags().Bool("missing", false, "only images that are incomplete")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		return list(ctx, o, strings.Join(args, ""), *missing, o.Table("IMAGE", "PLATFORM", "STATE", "SIZE", "MISSING"),
			func(t *terminal.Table, i admin.Image) {
				for _, platform := range i.Platforms {
					if platform.State == image.Absent && (*missing || len(i.Platforms) > 1) && platform.Platform != "" && i.State != image.Absent {
						continue // what nobody wants is no news
					}
					t.Row(imageName(i), terminal.OrDash(platform.Platform), string(platform.State), terminal.Bytes(platform.Size), missingText(platform))
				}
			})
	})
}

// imageName is the name of an image with a short digest.
func imageName(i admin.Image) string {
	if i.Tag != "" {
		return i.Name()
	}
	return i.Upstream + "/" + i.Repository + "@" + terminal.ShortDigest(i.Digest.Hash)
}

func missingText(p admin.ImagePlatform) string {
	switch {
	case p.State != image.Incomplete:
		return "-"
	case p.Size < 0:
		return terminal.Bytes(p.MissingBytes) + " or more"
	case p.MissingBytes == 0:
		return "only proof" // the bytes are here: one HEAD each
	}
	return terminal.Bytes(p.MissingBytes)
}

// list shows all pages of images, as a table or as one JSON array.
func list(ctx context.Context, o *adminclient.Client, pattern string, missing bool, t *terminal.Table, show func(*terminal.Table, admin.Image)) error {
	query := url.Values{"limit": {"500"}}
	if pattern != "" {
		query.Set("pattern", pattern)
	}
	if missing {
		query.Set("missing", "true")
	}
	n := 0
	for {
		var page struct {
			Images []json.RawMessage `json:"images"`
			Next   string            `json:"next"`
		}
		if _, err := o.Ask(ctx, http.MethodGet, "/images", query, nil, &page); err != nil {
			return err
		}
		for _, raw := range page.Images {
			if n++; o.AsJSON {
				if err := element(o, n, raw); err != nil {
					return err
				}
				continue
			}
			var i admin.Image
			if err := json.Unmarshal(raw, &i); err != nil {
				return fmt.Errorf("%s gives no answer of the admin API: %w", o.Address(), err)
			}
			show(t, i)
		}
		if page.Next == "" {
			break
		}
		query.Set("after", page.Next)
	}
	switch {
	case o.AsJSON && n == 0:
		_, err := fmt.Fprintln(o.Stdout, "[]")
		return err
	case o.AsJSON:
		_, err := fmt.Fprintln(o.Stdout, "\n]")
		return err
	case n == 0:
		_, err := fmt.Fprintln(o.Stderr, nothingText(pattern, missing))
		return err
	}
	return t.Flush()
}

// element writes the nth element of an array.
func element(o *adminclient.Client, n int, raw json.RawMessage) error {
	before := ",\n  "
	if n == 1 {
		before = "[\n  "
	}
	_, err := fmt.Fprintf(o.Stdout, "%s%s", before, raw)
	return err
}

func nothingText(pattern string, missing bool) string {
	switch {
	case missing && pattern == "":
		return "Nothing is missing of what is kept."
	case missing:
		return "Nothing is missing of what matches " + pattern + "."
	case pattern != "":
		return "Nothing that is kept matches " + pattern + "."
	}
	return "Nothing is kept yet."
}
