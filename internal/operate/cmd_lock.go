package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/imageset"
	"forebay/internal/prefetch"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// lockFlags are the flags of forebay lock.
type lockFlags struct {
	asJSON   bool
	list     imageList
	out      *string
	check    *bool
	children *bool
}

func newLock(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock [REF...] [-f FILE] [-o FILE]",
		Short: "Write down which digests tags point to, or tell which have moved",
		Long: `Asks what tags point to and writes a lock file, so that two sites fetch the same bytes:
forebay prefetch -f images.lock. Registries are asked by HEAD, which costs no pull.

The digest of an index settles those of its platforms. They are written down beside it if
the index is kept; with --children indexes that are not are fetched, a pull each, which a
later prefetch then need not spend.

With --check nothing is written: it tells which tags of lock files have moved since.

` + fileHelp + ``,
		Example: `  forebay lock -f images.txt -o images.lock
  forebay lock --check -f images.lock
  helm template ./chart | forebay lock -f - --children > chart.lock`,
	}
	flags := cmd.Flags()
	f := lockFlags{
		list:     addImageList(cmd),
		out:      flags.StringP("output", "o", "-", "file to write; - is standard output"),
		check:    flags.Bool("check", false, "tell which tags of the lock files have moved"),
		children: flags.Bool("children", false, "fetch indexes that are not kept, so that their platforms are written down: a pull each"),
	}
	return adminclient.OnServerOrFolder(p, cmd, adminclient.MayBeNew, f.ask)
}

// ask has a running server ask, or this process for a folder.
func (f lockFlags) ask(ctx context.Context, o *adminclient.Client, args []string) error {
	if len(args) == 0 && len(*f.list.files) == 0 {
		return command.Usage(errors.New("no image is named: name some as arguments, or a file with -f"))
	}
	f.asJSON = o.AsJSON
	names, err := o.Names(ctx)
	if err != nil {
		return err
	}
	return f.run(o.Program, args, names, func(entries []imageset.Entry) (admin.Locked, error) {
		job, err := o.Start(ctx, "/lock", admin.LockRequest{Images: requested(entries), Children: *f.children})
		if err != nil {
			return admin.Locked{}, err
		}
		quiet := *o
		quiet.AsJSON = true // the file may go to the terminal
		var locked admin.Locked
		_, err = quiet.Wait(ctx, job.ID, &locked)
		return locked, err
	})
}

// run reads the images, has them locked, and writes or compares.
func (f lockFlags) run(p adminclient.Program, args []string, names *wire.Registries, lock func([]imageset.Entry) (admin.Locked, error)) error {
	entries, err := f.list.read(p, args, names, nil)
	if err != nil {
		return err
	}
	if err := isEmpty(entries, true); err != nil {
		return err
	}
	if *f.check {
		for _, e := range entries {
			if !e.Ref.HasDigest() {
				return command.Usage(fmt.Errorf("%s: %s has no digest to compare with: --check takes lock files", e.At, e.Ref))
			}
		}
	}
	locked, err := lock(entries)
	if err != nil {
		return err
	}
	for _, fault := range locked.Failed {
		fmt.Fprintf(p.Stderr, "%s: %s\n", fault.At, terminal.Printable(fault.Error))
	}
	if *f.check {
		return f.compare(p, entries, locked)
	}
	if n := len(locked.Failed); n > 0 {
		return fmt.Errorf("%s could not be locked, so that nothing is written", terminal.Count(int64(n), "image", "images"))
	}
	return f.write(p, locked)
}

// write writes the lock file, whole or not at all.
func (f lockFlags) write(p adminclient.Program, locked admin.Locked) error {
	text, err := locked.File.Encode()
	if err != nil {
		return err
	}
	if *f.out == "-" {
		_, err := p.Stdout.Write(text)
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(*f.out), ".lock-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Chmod(0o644), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), *f.out)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	if f.asJSON {
		return terminal.WriteJSON(p.Stdout, locked)
	}
	_, err = fmt.Fprintf(p.Stdout, "locked %s, %s spent\n", terminal.Count(int64(len(locked.File.Images)), "image", "images"), terminal.Count(locked.Pulls, "pull", "pulls"))
	return err
}

// moved is a tag that does not point any more to what a lock file says.
type moved struct {
	Ref    string `json:"ref"`
	At     string `json:"at"`
	Locked string `json:"locked"`
	Now    string `json:"now"`
}

// compare tells which tags have moved.
func (f lockFlags) compare(p adminclient.Program, entries []imageset.Entry, locked admin.Locked) error {
	now := map[string]string{}
	for _, image := range locked.File.Images {
		now[image.Ref] = image.Digest.String()
	}
	list := []moved{}
	for _, e := range entries {
		name := prefetch.Name(e.Ref)
		if d, ok := now[name]; ok && d != e.Ref.Digest.String() {
			list = append(list, moved{name, e.At.String(), e.Ref.Digest.String(), d})
		}
	}
	if f.asJSON {
		if err := terminal.WriteJSON(p.Stdout, list); err != nil {
			return err
		}
	} else {
		t := terminal.NewTable(p.Stdout)
		if len(list) > 0 {
			t = terminal.NewTable(p.Stdout, "IMAGE", "LOCKED", "NOW")
		}
		for _, m := range list {
			t.Row(m.Ref, m.Locked[:min(len(m.Locked), 19)], m.Now[:min(len(m.Now), 19)])
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	switch {
	case len(locked.Failed) > 0:
		return fmt.Errorf("%s could not be looked at", terminal.Count(int64(len(locked.Failed)), "image", "images"))
	case len(list) > 0:
		return command.Exit(command.ExitMoved, fmt.Errorf("%s moved", terminal.Count(int64(len(list)), "tag has", "tags have")))
	}
	return nil
}
