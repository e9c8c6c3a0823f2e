// Package operate is the operator's commands: each asks a running mirror by its admin API,
// or works on a storage folder that no mirror uses, and does the same either way.
//
// It promises texts for people on standard output, or one JSON document with --json, and
// what went wrong on standard error. What is read from a mirror comes from registries in
// part, so whatever is shown goes through [terminal.Printable].
package operate

import (
	"context"

	"github.com/spf13/cobra"

	"forebay/cache/upkeep"
	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/command"
	"forebay/internal/wire"
	"forebay/upstream"
)

// Program is the program that the commands are part of: what it sees of its process, and
// what it knows how to build.
type Program struct {
	command.Process
	Version string
	// OpenFolder opens the storage folder of a configuration, which no server may use. One
	// that is not there is made if mayBeNew, and refused otherwise.
	OpenFolder func(c *config.Config, mayBeNew bool) (*Folder, error)
	// RegistryOptions says how an upstream of a configuration is reached.
	RegistryOptions func(u *config.Upstream, log config.Log) upstream.Options
}

// Folder is a storage folder that a command has to itself. Whoever opened it calls Close.
type Folder struct {
	Keeper *upkeep.Keeper
	Names  *wire.Registries
	// Admin makes its admin API. The caller closes that, before the folder.
	Admin func() (*admin.API, error)
	// Run does its work in the background until ctx is done.
	Run   func(ctx context.Context) error
	Close func() error
}

// Commands returns the commands of the operator.
func Commands(p Program) []*cobra.Command {
	return []*cobra.Command{
		newList(p), newImages(p), newInspect(p), newTag(p), newStatus(p), newStats(p), newRefresh(p), newRepair(p), newPurge(p),
		newPin(p), newUnpin(p), newPins(p), newVerify(p), newCollect(p), newJobs(p), newExport(p), newImport(p), newInventory(p),
		newPrefetch(p), newLock(p), newWanted(p), newHub(p),
	}
}
