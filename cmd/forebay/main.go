// Package main is the forebay command: a pull-through caching mirror for container
// registries. It wires the packages together and decides nothing that they decide.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"forebay/internal/command"
	"forebay/internal/operate"
)

// These are set by the linker (Makefile); a build without them asks its own build info.
var (
	version  string // of the release, else what git says
	revision string // the commit
	date     string // of the commit, RFC 3339
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], command.Process{
		Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Root: os.Geteuid() == 0,
	}))
}

// keepsFolders is false where there are only the operator's commands: a storage folder is locked,
// and its files get their blocks, in ways that Linux alone has.
const keepsFolders = runtime.GOOS == "linux"

// run runs the command that args name and returns the exit code. It ends early when ctx is done.
func run(ctx context.Context, args []string, p command.Process) int {
	cmd := newRoot(p)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(p.Stderr, command.Explain(err))
	}
	return command.ExitCode(err)
}

func newRoot(p command.Process) *cobra.Command {
	root := &cobra.Command{
		Use:   "forebay",
		Short: "A pull-through caching mirror for container registries",
		Long: `Forebay is a pull-through caching mirror for container registries. dockerd,
containerd, podman and others pull from it; it pulls each thing from Docker Hub
and other registries once, keeps it, and goes on serving it when they limit,
fail or are out of reach.

It needs no configuration: "forebay serve" mirrors Docker Hub, GHCR, Quay and
other public registries, and prints how to point clients at it.

Exit codes: 0 done, 1 it did not work, 2 the command line or configuration is wrong.
prefetch and lock have more, which their help tells.`,
		Example: `  forebay serve
  forebay serve --listen :80 --storage-dir /srv/forebay
  forebay config check /etc/forebay/forebay.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return command.Usage(errors.New("no command given: see forebay --help, or start with forebay serve"))
		},
	}
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newConfig(p), newHealthcheck(p), newManual(p), newNodeSetup(p), newVersion(p))
	if keepsFolders {
		root.AddCommand(newServe(p), newRebuildIndex(p))
	}
	root.AddCommand(operate.Commands(newProgram(p))...)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return command.Usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
	})
	usageArgs(root)
	return root
}

// usageArgs makes wrong arguments of cmd and all below it usage errors.
func usageArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return command.Usage(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageArgs(sub)
	}
}
