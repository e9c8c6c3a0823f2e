// Package main is the forebay command: a pull-through caching mirror for container
// registries. It wires the packages together and decides nothing that they decide.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"forebay/config"
)

// version is set by the linker (Makefile); a build without it asks its own build info.
var version string

// Exit codes. The help of the root command names them.
const (
	exitOK     = 0
	exitFailed = 1 // it was tried and did not work
	exitUsage  = 2 // the command line or the configuration is wrong: trying again is no use

	exitPartial = 3 // some of it worked
	exitLimited = 4 // a registry limits us, or only the reserve of its budget is left
	exitMoved   = 5 // tags do not point any more to what a lock file says
)

func main() {
	os.Exit(run(context.Background(), process{
		args: os.Args[1:], env: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, root: os.Geteuid() == 0,
	}))
}

// process is what a command sees of the process that it runs in.
type process struct {
	args           []string // without the program's name
	env            []string
	stdin          io.Reader // nil is empty
	stdout, stderr io.Writer
	root           bool // may write to system folders
}

// run runs one command and returns the exit code. It ends early when ctx is done.
func run(ctx context.Context, p process) int {
	cmd := newRoot(p)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(p.stderr, explain(err))
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var faults config.Faults
	var outcome outcomeError
	if errors.As(err, &outcome) {
		return outcome.code
	}
	if errors.As(err, &usage) || errors.As(err, &faults) {
		return exitUsage
	}
	return exitFailed
}

// usageError is a command line or configuration that cannot work.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// outcomeError is a failure with an exit code of its own.
type outcomeError struct {
	code int
	err  error
}

func (e outcomeError) Error() string { return e.err.Error() }
func (e outcomeError) Unwrap() error { return e.err }

func newRoot(p process) *cobra.Command {
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
			return usageError{errors.New("no command given: see forebay --help, or start with forebay serve")}
		},
	}
	root.SetArgs(p.args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(p), newConfig(p), newHealthcheck(p), newRebuildIndex(p), newHub(p), newVersion(p))
	root.AddCommand(newList(p), newImages(p), newInspect(p), newTag(p), newStatus(p), newStats(p), newRefresh(p), newRepair(p),
		newPurge(p), newPin(p), newUnpin(p), newPins(p), newVerify(p), newCollect(p), newJobs(p), newExport(p), newImport(p), newInventory(p))
	root.AddCommand(newPrefetch(p), newLock(p), newWanted(p))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
	})
	usageArgs(root)
	return root
}

// usageArgs makes wrong arguments of cmd and all below it usage errors.
func usageArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageArgs(sub)
	}
}
