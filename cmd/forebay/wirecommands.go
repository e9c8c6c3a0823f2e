package main

import (
	"context"
	"errors"

	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/observe"
	"forebay/internal/operate"
	"forebay/upstream"
)

// newProgram returns what the operator's commands need of this program.
func newProgram(p command.Process) operate.Program {
	b := thisBuild()
	return operate.Program{
		Program: adminclient.Program{
			Process: p, Version: b.version,
			OpenFolder: func(c *config.Config, mayBeNew bool) (*adminclient.Folder, error) {
				return openFolder(c, p, b, mayBeNew)
			},
		},
		Explain: explain,
		RegistryOptions: func(u *config.Upstream, log config.Log) upstream.Options {
			return registryOptions(u, b.version, observe.NewLogs(log, p.Stderr).Log)
		},
	}
}

// openFolder opens the storage folder of a configuration for a command.
func openFolder(c *config.Config, p command.Process, b build, mayBeNew bool) (*adminclient.Folder, error) {
	if !keepsFolders {
		return nil, errors.New("a storage folder is kept on Linux only: ask the mirror that uses it, with --server")
	}
	if !mayBeNew {
		if err := mustExist(c.Storage.Dir); err != nil {
			return nil, err
		}
	}
	warnRoot(p, c.Storage.Dir)
	l := observe.NewLogs(c.Log, p.Stderr)
	m, err := newMirror(c, b, l)
	if err != nil {
		return nil, err
	}
	return &adminclient.Folder{
		Keeper: m.keeper, Names: m.names(), Close: m.Close,
		Run: func(ctx context.Context) error { return untilDone(ctx, m.run) },
		Admin: func() (*admin.API, error) {
			sets, err := newSets(c, m, l.Log)
			if err != nil {
				return nil, err
			}
			o := m.apiOptions(sets, b, l.Log)
			o.Loopback = true
			return admin.NewAPI(o)
		},
	}, nil
}
