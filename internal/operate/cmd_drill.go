package operate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"forebay/cache/image"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/imageset"
	"forebay/internal/manifest"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// rehearsal is what would come of the registries' going away now.
type rehearsal struct {
	Images  int         `json:"images"`
	Whole   int         `json:"whole"` // could be served
	Lines   []rehearsed `json:"platforms"`
	Gone    []goneImage `json:"gone,omitempty"` // at their registries, of those that are not whole
	lacking []imageset.Entry
}

// rehearsed is one platform of an image.
type rehearsed struct {
	Ref          string `json:"ref"`
	Platform     string `json:"platform"`
	State        string `json:"state"` // complete, incomplete, absent
	MissingBytes int64  `json:"missing_bytes"`
}

type goneImage struct {
	Ref   string `json:"ref"`
	Error string `json:"error"`
}

func newDrill(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drill [REF...] [-f FILE]",
		Short: "Tell what could be served if the registries went away now",
		Long: `Rehearses an outage: of the images that were used within a week, or of those that are
named, which could be served whole, for which platforms, and what is missing. Asks no
registry, but with --ask: then it says which of those that are not whole are gone there,
by HEAD, which costs no pull.

--minutes has a server ask no registry for so long, and then tells what failed for whom.
Ctrl-C ends that early. It ends by itself, also when this command or the server dies.

--complete fetches the rest and pins it. It keeps off the reserve of each registry's
budget, and off what pins may take.

` + fileHelp,
		Example: `  forebay drill
  kubectl get pods -A -o yaml | forebay drill -f -
  forebay drill -f compose.yaml --platform linux/arm64 --complete
  forebay drill --minutes 5`,
	}
	flags := cmd.Flags()
	list := addImageList(cmd)
	within := flags.String("within", "7d", "without images that are named: those that were used within this time")
	platforms := flags.StringArray("platform", nil, "platform of images that name none (default: those that were pulled); may be repeated")
	ask := flags.Bool("ask", false, "ask registries whether they still have what is not whole")
	complete := flags.Bool("complete", false, "fetch what is missing, and pin it")
	minutes := flags.Int("minutes", 0, "have no registry asked for so many minutes, and tell what failed for whom")
	last := flags.Bool("last", false, "tell what failed in the outage that is rehearsed, or in the last one")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		if cmd.Flags().Changed("minutes") || *last {
			return outage(ctx, o, *minutes, *last)
		}
		age, err := parseAge(*within)
		if err == nil {
			err = manifest.CheckPlatforms(*platforms)
		}
		if err != nil {
			return command.Usage(err)
		}
		names, err := o.Names(ctx)
		if err != nil {
			return err
		}
		var entries []imageset.Entry
		if named := len(args) > 0 || len(*list.files) > 0; named {
			wanted := *platforms
			if len(wanted) == 0 {
				wanted = []string{wire.MachinePlatform()}
			}
			if entries, err = list.read(o.Program, args, names, wanted); err == nil {
				err = isEmpty(entries, true)
			}
		} else {
			entries, err = used(ctx, o, age, names)
		}
		if err != nil {
			return err
		}
		found, err := rehearse(ctx, o, entries, *platforms)
		if err != nil {
			return err
		}
		if lacking := found.lacking; len(lacking) > 0 && (*complete || *ask) {
			report, err := fetchLacking(ctx, o, lacking, *platforms, !*complete)
			if err != nil {
				return err
			}
			if *complete {
				if found, err = rehearse(ctx, o, entries, *platforms); err != nil {
					return err
				}
			}
			for _, one := range report.Images {
				if one.Error != "" {
					found.Gone = append(found.Gone, goneImage{one.Ref, one.Error})
				}
			}
		}
		return found.tell(o)
	})
}

