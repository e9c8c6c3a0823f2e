package main

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"forebay/config"
	samples "forebay/deploy/config"
	"forebay/internal/carry"
	"forebay/internal/command"
)

func newConfig(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show the configuration",
		Long: `Every setting has a default. Each can be given in a YAML file, as an environment
variable (storage.dir is FOREBAY_STORAGE_DIR), and the common ones as flags. A flag
has precedence over a variable, and a variable over the file.

All keys are described by "forebay config reference".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheck(p), newConfigPrint(p), newConfigReference(p), newConfigSchema(p), newConfigExample(p))
	return cmd
}

func newConfigCheck(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell whether the configuration is right",
		Long: `Checks the file, and with it the environment and the flags, just as "forebay serve"
does at its start. All faults are told at once, each with its line and with what is
allowed. What works and may not be meant is warned of: passwords over plain HTTP,
credentials that serve whoever reaches the listener, secret files that others can read,
variables that mean nothing.
Nothing is contacted and nothing is changed, but with --online: then the bucket of
storage.s3 is tried with an object that is put, read and removed again.`,
		Example: `  forebay config check
  forebay config check /etc/forebay/forebay.yaml
  forebay config check --online`,
		Args: cobra.MaximumNArgs(1),
	}
	load := command.ConfigFlags(cmd, p)
	online := cmd.Flags().Bool("online", false, "try the bucket, too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := load(strings.Join(args, ""))
		if err != nil {
			return err
		}
		if *online {
			if err := checkOnline(cmd.Context(), c, p); err != nil {
				return err
			}
		}
		if _, err := carry.Targets(c, toTargets(nil, nil)); err != nil {
			return err
		}
		if _, err := newSignatures(c, &http.Client{}); err != nil {
			return err
		}
		if err := (&front{}).openAuth(c, nil, zap.NewNop()); err != nil {
			return command.Usage(err)
		}
		for _, w := range c.Warnings() {
			fmt.Fprintln(p.Stderr, "warning:", w)
		}
		name := c.File
		if name == "" {
			name = "no file: the defaults"
		}
		mirrored := c.UpstreamNames()
		if c.Others != nil {
			mirrored = append(mirrored, "and what clients name of "+strings.Join(c.Others.Allow, ", "))
		}
		_, err = fmt.Fprintf(p.Stdout, "%s: right; mirrors %s\n", name, strings.Join(mirrored, ", "))
		return err
	}
	return cmd
}

func newConfigPrint(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Show the settings in effect, passwords masked",
		Long: `Writes all settings in effect as YAML, defaults included. Passwords are masked. A
comment says where a value comes from when it is not the default.`,
		Example: `  forebay config print
  FOREBAY_LISTEN=:80 forebay config print
  forebay config print > forebay.yaml     # a file to start from`,
		Args: cobra.NoArgs,
	}
	load := command.ConfigFlags(cmd, p)
	cmd.RunE = func(*cobra.Command, []string) error {
		c, err := load("")
		if err != nil {
			return err
		}
		return c.Print(p.Stdout)
	}
	return cmd
}

func newConfigReference(p command.Process) *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "Describe every key, its default and its environment variable",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return config.Reference(p.Stdout) },
	}
}

func newConfigSchema(p command.Process) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Write a JSON schema of the file, for editors",
		Example: `  forebay config schema > forebay.schema.json
  # and as the first line of forebay.yaml:
  # yaml-language-server: $schema=forebay.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return config.Schema(p.Stdout) },
	}
}

func newConfigExample(p command.Process) *cobra.Command {
	return &cobra.Command{
		Use:   "example [NAME]",
		Short: "Write a configuration to start from",
		Long:  "Writes one of the configurations that Forebay comes with; without a name it lists them.",
		Example: `  forebay config example
  forebay config example ci > /etc/forebay/forebay.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listExamples(p.Stdout)
			}
			text, err := samples.Files.ReadFile(args[0] + ".yaml")
			if err != nil {
				return command.Usage(fmt.Errorf("no example %q: see forebay config example", args[0]))
			}
			_, err = p.Stdout.Write(text)
			return err
		},
	}
}

// listExamples writes the names of the examples, each with its first line.
func listExamples(w io.Writer) error {
	names, err := fs.Glob(samples.Files, "*.yaml")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := samples.Files.ReadFile(name)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if _, err := fmt.Fprintf(w, "%-10s %s\n", strings.TrimSuffix(name, ".yaml"), strings.TrimPrefix(first, "# ")); err != nil {
			return err
		}
	}
	return nil
}
