// Package main makes a release of one commit: programs, packages, the container image, and
// what lets somebody check them.
//
// It promises the same bytes for the same commit, version and Go, on any machine and at any
// time: nothing of the work tree but what is committed goes in, and every time stamp is that
// of the commit. It uploads nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// release is what is made, and from what.
type release struct {
	version  string    // "v1.2.3"
	revision string    // the commit
	made     time.Time // of the commit
	source   string    // folder with the sources
	out      string    // folder that gets the files
	work     string    // folder for what lies between
	url      string    // where the files will be had
	key      string    // file with the private key; empty for no signature

	platforms []platform
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var r release
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	root := flags.String("root", "../..", "the `folder` of the repository, whose HEAD is released")
	flags.StringVar(&r.source, "source", "", "build the `folder` as it is, without asking git: for sources from an archive, and for tests")
	flags.StringVar(&r.version, "version", "", "the `version`, such as v1.2.3 (default: what git describes)")
	flags.StringVar(&r.out, "out", "", "the `folder` that gets the files, which must not exist")
	flags.StringVar(&r.url, "url", "", "where the files of this version will be had: `URL` of a folder, for Homebrew and Nix")
	flags.StringVar(&r.key, "key", "", "`file` with a private key (ECDSA P-256, PEM) that signs the checksums")
	only := flags.String("platforms", "", "build only these `platforms`, by commas, such as linux/amd64")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if r.out == "" || flags.NArg() > 0 {
		return fmt.Errorf("usage: release -out FOLDER [flags]; see release -help")
	}
	if r.platforms, err = selectPlatforms(*only); err != nil {
		return err
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	if r.work, err = os.MkdirTemp("", "forebay-release-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.work)) }()
	if err := r.settle(ctx, *root); err != nil {
		return err
	}
	// Whoever looks at the folder sees a whole release or none.
	final := r.out
	r.out = final + ".part"
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(final); err == nil {
		return fmt.Errorf("%q exists: remove it, or name another folder", final)
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.Mkdir(r.out, 0o755); err != nil {
		return err
	}
	if err := r.make(ctx); err != nil {
		return err
	}
	return os.Rename(r.out, final)
}

// semantic is what a version looks like (semver.org), with the v that Go and git use.
var semantic = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// settle finds out which commit is released, and lays out its sources.
func (r *release) settle(ctx context.Context, root string) error {
	if r.source != "" {
		r.made = time.Unix(0, 0).UTC()
		return r.name(r.version)
	}
	git := func(args ...string) (string, error) {
		out, err := output(exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...))
		return strings.TrimSpace(string(out)), err
	}
	var err error
	if r.revision, err = git("rev-parse", "HEAD"); err != nil {
		return err
	}
	when, err := git("show", "-s", "--format=%cI", "HEAD")
	if err != nil {
		return err
	}
	if r.made, err = time.Parse(time.RFC3339, when); err != nil {
		return err
	}
	r.made = r.made.UTC()
	described := r.version
	if described == "" {
		if described, err = git("describe", "--tags", "--always"); err != nil {
			return err
		}
	}
	if err := r.name(described); err != nil {
		return err
	}
	r.source = filepath.Join(r.work, "source")
	if err := os.Mkdir(r.source, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(r.work, "source.tar")
	if _, err := git("archive", "--format=tar", "--output="+archive, "HEAD"); err != nil {
		return err
	}
	_, err = output(exec.CommandContext(ctx, "tar", "-xf", archive, "-C", r.source))
	return err
}

// name settles the version. What lies between two versions is a prerelease of none.
func (r *release) name(described string) error {
	switch {
	case semantic.MatchString(described):
		r.version = described
	case regexp.MustCompile(`^[0-9a-f]{7,40}$`).MatchString(described):
		r.version = "v0.0.0-dev." + described
	default:
		return fmt.Errorf("%q is no version such as v1.2.3", described)
	}
	return nil
}

// plain is the version without the v, as packages write it.
func (r *release) plain() string { return strings.TrimPrefix(r.version, "v") }

// file names a file of the release.
func (r *release) file(parts string) string {
	return filepath.Join(r.out, "forebay_"+r.plain()+"_"+parts)
}

// make makes everything.
func (r *release) make(ctx context.Context) error {
	docs, err := r.documents(ctx)
	if err != nil {
		return err
	}
	var programs []program
	for _, p := range r.platforms {
		binary, err := r.build(ctx, p)
		if err != nil {
			return err
		}
		programs = append(programs, program{platform: p, path: binary})
		if err := r.archive(p, binary, docs); err != nil {
			return err
		}
		if err := r.writeBill(p, binary); err != nil {
			return err
		}
		if p.os == "linux" {
			if err := r.packages(p, binary, docs); err != nil {
				return err
			}
		}
	}
	if err := r.writeNotes(); err != nil {
		return err
	}
	if err := r.chart(); err != nil {
		return err
	}
	if err := r.image(programs); err != nil {
		return err
	}
	if r.url != "" {
		if err := r.recipes(); err != nil {
			return err
		}
	}
	if err := r.provenance(ctx); err != nil {
		return err
	}
	return r.checksums()
}

// output runs a command and returns what it wrote; the error has what it complained of.
func output(cmd *exec.Cmd) ([]byte, error) {
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, complaint.String())
	}
	return out, nil
}
