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

// The groups of commands in the help.
const (
	Look      = "look"
	Change    = "change"
	Carry     = "carry"
	Configure = "configure"
)

// Commands returns the commands of the operator, each in its group.
func Commands(all Program) []*cobra.Command {
	p := all.Program
	images := func(cmd *cobra.Command) *cobra.Command { return adminclient.Complete(p, cmd, adminclient.Images) }
	pins := func(cmd *cobra.Command) *cobra.Command { return adminclient.Complete(p, cmd, adminclient.Pins) }
	tag := newTag(p)
	tag.AddCommand(carry.NewPromote(p), carry.NewWaiting(p))
	for _, sub := range tag.Commands() {
		images(sub)
	}
	jobs, fetch := newJobs(p), newPrefetch(p)
	adminclient.CompleteFlag(p, jobs, "cancel", adminclient.Jobs)
	adminclient.CompleteFlag(p, fetch, "set", adminclient.Sets)
	_ = fetch.RegisterFlagCompletionFunc("progress", cobra.FixedCompletions([]string{"auto", "bars", "lines", "json", "none"}, cobra.ShellCompDirectiveNoFileComp))
	var commands []*cobra.Command
	for group, list := range map[string][]*cobra.Command{
		Look:      {newStatus(p), images(newList(p)), images(newImages(p)), images(newInspect(p)), tag, newStats(p), newPins(p), jobs, newWanted(p), newVanished(p), newBypass(p), images(newDrill(p)), carry.NewPolicy(p), newHub(all), newSupportBundle(p)},
		Change:    {images(newRefresh(p)), images(newRepair(p)), images(newPurge(p)), images(newPin(p)), pins(newUnpin(p)), newVerify(p), newCollect(p), images(carry.NewFreeze(p)), carry.NewThaw(p), carry.NewSnapshot(p)},
		Carry:     {fetch, newLock(p), images(carry.NewExport(p)), images(carry.NewCopy(p)), carry.NewImport(p), carry.NewInventory(p)},
		Configure: {adminclient.NewContext(p), newToken(p.Process), newAccess(p.Process, all.Explain), newGenCert(p.Process)},
	} {
		for _, cmd := range list {
			cmd.GroupID = group
		}
		commands = append(commands, list...)
	}
	return commands
}
