package adminclient

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"forebay/internal/command"
	"forebay/internal/terminal"
)

// contexts are the mirrors that somebody works on, in a file of his own. It names files with
// tokens, and has none itself.
type contexts struct {
	Chosen  string            `yaml:"chosen,omitempty"`
	Mirrors map[string]mirror `yaml:"mirrors"`
}

type mirror struct {
	Server    string `yaml:"server"`
	TokenFile string `yaml:"token_file,omitempty"`
	CAFile    string `yaml:"ca_file,omitempty"`
	CertFile  string `yaml:"cert_file,omitempty"`
	KeyFile   string `yaml:"key_file,omitempty"`
}

func contextFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "forebay", "contexts.yaml"), err
}

// readContexts returns none where there is no file.
func readContexts() (c contexts, err error) {
	c.Mirrors = map[string]mirror{}
	name, homeless := contextFile()
	if homeless != nil {
		return c, nil //nolint:nilerr // without a home there are none
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = yaml.Unmarshal(text, &c)
	}
	if err != nil {
		return c, command.Usage(fmt.Errorf("read %q: %w", name, err))
	}
	return c, nil
}

func (c contexts) write() error {
	name, err := contextFile()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}

func contextNames() []string {
	c, err := readContexts()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.Mirrors))
}

// useContext takes the server of the context that is named or chosen, if there is one.
func (f *Flags) useContext(s *adminServer, p Program) error {
	name, how := f.context, "--context"
	for _, entry := range p.Env {
		if value, ok := strings.CutPrefix(entry, "FOREBAY_CONTEXT="); ok && name == "" {
			name, how = value, "FOREBAY_CONTEXT"
		}
	}
	if name == "" && f.config != "" {
		return nil // the configuration names its server
	}
	c, err := readContexts()
	if err != nil {
		return err
	}
	if name == "" {
		name, how = c.Chosen, "forebay context use"
	}
	if name == "" {
		return nil
	}
	m, ok := c.Mirrors[name]
	if !ok {
		return command.Hint(command.Usage(fmt.Errorf("%s: there is no context %q", how, name)), "See them with forebay context, add one with forebay context add "+name+" URL.")
	}
	s.base, s.how = m.Server, "context "+name
	f.tokenFile, f.caFile = cmp.Or(f.tokenFile, m.TokenFile), cmp.Or(f.caFile, m.CAFile)
	if f.certFile == "" { // a key belongs to its certificate
		f.certFile, f.keyFile = m.CertFile, cmp.Or(f.keyFile, m.KeyFile)
	}
	return nil
}

// NewContext returns the command that names mirrors.
func NewContext(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Name the mirrors that you work on",
		Long: `Lists the mirrors that were named, and marks the chosen one: commands ask that when neither
--server, --context, FOREBAY_ADMIN, FOREBAY_CONTEXT nor --config says otherwise. They are kept in
forebay/contexts.yaml in your configuration folder, without any token.`,
		Example: `  forebay context add edge1 https://edge1:5001 --token-file ~/.edge1.token
  forebay context use edge1
  forebay --context edge2 status`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := readContexts()
			if err != nil {
				return err
			}
			t := terminal.NewTable(p.Stdout, "NAME", "SERVER", "TOKEN FILE")
			for _, name := range slices.Sorted(maps.Keys(c.Mirrors)) {
				title := name
				if name == c.Chosen {
					title += " (chosen)"
				}
				t.Row(title, c.Mirrors[name].Server, terminal.OrDash(c.Mirrors[name].TokenFile))
			}
			return t.Flush()
		},
	}
	cmd.AddCommand(newContextAdd(), newContextUse(), newContextRemove())
	return cmd
}

func newContextAdd() *cobra.Command {
	var m mirror
	cmd := &cobra.Command{
		Use: "add NAME URL", Short: "Name a mirror, by the address of its admin API", Args: cobra.ExactArgs(2),
		Example: "  forebay context add edge1 https://edge1:5001 --token-file ~/.edge1.token",
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == "" || strings.ContainsAny(args[0], " \t\r\n") {
				return command.Usage(fmt.Errorf("%q is no name: use one word", args[0]))
			}
			var err error
			if m.Server, err = baseOf(args[1]); err != nil {
				return fmt.Errorf("%w: use http://HOST:PORT or https://HOST:PORT", err)
			}
			for _, file := range []*string{&m.TokenFile, &m.CAFile, &m.CertFile, &m.KeyFile} {
				if *file != "" { // commands are started in other folders, too
					whole, err := filepath.Abs(*file)
					if err != nil {
						return err
					}
					*file = whole
				}
			}
			c, err := readContexts()
			if err != nil {
				return err
			}
			if c.Mirrors[args[0]] = m; len(c.Mirrors) == 1 {
				c.Chosen = args[0]
			}
			return c.write()
		},
	}
	cmd.Flags().StringVar(&m.TokenFile, "token-file", "", "file with its admin token")
	cmd.Flags().StringVar(&m.CAFile, "ca-file", "", "PEM file with certificates to trust")
	cmd.Flags().StringVar(&m.CertFile, "cert-file", "", "PEM file with the certificate to show")
	cmd.Flags().StringVar(&m.KeyFile, "key-file", "", "PEM file with its key (default: that of --cert-file)")
	return cmd
}

func newContextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Choose the mirror that commands ask", Args: cobra.ExactArgs(1), Example: "  forebay context use edge1",
		ValidArgsFunction: completeContext,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readContexts()
			if err != nil {
				return err
			}
			if _, ok := c.Mirrors[args[0]]; !ok {
				return command.Usage(fmt.Errorf("there is no context %q: add it with forebay context add %s URL", args[0], args[0]))
			}
			c.Chosen = args[0]
			return c.write()
		},
	}
}

func newContextRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a mirror", Args: cobra.ExactArgs(1), Example: "  forebay context rm edge1",
		ValidArgsFunction: completeContext,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := readContexts()
			if err != nil {
				return err
			}
			if _, ok := c.Mirrors[args[0]]; !ok {
				return command.Usage(fmt.Errorf("there is no context %q: see them with forebay context", args[0]))
			}
			if delete(c.Mirrors, args[0]); c.Chosen == args[0] {
				c.Chosen = ""
			}
			return c.write()
		},
	}
}

func completeContext(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return contextNames(), cobra.ShellCompDirectiveNoFileComp
}
