package carry

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"forebay/cache/upkeep"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/bundle"
	"forebay/internal/command"
	"forebay/internal/regfolder"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// adopting is what the command line asks of an import of a registry's folder.
type adopting struct {
	upstream  string
	dryRun    bool
	duplicate bool
}

func newImportRegistry(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "registry DIR",
		Short: "Take over the storage folder of a distribution registry",
		Long: `Takes over what a distribution registry:2 or registry:3 keeps, as a pull-through
cache or as a plain registry: DIR is the rootdirectory of its configuration, with the
folder docker/registry/v2. Its repositories become those of --upstream: of a
pull-through cache, the registry that it mirrors.

Every byte is compared with its digest. With --storage-dir and on one file system, files
are linked and take no more space; else they are copied. While the registry's folder is
there its owner may change a linked file, so that it is compared with its digest at each
delivery: remove that folder when all is well. Tags keep the age that they have there:
a tag past its time to live is confirmed by its registry at the next pull, and served
as it is while that cannot be asked.

An import that was cut is run again: what a repository holds here is not read twice. The
registry may run meanwhile; what it changes in that time may be missed.`,
		Example: `  forebay import registry /var/lib/registry --storage-dir /var/lib/forebay
  forebay import registry /var/lib/registry --dry-run
  forebay import registry /srv/registry --upstream registry.example.com --json`,
		Args: cobra.ExactArgs(1),
	}
	var x adopting
	flags := cmd.Flags()
	flags.StringVar(&x.upstream, "upstream", "docker.io", "registry that the repositories are of")
	flags.BoolVar(&x.dryRun, "dry-run", false, "only say what would be taken over")
	flags.BoolVar(&x.duplicate, "copy", false, "copy files that could be linked")
	return adminclient.OnServerOrFolder(p, cmd, adminclient.MayBeNew, func(ctx context.Context, o *adminclient.Client, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return x.run(ctx, o, args[0])
	})
}

// takenOver says what an import of a registry's folder came to.
type takenOver struct {
	DryRun       bool  `json:"dry_run"`
	Repositories int64 `json:"repositories"`
	Tags         int64 `json:"tags"`
	Manifests    int64 `json:"manifests"` // that no tag names
	Blobs        int64 `json:"blobs"`     // files, manifests included
	Bytes        int64 `json:"bytes"`
	Linked       int64 `json:"linked"` // of the blobs; with a dry run none
	Copied       int64 `json:"copied"`
	Had          int64 `json:"had"` // here before
	// Missing are things that images name and that the folder does not have: a cache has
	// what somebody pulled.
	Missing int64 `json:"missing"`
	// Damaged are files that do not have their digest, at most 1000.
	Damaged []string `json:"damaged,omitempty"`
	Faults  []string `json:"faults,omitempty"` // what could not be read or kept, at most 1000
	Notes   []string `json:"notes,omitempty"`  // what was passed over, at most 1000
}

// faultsKept bounds what is remembered of a folder in ruins.
const faultsKept = 1000

func (t *takenOver) fault(format string, args ...any) {
	if len(t.Faults) < faultsKept {
		t.Faults = append(t.Faults, fmt.Sprintf(format, args...))
	}
}

// stray notes a file that no registry makes.
func (t *takenOver) stray(name string) {
	if len(t.Notes) < faultsKept {
		t.Notes = append(t.Notes, name+": not of a registry, and passed over")
	}
}

func (x *adopting) run(ctx context.Context, o *adminclient.Client, dir string) error {
	folder, err := regfolder.Open(dir)
	if err != nil {
		return command.Hint(err, "Name the rootdirectory of the registry's configuration (storage: filesystem: rootdirectory).")
	}
	defer func() { _ = folder.Close() }() // nothing was written
	names, err := o.Names(ctx)
	if err != nil {
		return err
	}
	if names.Names[x.upstream] == "" {
		return command.Usage(fmt.Errorf("--upstream: %q is not configured: add it to upstreams, or name another", x.upstream))
	}
	t := takeover{adopting: x, Client: o, in: o.NewImport(), folder: folder, upstream: names.Names[x.upstream], done: takenOver{DryRun: x.dryRun}, meter: terminal.NewMeter(o.Stderr, o.AsJSON, "import", 0), seen: map[string]bool{}}
	if !x.dryRun {
		if err := t.in.Begin(ctx, nil, nil); err != nil {
			return err
		}
		defer t.in.End()
	}
	err = folder.Visit(ctx, regfolder.Visitor{
		Repository: func(name string) error { return t.repository(ctx, name) },
		Odd:        func(name string) { t.done.fault("%s: not the name of a repository", name) },
		Stray:      t.done.stray,
	})
	t.meter.End()
	if ctx.Err() != nil {
		return command.Hint(errors.New("interrupted"), "What was taken over stays: run the same import again to go on.")
	}
	if err != nil {
		return err
	}
	return t.tell()
}

// takeover is one run.
type takeover struct {
	*adopting
	*adminclient.Client
	in       *adminclient.Import
	folder   *regfolder.Folder
	upstream string
	done     takenOver
	meter    *terminal.Meter
	seen     map[string]bool // digests that were counted
}

