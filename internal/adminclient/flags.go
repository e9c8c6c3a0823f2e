package adminclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

// Flags are the flags that say which mirror a command works on: one that runs, or with
// --storage-dir a folder that the command has to itself.
type Flags struct {
	cmd                       *cobra.Command
	server, tokenFile, caFile string
	certFile, keyFile         string // of a client certificate
	context, output           string
	config                    string
	AsJSON, noHeaders         bool
	Dir                       string // stays empty for commands that need a server
}

// Action is what a command does with the mirror, once the command line is parsed.
type Action func(ctx context.Context, o *Client, args []string) error

// ServerFlags adds to cmd the flags that name a server.
func ServerFlags(cmd *cobra.Command) *Flags {
	flags := cmd.Flags()
	f := &Flags{cmd: cmd}
	flags.StringVar(&f.server, "server", "", "admin address of the server, such as http://127.0.0.1:5001 (default: "+adminVariable+", else admin_listen of the configuration)")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the admin token (default: FOREBAY_ADMIN_TOKEN, else that of the configuration)")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file with certificates to trust for an https:// server")
	flags.StringVar(&f.certFile, "cert-file", "", "PEM file with the certificate to show to an https:// server")
	flags.StringVar(&f.keyFile, "key-file", "", "PEM file with its key (default: that of --cert-file)")
	flags.StringVar(&f.config, "config", "", "the server's YAML file (default "+config.DefaultFile+" if it is there)")
	flags.BoolVar(&f.AsJSON, "json", false, "write JSON, as the admin API gives it")
	flags.StringVar(&f.context, "context", "", "which of the mirrors that forebay context names (default: FOREBAY_CONTEXT, else the chosen one)")
	command.OfServer(cmd, "server", "token-file", "ca-file", "cert-file", "key-file", "config", "context")
	_ = cmd.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return contextNames(), cobra.ShellCompDirectiveNoFileComp
	}) // it fails only for a flag that is not there
	return f
}

// folderFlag names the folder that a command works on itself, in place of a server.
const folderFlag = "storage-dir"

// ServerOrFolderFlags adds to cmd the flags that name a server, and the one that names a folder.
func ServerOrFolderFlags(cmd *cobra.Command, usage string) *Flags {
	f := ServerFlags(cmd)
	cmd.Flags().StringVar(&f.Dir, folderFlag, "", usage)
	return f
}

// Whether a command may fill a folder that is not there yet.
const (
	MustExist = false
	MayBeNew  = true
)

// OutputFlag adds the flag that says in what form a command writes, unless -o names a file there.
// It comes after the flags of the command itself.
func (f *Flags) OutputFlag() {
	if f.cmd.Flags().ShorthandLookup("o") != nil {
		return
	}
	f.cmd.Flags().BoolVar(&f.noHeaders, "no-headers", false, "tables without titles")
	f.cmd.Flags().StringVarP(&f.output, "output", "o", "", "table, wide (nothing shortened), json, yaml, or name (one a line)")
	f.cmd.Flags().BoolFunc("no-trunc", "as -o wide", func(string) error {
		f.output = string(terminal.Wide)
		return nil
	})
	_ = f.cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs(), cobra.ShellCompDirectiveNoFileComp)) // it is there
}

// OnServer lets cmd work on a running server.
func OnServer(p Program, cmd *cobra.Command, do Action) *cobra.Command {
	f := ServerFlags(cmd)
	f.OutputFlag()
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.OnServer(cmd.Context(), p, args, do) }
	return cmd
}

// OnServerOrFolder lets cmd work on a running server, or without one straight on a storage
// folder that --storage-dir names. mayBeNew says whether that folder is made if it is not there.
func OnServerOrFolder(p Program, cmd *cobra.Command, mayBeNew bool, do Action) *cobra.Command {
	f := ServerOrFolderFlags(cmd, "work on this storage folder itself, which no running server may use")
	f.OutputFlag()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.Dir == "" {
			return f.OnServer(cmd.Context(), p, args, do)
		}
		return f.onFolder(cmd.Context(), p, args, mayBeNew, do)
	}
	return cmd
}

// OnServer finds the server and has do ask it.
func (f *Flags) OnServer(ctx context.Context, p Program, args []string, do Action) error {
	c, err := f.Find(p)
	if err != nil {
		return err
	}
	defer c.Close()
	return f.written(c, func() error { return do(ctx, c, args) })
}

func outputs() []string {
	return []string{string(terminal.Fitting), string(terminal.Wide), "json", "yaml", string(terminal.Names)}
}

// written has do write in the form that was asked for.
func (f *Flags) written(c *Client, do func() error) (err error) {
	switch f.output {
	case "", string(terminal.Fitting), string(terminal.Wide), string(terminal.Names):
		c.Form, c.noHeaders = terminal.Form(f.output), f.noHeaders
	case "json":
		c.AsJSON = true
	case "yaml":
		// JSON is YAML, so that what is written as the one is read as the other, in its order.
		to, text := c.Stdout, &bytes.Buffer{}
		c.AsJSON, c.Stdout = true, text
		defer func() {
			var node yaml.Node
			if e := yaml.Unmarshal(text.Bytes(), &node); e != nil || err != nil || text.Len() == 0 {
				err = errors.Join(err, e)
				return
			}
			block(&node)
			out, e := yaml.Marshal(&node)
			if e == nil {
				_, e = to.Write(out)
			}
			err = e
		}()
	default:
		return command.Usage(fmt.Errorf("--output: %q is not usable: use %s", f.output, strings.Join(outputs(), ", ")))
	}
	return do()
}

// block writes a node in lines, and not in the braces and quotes that it had as JSON.
func block(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		block(child)
	}
}

// Find finds the server. The caller closes the client.
func (f *Flags) Find(p Program) (*Client, error) {
	s, err := f.findServer(p)
	if err != nil {
		return nil, err
	}
	return &Client{Program: p, AsJSON: f.AsJSON, server: s}, nil
}

// onFolder opens the folder and has do ask its admin API.
func (f *Flags) onFolder(ctx context.Context, p Program, args []string, mayBeNew bool, do Action) (err error) {
	for _, name := range []string{"server", "token-file", "ca-file", "cert-file", "key-file"} {
		if f.cmd.Flags().Changed(name) {
			return command.Usage(fmt.Errorf("--%s is for a running server, and --%s for none", name, folderFlag))
		}
	}
	c, err := f.Load(p)
	if err != nil {
		return err
	}
	o, done, err := openLocal(p, c, mayBeNew)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	o.AsJSON = f.AsJSON
	return f.written(o, func() error { return do(ctx, o, args) })
}

// Load returns the configuration, with the folder if one was named.
func (f *Flags) Load(p Program) (*config.Config, error) {
	from := config.Sources{File: f.config, Env: p.Env, Root: p.Root}
	if f.Dir != "" {
		from.Flags = []config.Flag{{Name: "--" + folderFlag, Key: "storage.dir", Value: f.Dir}}
	}
	c, err := config.Load(from)
	if err != nil {
		return nil, command.Usage(err)
	}
	return c, nil
}
