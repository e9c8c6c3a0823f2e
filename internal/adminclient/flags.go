package adminclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/internal/command"
)

// Flags are the flags that say which mirror a command works on: one that runs, or with
// --storage-dir a folder that the command has to itself.
type Flags struct {
	cmd                       *cobra.Command
	server, tokenFile, caFile string
	config                    string
	AsJSON                    bool
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
	flags.StringVar(&f.config, "config", "", "the server's YAML file (default "+config.DefaultFile+" if it is there)")
	flags.BoolVar(&f.AsJSON, "json", false, "write JSON, as the admin API gives it")
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

// OnServer lets cmd work on a running server.
func OnServer(p Program, cmd *cobra.Command, do Action) *cobra.Command {
	f := ServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.OnServer(cmd.Context(), p, args, do) }
	return cmd
}

// OnServerOrFolder lets cmd work on a running server, or without one straight on a storage
// folder that --storage-dir names. mayBeNew says whether that folder is made if it is not there.
func OnServerOrFolder(p Program, cmd *cobra.Command, mayBeNew bool, do Action) *cobra.Command {
	f := ServerOrFolderFlags(cmd, "work on this storage folder itself, which no running server may use")
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
	return do(ctx, c, args)
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
	for _, name := range []string{"server", "token-file", "ca-file"} {
		if f.cmd.Flags().Changed(name) {
			return command.Usage(fmt.Errorf("--%s is for a running server, and --%s for none", name, folderFlag))
		}
	}
	c, err := f.load(p)
	if err != nil {
		return err
	}
	o, done, err := openLocal(p, c, mayBeNew)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	o.AsJSON = f.AsJSON
	return do(ctx, o, args)
}

// load returns the configuration with the folder that was named.
func (f *Flags) load(p Program) (*config.Config, error) {
	c, err := config.Load(config.Sources{File: f.config, Env: p.Env, Root: p.Root, Flags: []config.Flag{{Name: "--" + folderFlag, Key: "storage.dir", Value: f.Dir}}})
	if err != nil {
		return nil, command.Usage(err)
	}
	return c, nil
}
