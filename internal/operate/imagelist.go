package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

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

// fileHelp says what the files of -f may be.
const fileHelp = `FILE is a plain list (a name a line, # begins a comment), Kubernetes manifests or what
helm template makes, a Compose file, a pipeline (of GitHub, GitLab, Woodpecker and others),
a Dockerfile, a unit of podman, a lock file, or a wanted list; - is standard input. What it is is found out by
its content, or told by --format.`

// imageList are the flags that name images.
type imageList struct {
	files     *[]string
	format    *string
	buildArgs *[]string
}

func addImageList(cmd *cobra.Command) imageList {
	flags := cmd.Flags()
	return imageList{
		files:     flags.StringArrayP("file", "f", nil, "file that names images; - is standard input; may be repeated"),
		format:    flags.String("format", "auto", "what the files are: auto, list, kubernetes, compose, dockerfile, lock, wanted or quadlet"),
		buildArgs: flags.StringArray("build-arg", nil, "NAME=VALUE of an ARG before the first FROM of a Dockerfile, TARGETARCH and its like included; may be repeated"),
	}
}

// read returns the images that arguments and files name, for platforms if they differ by
// these. What is wrong with any is an error.
func (l imageList) read(p adminclient.Program, args []string, names *wire.Registries, platforms []string) ([]imageset.Entry, error) {
	format, err := imageset.ParseFormat(*l.format)
	if err != nil {
		return nil, command.Usage(fmt.Errorf("--format: %w", err))
	}
	o := imageset.Options{
		Registries: names, Format: format, Lookup: lookup(p.Env), BuildArgs: map[string]string{}, Platforms: platforms,
		Note: func(f imageset.Fault) { fmt.Fprintln(p.Stderr, terminal.Printable(f.Error())) },
	}
	for _, arg := range *l.buildArgs {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, command.Usage(fmt.Errorf("--build-arg: %q is not NAME=VALUE", arg))
		}
		o.BuildArgs[name] = value
	}
	var faults imageset.Faults
	entries, err := imageset.Names("argument", args, names)
	if err != nil && !errors.As(err, &faults) {
		return nil, err
	}
	for _, name := range *l.files {
		more, err := readImages(p, name, o)
		var wrong imageset.Faults
		switch {
		case errors.As(err, &wrong):
			faults = append(faults, wrong...)
		case err != nil:
			return nil, command.Usage(err)
		}
		entries = append(entries, more...)
	}
	if len(faults) > 0 {
		return nil, command.Usage(faults)
	}
	return imageset.Unique(entries), nil
}

func readImages(p adminclient.Program, name string, o imageset.Options) ([]imageset.Entry, error) {
	if name == "-" {
		in := p.Stdin
		if in == nil {
			in = bytes.NewReader(nil)
		}
		return imageset.Read("standard input", in, o)
	}
	return imageset.ReadFile(name, o)
}

func lookup(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, entry := range env {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// parseAge reads how long ago something may have been: Go's durations, and days.
func parseAge(s string) (time.Duration, error) {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(min(max(n, 0), 36500)) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no length of time: use one such as 30d or 12h", s)
	}
	return d, nil
}

// used returns the images that a server has served within the last age, each for the
// platforms that were pulled.
func used(ctx context.Context, o *adminclient.Client, age time.Duration, names *wire.Registries) ([]imageset.Entry, error) {
	var entries []imageset.Entry
	since := time.Now().Add(-age)
	query := url.Values{"limit": {"500"}}
	for {
		var page admin.ImagePage
		if _, err := o.Ask(ctx, http.MethodGet, "/images", query, nil, &page); err != nil {
			return nil, err
		}
		for i := range page.Images {
			one := &page.Images[i]
			if one.UsedAt.Before(since) || one.State == image.Absent {
				continue
			}
			ref, err := names.Reference(one.Name())
			if err != nil {
				return nil, err
			}
			e := imageset.Entry{Ref: ref, At: imageset.Position{File: "usage"}}
			for _, p := range one.Platforms {
				if p.State != image.Absent && manifest.CheckPlatforms([]string{p.Platform}) == nil && p.UsedAt.After(since) {
					e.Platforms = append(e.Platforms, p.Platform)
				}
			}
			entries = append(entries, e)
		}
		if page.Next == "" {
			return entries, nil
		}
		query.Set("after", page.Next)
	}
}

// isEmpty reports that nothing was named where something must be.
func isEmpty(entries []imageset.Entry, asked bool) error {
	if len(entries) > 0 {
		return nil
	}
	if asked {
		return command.Usage(errors.New("no image is named there: see what --format says, or name some as arguments"))
	}
	return command.Usage(errors.New("no image is named: name some as arguments, or a file with -f"))
}
