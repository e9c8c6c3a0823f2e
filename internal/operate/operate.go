// Package operate is the operator's commands: each asks a running mirror by its admin API,
// or works on a storage folder that no mirror uses, and does the same either way.
//
// It promises texts for people on standard output, or one JSON document with --json, and
// what went wrong on standard error. What is read from a mirror comes from registries in
// part, so whatever is shown goes through [terminal.Printable].
package operate

import (
	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/internal/adminclient"
	"forebay/internal/carry"
	"forebay/upstream"
)

// Program is the program that the commands are part of.
type Program struct {
	adminclient.Program
	// RegistryOptions says how an upstream of a configuration is reached.
	RegistryOptions func(u *config.Upstream, log config.Log) upstream.Options
	Explain         Explain
}

// Commands returns the commands of the operator.
func Commands(all Program) []*cobra.Command {
	p := all.Program
	return []*cobra.Command{
		newList(p), newImages(p), newInspect(p), newTag(p), newStatus(p), newStats(p), newRefresh(p), newRepair(p), newPurge(p),
		newPin(p), newUnpin(p), newPins(p), newVerify(p), newCollect(p), newJobs(p), carry.NewExport(p), carry.NewImport(p), carry.NewInventory(p),
		newPrefetch(p), newLock(p), newWanted(p), newSupportBundle(p), newHub(all), newToken(p.Process), newAccess(p.Process, all.Explain), newGenCert(p.Process),
	}
}