// rehearse asks the server about each image.
func rehearse(ctx context.Context, o *adminclient.Client, entries []imageset.Entry, platforms []string) (*rehearsal, error) {
	r := &rehearsal{Images: len(entries), Lines: []rehearsed{}}
	for _, e := range entries {
		wanted := e.Platforms
		if len(wanted) == 0 {
			wanted = platforms
		}
		var one admin.Image
		_, err := o.Ask(ctx, http.MethodGet, "/image", url.Values{"ref": {e.Ref.String()}}, nil, &one)
		if err != nil && !adminclient.IsCode(err, "not_kept") {
			return nil, err
		}
		lines := linesOf(e.Ref.String(), one, wanted)
		whole := len(lines) > 0
		for _, l := range lines {
			whole = whole && l.State == string(image.Complete)
		}
		if whole {
			r.Whole++
		} else {
			r.lacking = append(r.lacking, e)
		}
		r.Lines = append(r.Lines, lines...)
	}
	return r, nil
}

// linesOf are the wanted platforms of an image, or those that somebody pulled.
func linesOf(ref string, one admin.Image, wanted []string) (lines []rehearsed) {
	for _, p := range one.Platforms {
		pulled := len(wanted) == 0 && p.State != image.Absent
		if pulled || slices.Contains(wanted, p.Platform) || p.Platform == "" || slices.Contains(wanted, manifest.AllPlatforms) {
			lines = append(lines, rehearsed{ref, p.Platform, string(p.State), max(p.MissingBytes, 0)})
		}
	}
	for _, name := range wanted {
		if name != manifest.AllPlatforms && !slices.ContainsFunc(lines, func(l rehearsed) bool { return l.Platform == name || l.Platform == "" }) {
			lines = append(lines, rehearsed{ref, name, string(image.Absent), 0})
		}
	}
	if len(lines) == 0 {
		lines = append(lines, rehearsed{ref, "", string(image.Absent), 0})
	}
	return lines
}

// fetchLacking has the server fetch and pin, or only ask for, what is not whole.
func fetchLacking(ctx context.Context, o *adminclient.Client, lacking []imageset.Entry, platforms []string, askOnly bool) (*admin.PrefetchReport, error) {
	if len(platforms) == 0 {
		platforms = []string{wire.MachinePlatform()}
	}
	job, err := o.Start(ctx, "/prefetch", admin.PrefetchRequest{Images: requested(lacking), Platforms: platforms, DryRun: askOnly, Pin: !askOnly, AtOnce: 3})
	if err != nil {
		return nil, err
	}
	kind := "auto"
	if o.AsJSON {
		kind = "none"
	}
	var report admin.PrefetchReport
	return &report, follow(ctx, o, job.ID, terminal.NewView(o.Stderr, kind), &report)
}

// tell shows what is not whole, and then the sum.
func (r *rehearsal) tell(o *adminclient.Client) error {
	missing, absent := int64(0), 0
	for _, l := range r.Lines {
		missing += l.MissingBytes
		if l.State == string(image.Absent) {
			absent++
		}
	}
	if o.AsJSON {
		if err := terminal.WriteJSON(o.Stdout, r); err != nil {
			return err
		}
	} else {
		t := o.Table("IMAGE", "PLATFORM", "STATE", "MISSING")
		for _, l := range r.Lines {
			if l.State != string(image.Complete) || o.Form == terminal.Wide {
				t.Row(l.Ref, terminal.OrDash(l.Platform), l.State, terminal.Bytes(l.MissingBytes))
			}
		}
		if r.Whole < r.Images || o.Form == terminal.Wide {
			if err := t.Flush(); err != nil {
				return err
			}
		}
		for _, g := range r.Gone {
			fmt.Fprintf(o.Stderr, "%s: %s\n", terminal.Printable(g.Ref), terminal.Printable(g.Error))
		}
		if _, err := fmt.Fprintf(o.Stdout, "If the registries went away now, %s of %s could be served whole.\n",
			humanize.Comma(int64(r.Whole)), terminal.Count(int64(r.Images), "image", "images")); err != nil {
			return err
		}
	}
	if r.Whole == r.Images {
		return nil
	}
	err := fmt.Errorf("%s lack something: %s, and %s that nobody has pulled", terminal.Count(int64(r.Images-r.Whole), "image", "images"), terminal.Bytes(missing), terminal.Count(int64(absent), "platform", "platforms"))
	if r.Whole == 0 {
		return command.Hint(err, "forebay drill --complete fetches and pins it.")
	}
	return command.Exit(command.ExitPartial, command.Hint(err, "forebay drill --complete fetches and pins it."))
}