func (t *takeover) repository(ctx context.Context, name string) error {
	found, err := t.folder.Read(ctx, name)
	if err != nil {
		return err
	}
	for _, f := range found.Faults {
		t.done.fault("%s: %s", name, f)
	}
	for _, s := range found.Strays {
		t.done.stray(s)
	}
	t.done.Repositories++
	lacking := map[string]bool{}
	if !t.dryRun {
		all := make([]bundle.Blob, len(found.Content))
		for i, b := range found.Content {
			all[i] = bundle.Blob{Digest: wire.Digest{Hash: b.Digest}, Size: b.Size}
		}
		if all, err = t.in.LacksFor(ctx, []string{t.upstream + "/" + name}, all); err != nil {
			return err
		}
		for _, b := range all {
			lacking[b.Digest.String()] = true
		}
	}
	for _, b := range found.Content {
		if err := t.content(ctx, name, b, lacking[b.Digest.String()]); err != nil {
			return err
		}
	}
	for _, root := range found.Roots {
		if err := t.root(ctx, name, root); err != nil {
			return err
		}
	}
	return nil
}

// content takes in one file, unless the repository has it. What is wrong with it does not end the import, but what is
// wrong here does.
func (t *takeover) content(ctx context.Context, name string, b regfolder.Blob, lacking bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	first := !t.seen[b.Digest.String()]
	t.seen[b.Digest.String()] = true
	if first {
		t.done.Blobs++
		t.done.Bytes += b.Size
		t.meter.Set(t.done.Bytes, 0)
	}
	if t.dryRun {
		if t.Storage != nil && first {
			if _, ok := t.Storage.Keeper.Held(b.Digest); ok {
				t.done.Had++
			}
		}
		return nil
	}
	how, err := upkeep.Had, error(nil)
	if lacking {
		how, err = t.take(ctx, b)
	}
	switch {
	case errors.Is(err, upkeep.ErrContent), adminclient.IsCode(err, "bad_content"):
		if first && len(t.done.Damaged) < faultsKept {
			t.done.Damaged = append(t.done.Damaged, fmt.Sprintf("%s of %s: %s", b.Digest, name, err))
		}
		return nil
	case errors.Is(err, errUnreadable):
		t.done.fault("%s: %s", name, err)
		return nil
	case err != nil:
		return err
	case !first:
		return nil
	}
	switch how {
	case upkeep.Had:
		t.done.Had++
	case upkeep.Linked:
		t.done.Linked++
	default:
		t.done.Copied++
	}
	return nil
}

// errUnreadable is a fault of the folder that is taken over.
var errUnreadable = errors.New("cannot be read")

func (t *takeover) take(ctx context.Context, b regfolder.Blob) (upkeep.Adopted, error) {
	f, size, err := t.folder.Blob(b.Digest)
	if err != nil {
		return "", fmt.Errorf("%s %w: %w", b.Digest, errUnreadable, err)
	}
	defer f.Close()
	return t.in.Adopt(ctx, bundle.Blob{Digest: wire.Digest{Hash: b.Digest}, Size: size}, f, t.duplicate)
}

// root gives the repository its right to an image, and binds its tag.
func (t *takeover) root(ctx context.Context, name string, root regfolder.Root) error {
	if root.Tag != "" {
		t.done.Tags++
	} else {
		t.done.Manifests++
	}
	if t.dryRun {
		return nil
	}
	ref := t.upstream + "/" + name
	if root.Tag != "" {
		ref += ":" + root.Tag
	} else {
		ref += "@" + root.Digest.String()
	}
	answer, err := t.in.Admit(ctx, admin.AdmitRequest{Ref: ref, Digest: root.Digest.String(), Confirmed: root.Seen})
	switch {
	case adminclient.IsCode(err, "not_kept"):
		t.done.fault("%s: its manifest %s is not in the folder", ref, root.Digest)
	case adminclient.IsCode(err, "bad_content"), adminclient.IsCode(err, "bad_request"):
		t.done.fault("%s", err)
	case err != nil:
		return err
	default:
		t.done.Missing += answer.MissingCount
	}
	return nil
}

func (t *takeover) tell() error {
	if t.AsJSON {
		if err := terminal.WriteJSON(t.Stdout, t.done); err != nil {
			return err
		}
	} else if err := t.tellPeople(); err != nil {
		return err
	}
	if n := len(t.done.Damaged) + len(t.done.Faults); n > 0 {
		return fmt.Errorf("%s could not be taken over", terminal.Count(int64(n), "blob", "blobs"))
	}
	return nil
}

func (t *takeover) tellPeople() error {
	d := &t.done
	for _, text := range append(d.Damaged, d.Faults...) {
		fmt.Fprintf(t.Stderr, "%s\n", terminal.Printable(text))
	}
	for _, text := range d.Notes {
		fmt.Fprintf(t.Stderr, "Note: %s.\n", terminal.Printable(text))
	}
	what := "taken over"
	if d.DryRun {
		what = "to be taken over"
	}
	_, err := fmt.Fprintf(t.Stdout, "%s %s of %s: %s, %s by digest only; %s, %s: %d linked, %d copied, %s here before\n",
		terminal.Count(d.Repositories, "repository", "repositories"), what, t.upstream,
		terminal.Count(d.Tags, "tag", "tags"), terminal.Count(d.Manifests, "image", "images"),
		terminal.Count(d.Blobs, "file", "files"), terminal.Bytes(d.Bytes), d.Linked, d.Copied, terminal.Count(d.Had, "was", "were"))
	if err == nil && d.Missing > 0 {
		_, err = fmt.Fprintf(t.Stdout, "The images name %s more that the folder does not have.\n", terminal.Count(d.Missing, "blob", "blobs"))
	}
	return err
}
