package command

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forebay/config"
)

// settingFlags are the flags that set keys of the configuration.
func settingFlags() []struct{ name, key, usage string } {
	return []struct{ name, key, usage string }{
		{"listen", "listen", "address of the registry API for clients (default :5000)"},
		{"admin-listen", "admin_listen", "address of /metrics, /healthz and /readyz, or off (default 127.0.0.1:5001)"},
		{"storage-dir", "storage.dir", "folder of everything that is kept"},
		{"storage-max-size", "storage.max_size", "how much may be kept, such as 100GiB"},
		{"fallback", "fallback", "clients, if clients have somewhere else to go when the upstream fails, or none"},
		{"log-level", "log.level", "debug, info, warn or error (default info)"},
		{"log-format", "log.format", "auto, json or console (default auto)"},
	}
}

// NoSettings is for a command to whose work none of the settings that have flags matters.
const NoSettings = ""

// ConfigFlags adds the flags of the configuration to cmd, of which its help shows those that matter,
// or without any all. The function that it returns loads the configuration once the command line is
// parsed; file, if not empty, is read in place of the one that --config names.
func ConfigFlags(cmd *cobra.Command, p Process, matter ...string) func(file string) (*config.Config, error) {
	flags := cmd.Flags()
	configFile := flags.String("config", "", "YAML file with the settings (default "+config.DefaultFile+" if it is there)")
	values := map[string]*string{}
	for _, f := range settingFlags() {
		values[f.name] = flags.String(f.name, "", f.usage)
		flags.Lookup(f.name).Hidden = len(matter) > 0 && !slices.Contains(matter, f.name)
	}
	return func(file string) (*config.Config, error) {
		if file == "" {
			file = *configFile
		}
		s := config.Sources{File: file, Env: p.Env, Root: p.Root}
		for _, f := range settingFlags() {
			if flags.Changed(f.name) {
				s.Flags = append(s.Flags, config.Flag{Name: "--" + f.name, Key: f.key, Value: *values[f.name]})
			}
		}
		c, err := config.Load(s)
		if err != nil {
			return nil, Usage(err)
		}
		return c, nil
	}
}

// ofServer marks flags that say which server a command works on.
const ofServer = "of-server"

// OfServer has the help of cmd show flags apart: they say which server it works on.
func OfServer(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.Flags().SetAnnotation(name, ofServer, nil) // it is there
	}
}

// GroupFlags has root and the commands below show the flags of [OfServer] behind the others.
func GroupFlags(root *cobra.Command) {
	usual := root.UsageFunc()
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		apart := pflag.NewFlagSet("", pflag.ContinueOnError)
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if _, ok := f.Annotations[ofServer]; ok && !f.Hidden {
				apart.AddFlag(f)
			}
		})
		hide := func(hidden bool) { apart.VisitAll(func(f *pflag.Flag) { f.Hidden = hidden }) }
		hide(true)
		err := usual(cmd)
		if hide(false); err == nil && apart.HasFlags() {
			cmd.Printf("\nWhich server it works on:\n%s", apart.FlagUsages())
		}
		return err
	})
}
