// Package main is the forebay command: a pull-through caching mirror for container
// registries. It wires the packages together and decides nothing that they decide.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forebay/internal/carry"
	"forebay/internal/command"
	"forebay/internal/onclient"
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
	ran, err := cmd.ExecuteContextC(ctx)
	if err != nil {
		explain := command.Explain
		for _, name := range []string{"json", "output"} {
			if f := ran.Flags().Lookup(name); f != nil && (f.Value.String() == "true" || f.Value.String() == "json") {
				explain = command.ExplainJSON
			}
		}
		fmt.Fprintln(p.Stderr, explain(err))
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

"forebay help exit-codes" says what a command ends with.`,
		Example: `  forebay serve
  forebay serve --listen :80 --storage-dir /srv/forebay
  forebay config check /etc/forebay/forebay.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       thisBuild().String(),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(*cobra.Command, []string) error {
			return command.Usage(errors.New("no command given: see forebay --help, or start with forebay serve"))
		},
	}
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: operate.Look, Title: "Look:"}, &cobra.Group{ID: operate.Change, Title: "Change:"},
		&cobra.Group{ID: operate.Carry, Title: "Fetch ahead and carry:"}, &cobra.Group{ID: operate.Configure, Title: "Configure:"})
	running := []*cobra.Command{newHealthcheck(p)}
	if keepsFolders {
		running = append(running, newServe(p), newRebuildIndex(p))
	}
	for group, list := range map[string][]*cobra.Command{"run": running, operate.Configure: {newConfig(p), onclient.NewClientConfig(p), onclient.NewDoctor(p, newDoctorMirror(p)), carry.NewNotify(p, toTargets(nil, nil)), newVersion(p), newManual(p)}} {
		for _, cmd := range list {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	root.AddCommand(operate.Commands(newProgram(p))...)
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "What the exit code of a command says", Long: exitCodes})
	root.SetHelpCommand(newHelp(root))
	root.SetHelpCommandGroupID(operate.Configure)
	root.SetCompletionCommandGroupID(operate.Configure)
	command.GroupFlags(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if args := cmd.Flags().Args(); len(args) > 0 && cmd.HasSubCommands() {
			return unknownCommand(cmd, args[0])
		}
		return command.Usage(fmt.Errorf("%w%s: see %s --help", err, nearestFlag(cmd, err), cmd.CommandPath()))
	})
	usageArgs(root)
	return root
}

const exitCodes = `Every command ends with one of these:

  0  done; also when nothing was found that matches
  1  it was tried and did not work
  2  the command line or the configuration is wrong: trying again is no use
  3  some of it worked: of several images, not all are there (prefetch, lock, drill, copy)
  4  a registry limits us, or only the reserve of its budget is left: try again later
  5  tags do not point any more to what a lock file says (lock)`

// unknownCommand says which command may have been meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("there is no command %q", name)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return command.Usage(fmt.Errorf("%s: did you mean %s?", text, strings.Join(near[:min(len(near), 3)], " or ")))
	}
	return command.Usage(fmt.Errorf("%s: see %s --help", text, cmd.CommandPath()))
}

// nearestFlag says which flag may have been meant, if err is about one that is not there.
func nearestFlag(cmd *cobra.Command, err error) string {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return ""
	}
	if name == "server" || name == "context" {
		return ": " + cmd.CommandPath() + " asks no mirror"
	}
	flags := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	if near := flags.SuggestionsFor(name); len(near) > 0 {
		return ": did you mean --" + near[0]
	}
	return ""
}

// newHelp is cobra's, but one that knows what it does not know.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command",
		Example: "  forebay help prefetch\n  forebay help exit-codes",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, strings.Join(args, " "))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// usageArgs makes wrong arguments of cmd and all below it usage errors, which say what to type.
func usageArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil || command.ExitCode(err) == command.ExitUsage {
				return err
			}
			_, wanted, _ := strings.Cut(cmd.Use, " ")
			all := strings.Fields(wanted)
			needed := slices.IndexFunc(all, func(word string) bool { return strings.HasPrefix(word, "[") || strings.HasPrefix(word, "-") })
			if needed <= 0 { // none is left out, or one behind those that may be
				needed = len(all)
			}
			if len(args) < needed {
				return command.Usage(fmt.Errorf("name %s: %s", strings.Join(all[len(args):needed], " and "), strings.TrimSpace(cmd.CommandPath()+" "+wanted)))
			}
			if len(cmd.Commands()) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return command.Usage(fmt.Errorf("%q is one argument too many: %s", args[min(len(all), len(args)-1)], strings.TrimSpace(cmd.CommandPath()+" "+wanted)))
		}
	}
	for _, sub := range cmd.Commands() {
		usageArgs(sub)
	}
}
