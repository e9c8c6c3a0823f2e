package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/command"
	"forebay/internal/terminal"
)

// build says which build this is.
type build struct {
	version  string // "v1.2.3", or "devel"
	revision string // commit, "+changes" when the work tree had some; empty when not known
	date     string // of the commit; empty when not known
	goos     string // "linux/amd64"
	compiler string // "go1.26.8"
}

// thisBuild asks the linker's flag first and then what the go command put in.
func thisBuild() build {
	b := build{version: version, revision: revision, date: date, goos: runtime.GOOS + "/" + runtime.GOARCH, compiler: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if ok {
		changed := false
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.revision = cmp.Or(revision, s.Value)
			case "vcs.time":
				b.date = cmp.Or(date, s.Value)
			case "vcs.modified":
				changed = s.Value == "true"
			}
		}
		if changed && revision == "" {
			b.revision += "+changes"
		}
		if v := info.Main.Version; b.version == "" && v != "(devel)" {
			b.version = v
		}
	}
	b.version = cmp.Or(b.version, "devel")
	return b
}

func (b build) String() string {
	s := "forebay " + b.version
	if b.revision != "" {
		s += " (" + strings.TrimSuffix(b.revision+", "+b.date, ", ") + ")"
	}
	return s + " " + b.compiler + " " + b.goos
}

func newVersion(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say which build this is",
		Example: "  forebay version --json",
		Args:    cobra.NoArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "write JSON")
	output := cmd.Flags().StringP("output", "o", "", "json, or text")
	cmd.RunE = func(*cobra.Command, []string) error {
		b := thisBuild()
		if *output != "" && *output != "json" && *output != "text" {
			return command.Usage(fmt.Errorf("--output: %q is not usable: use json or text", *output))
		}
		if *asJSON || *output == "json" {
			return terminal.WriteJSON(p.Stdout, map[string]string{"version": b.version, "revision": b.revision, "platform": b.goos, "go_version": b.compiler})
		}
		_, err := fmt.Fprintln(p.Stdout, b)
		return err
	}
	return cmd
}
