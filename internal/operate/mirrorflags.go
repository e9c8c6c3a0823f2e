package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/internal/command"
)

// mirrorFlags are the flags that say which mirror a command works on: one that runs, or with
// --storage-dir a folder that the command has to itself.
type mirrorFlags struct {
	cmd                       *cobra.Command
	server, tokenFile, caFile string
	config                    string
	asJSON                    bool
	dir                       string // stays empty for commands that need a server
}

// action is what a command does with the mirror, once the command line is parsed.
type action func(ctx context.Context, o *operator, args []string) error

// serverFlags adds to cmd the flags that name a server.
func serverFlags(cmd *cobra.Command) *mirrorFlags {
	flags := cmd.Flags()
	f := &mirrorFlags{cmd: cmd}
	flags.StringVar(&f.server, "server", "", "admin address of the server, such as http://127.0.0.1:5001 (default: "+adminVariable+", else admin_listen of the configuration)")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the admin token (default: FOREBAY_ADMIN_TOKEN, else that of the configuration)")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file with certificates to trust for an https:// server")
	flags.StringVar(&f.config, "config", "", "the server's YAML file (default "+config.DefaultFile+" if it is there)")
	flags.BoolVar(&f.asJSON, "json", false, "write JSON, as the admin API gives it")
	return f
}

// folderFlag names the folder that a command works on itself, in place of a server.
const folderFlag = "storage-dir"

// serverOrFolderFlags adds to cmd the flags that name a server, and the one that names a folder.
func serverOrFolderFlags(cmd *cobra.Command, usage string) *mirrorFlags {
	f := serverFlags(cmd)
	cmd.Flags().StringVar(&f.dir, folderFlag, "", usage)
	return f
}

// Whether a command may fill a folder that is not there yet.
const (
	mustExist = false
	mayBeNew  = true
)

// onServer lets cmd work on a running server.
func onServer(p Program, cmd *cobra.Command, do action) *cobra.Command {
	f := serverFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.onServer(cmd.Context(), p, args, do) }
	return cmd
}

// onServerOrFolder lets cmd work on a running server, or without one straight on a storage
// folder that --storage-dir names. mayBeNew says whether that folder is made if it is not there.
func onServerOrFolder(p Program, cmd *cobra.Command, mayBeNew bool, do action) *cobra.Command {
	f := serverOrFolderFlags(cmd, "work on this storage folder itself, which no running server may use")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.dir == "" {
			return f.onServer(cmd.Context(), p, args, do)
		}
		return f.onFolder(cmd.Context(), p, args, mayBeNew, do)
	}
	return cmd
}

// onServer finds the server and has do ask it.
func (f *mirrorFlags) onServer(ctx context.Context, p Program, args []string, do action) error {
	s, err := f.findServer(p)
	if err != nil {
		return err
	}
	defer s.http.CloseIdleConnections()
	return do(ctx, &operator{p: p, server: s, asJSON: f.asJSON}, args)
}

// onFolder opens the folder and has do ask its admin API.
func (f *mirrorFlags) onFolder(ctx context.Context, p Program, args []string, mayBeNew bool, do action) (err error) {
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
	o.asJSON = f.asJSON
	return do(ctx, o, args)
}

// load returns the configuration with the folder that was named.
func (f *mirrorFlags) load(p Program) (*config.Config, error) {
	c, err := config.Load(config.Sources{File: f.config, Env: p.Env, Root: p.Root, Flags: []config.Flag{{Name: "--" + folderFlag, Key: "storage.dir", Value: f.dir}}})
	if err != nil {
		return nil, command.Usage(err)
	}
	return c, nil
}
