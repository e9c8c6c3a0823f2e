// Package carry is the commands that carry images in files from one mirror to another, where
// no network does: export, inventory and import, and the import of another registry's folder.
//
// It promises that a file is there whole or not at all, and that every byte is compared with
// its digest on either side. How a bundle is made up is that of package bundle.
package carry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/bundle"
	"forebay/internal/command"
	"forebay/internal/manifest"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// exporting is what the command line asks of an export.
type exporting struct {
	output, format       string
	files, platforms     []string
	sets                 []string
	pinned, referrers    bool
	fetch, zstd          bool
	since, lacking       []string
	sign, passphraseFile string
	split                string
	asOf                 string // snapshot whose digests count in place of what tags answer with
	volume               int64  // bytes; 0 for one file
}

// Formats of an export.
const (
	formatOCI    = "oci"
	formatDocker = "docker-archive"
)

// NewExport returns forebay export.
func NewExport(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [REF…]",
		Short: "Write images to a file, to be carried to another mirror",
		Long: `Writes images with all that belongs to them to a bundle: an OCI image layout in a tar
archive, which "forebay import" takes in on the other side, and which skopeo, podman,
crane, containerd and docker read, too. The same content makes the same bytes.

A manifest of what it holds is written beside it (FILE.manifest): the next export
with --since leaves all of that out. --lacking leaves out what the other side has
by its own word (forebay inventory). Every byte is compared with its digest.

What is not kept here whole is an error that says how much is missing; with --fetch
it is fetched first. Without --platform those platforms count that somebody pulled.

Asks the running server, or with --storage-dir reads a folder that no server uses.`,
		Example: `  forebay export -o site.tar nginx:1.27 ghcr.io/owner/app
  forebay export -o site.tar -f images.lock --sign ~/.ssh/id_ed25519
  forebay export -o delta.tar -f images.lock --since site.tar.manifest
  forebay export -o site.tar --pinned --split 4GiB
  forebay export -o - nginx:1.27 --format docker-archive | docker load`,
	}
	var x exporting
	flags := cmd.Flags()
	flags.StringVarP(&x.output, "output", "o", "", "file to write, - for standard output")
	flags.StringArrayVarP(&x.files, "file", "f", nil, "file that names images: a list, Kubernetes or Compose YAML, a Dockerfile or a lock file; may be repeated, - for standard input")
	flags.StringArrayVar(&x.sets, "set", nil, "prefetch set of the server's configuration; may be repeated")
	flags.BoolVar(&x.pinned, "pinned", false, "all that is pinned")
	flags.StringSliceVar(&x.platforms, "platform", nil, "platform, such as linux/arm64; may be repeated; all for every platform")
	flags.BoolVar(&x.referrers, "referrers", false, "signatures, SBOMs and attestations that are kept, too")
	flags.BoolVar(&x.fetch, "fetch", false, "fetch what is missing first")
	flags.StringArrayVar(&x.since, "since", nil, "manifest of an earlier bundle: leave out what it brought; may be repeated")
	flags.StringArrayVar(&x.lacking, "lacking", nil, "inventory of the other side: leave out what it has; may be repeated")
	flags.StringVar(&x.format, "format", formatOCI, formatOCI+", or "+formatDocker+" for docker load, with one platform")
	flags.BoolVar(&x.zstd, "zstd", false, "compress the archive; layers mostly are already")
	flags.StringVar(&x.split, "split", "", "write volumes of this size, such as 4GiB: FILE.001, FILE.002, …")
	flags.StringVar(&x.sign, "sign", "", "file with an ed25519 key of OpenSSH or in PEM to sign with")
	flags.StringVar(&x.passphraseFile, "passphrase-file", "", "file with the passphrase of that key")
	return adminclient.OnServerOrFolder(p, cmd, adminclient.MustExist, func(ctx context.Context, o *adminclient.Client, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if err := x.check(args); err != nil {
			return command.Usage(err)
		}
		return export(ctx, o, x, args)
	})
}

// check refuses a command line that cannot work.
func (x *exporting) check(args []string) error {
	switch {
	case x.output == "":
		return errors.New("name the file to write with -o, or - for standard output")
	case len(args) == 0 && len(x.files) == 0 && len(x.sets) == 0 && !x.pinned:
		return errors.New("no images are named: give their names, files with -f, --set or --pinned")
	case x.format != formatOCI && x.format != formatDocker:
		return fmt.Errorf("--format: %q is neither %s nor %s", x.format, formatOCI, formatDocker)
	case x.format == formatDocker && (len(x.since) > 0 || len(x.lacking) > 0):
		return fmt.Errorf("--format %s is for docker load, which needs all layers: leave --since and --lacking out", formatDocker)
	case x.format == formatDocker && (len(x.platforms) > 1 || len(x.platforms) == 1 && x.platforms[0] == manifest.AllPlatforms):
		return fmt.Errorf("--format %s has one platform: name it with --platform", formatDocker)
	case x.passphraseFile != "" && x.sign == "":
		return errors.New("--passphrase-file is for the key of --sign")
	}
	if x.split == "" {
		return nil
	}
	size, err := humanize.ParseBytes(x.split)
	if err != nil || size < bundle.VolumeLeast || size > 1<<50 {
		return fmt.Errorf("--split: %q is not a size from 1MiB on, such as 4GiB", x.split)
	}
	if x.output == "-" || special(x.output) {
		return errors.New("--split needs a file to write with -o")
	}
	x.volume = int64(size)
	return nil
}

// exported says what an export made.
type exported struct {
	Output       string          `json:"output"`
	Images       []bundle.Image  `json:"images"`
	Items        int             `json:"items"`         // things in the archive
	Bytes        int64           `json:"bytes"`         // of these
	ArchiveBytes int64           `json:"archive_bytes"` // before compression
	LeftOut      int             `json:"left_out"`      // things that the other side has
	LeftOutBytes int64           `json:"left_out_bytes"`
	Manifest     v1.Hash         `json:"manifest"` // digest
	ManifestFile string          `json:"manifest_file,omitempty"`
	Signed       bool            `json:"signed"`
	Volumes      []bundle.Volume `json:"volumes,omitempty"`
	Resumed      int             `json:"resumed,omitempty"` // volumes of an earlier run that were kept
}

// export makes a bundle.
func export(ctx context.Context, o *adminclient.Client, x exporting, args []string) error {
	var sign func([]byte) ([]byte, error)
	if x.sign != "" {
		key, err := x.key(o.Program)
		if err != nil {
			return err
		}
		sign = func(text []byte) ([]byte, error) { return bundle.Sign(key, text) }
	}
	wanted, err := x.wanted(ctx, o, args)
	if err != nil {
		return err
	}
	defer x.hold(ctx, o, wanted)()
	plan, err := x.plan(ctx, o, wanted)
	if err != nil {
		return err
	}
	plan.Sign, plan.Made = sign, time.Now()
	archive, err := x.archive(*plan)
	if err != nil {
		return err
	}
	done := exported{
		Output: x.output, Images: plan.Images, Items: len(plan.Manifests) + len(plan.Blobs), Bytes: archive.Bytes,
		ArchiveBytes: archive.Size, LeftOut: len(plan.Assumed), Manifest: archive.Digest, Signed: plan.Sign != nil,
	}
	for _, b := range plan.Assumed {
		done.LeftOutBytes += b.Size
	}
	if err := x.write(ctx, o, archive, &done); err != nil {
		return err
	}
	return x.tell(o, &done)
}

// hold keeps what belongs to the images from eviction, as far as it is there, until release is called.
func (x *exporting) hold(ctx context.Context, o *adminclient.Client, wanted []wantedImage) (release func()) {
	ctx, stop := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for tick := time.Tick(admin.HeldFor / 3); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick:
			}
			for _, w := range wanted {
				_, _ = o.Contents(ctx, w.ref, x.asOf, x.platformsOf(w), x.referrers || w.referrers) // the export itself finds what is wrong
			}
		}
	})
	return func() {
		stop()
		renewing.Wait()
	}
}

// platformsOf are those that are asked for; none: those that somebody pulled.
func (x *exporting) platformsOf(w wantedImage) []string {
	switch {
	case len(w.platforms) > 0:
		return w.platforms
	case len(x.platforms) == 0 && x.format == formatDocker:
		return []string{wire.MachinePlatform()}
	}
	return x.platforms
}

// archive lays out what was planned. A signed bundle has the times of its making; one that is
// written in volumes gets those of an earlier run, if it is the same otherwise, so that the
// volumes that are whole are those of this one.
func (x *exporting) archive(p bundle.Packing) (*bundle.Archive, error) {
	if x.volume > 0 && p.Sign != nil {
		begun := bundle.ReadBegun(x.output)
		if begun != nil && begun.Signature != nil && begun.Manifest.Made.Before(p.Made) {
			a, err := bundle.New(begun.Manifest.Redated(p))
			if err != nil || a.Digest == begun.Digest && bytes.Equal(a.Signature, begun.Signature) {
				return a, err
			}
		}
	}
	return bundle.New(p)
}

// plan gathers what belongs to the images, and fetches what is missing if it may.
func (x *exporting) plan(ctx context.Context, o *adminclient.Client, wanted []wantedImage) (*bundle.Packing, error) {
	p := bundle.NewPlan(x.format == formatDocker)
	if err := x.leaveOut(p); err != nil {
		return nil, err
	}
	var faults []error
	var missing int64
	for _, w := range wanted {
		list, err := x.contents(ctx, o, w)
		var hole *holeError
		if errors.As(err, &hole) {
			missing += hole.bytes
		}
		if err == nil {
			err = p.Add(contentsOf(w, list))
		}
		if errors.Is(err, bundle.ErrOnePlatform) {
			err = fmt.Errorf("%w: name it with --platform", err)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, incompleteError(faults, missing, x.fetch)
	}
	return p.Packing(ctx, o)
}

// contentsOf turns the contents of an image into those of a bundle.
func contentsOf(w wantedImage, list *admin.Contents) bundle.Contents {
	c := bundle.Contents{Image: bundle.Image{
		Name: cmp.Or(w.name, list.Ref), Digest: list.Digest, MediaType: list.MediaType, Size: list.Size, Platforms: list.Platforms, Left: list.Omitted,
		Confirmed: list.Confirmed, Since: list.Since, Decided: cmp.Or(list.Decided, w.decided),
	}}
	if c.Image.Since.IsZero() {
		c.Image.Since = w.since
	}
	for _, p := range list.Parts {
		c.Parts = append(c.Parts, bundle.Part{Blob: bundle.Blob{Digest: p.Digest, Size: p.Size}, Manifest: p.Role == "manifest", MediaType: p.MediaType})
	}
	for _, r := range list.Referrers {
		c.Referrers = append(c.Referrers, bundle.Referrer{Blob: bundle.Blob{Digest: r.Digest, Size: r.Size}, MediaType: r.MediaType, Tag: r.Tag})
	}
	return c
}

// holeError is that an image is not kept whole.
type holeError struct {
	text  string
	bytes int64
}

func (e *holeError) Error() string { return e.text }

// faultsShown bounds the faults that are shown one by one.
const faultsShown = 20

// incompleteError tells all images that cannot be exported.
func incompleteError(faults []error, missing int64, fetched bool) error {
	var lines []string
	for i, f := range faults {
		if i == faultsShown {
			lines = append(lines, fmt.Sprintf("and %d more", len(faults)-faultsShown))
			break
		}
		lines = append(lines, f.Error())
	}
	err := errors.New("nothing is written: " + strings.Join(lines, "\n"))
	if len(faults) > 1 {
		err = fmt.Errorf("nothing is written, since %d images cannot be exported:\n  %s", len(faults), strings.Join(lines, "\n  "))
	}
	if missing > 0 && !fetched {
		return command.Hint(err, fmt.Sprintf("%s are missing. Fetch them first with --fetch, or with forebay prefetch.", terminal.Bytes(missing)))
	}
	if missing > 0 {
		return command.Hint(err, fmt.Sprintf("%s were fetched and are gone again: the store is too small for all of it. Enlarge storage.max_size, pin what is needed, or export fewer images at a time.", terminal.Bytes(missing)))
	}
	if !fetched {
		return command.Hint(err, "What is missing can be fetched first: with --fetch, or with forebay prefetch.")
	}
	return err
}

// contents lists what belongs to an image that is kept whole.
func (x *exporting) contents(ctx context.Context, o *adminclient.Client, w wantedImage) (*admin.Contents, error) {
	platforms := x.platformsOf(w)
	referrers := x.referrers || w.referrers
	list, err := o.Contents(ctx, w.ref, x.asOf, platforms, referrers)
	why := problemWith(list, err)
	if x.fetch && (why != nil || err != nil) {
		if len(platforms) == 0 && (err != nil || len(list.Platforms) == 0 && len(list.Omitted) > 0) {
			platforms = []string{wire.MachinePlatform()}
		}
		if err := o.Complete(ctx, w.ref, platforms); err != nil {
			return nil, fmt.Errorf("%s: %w", w.ref, err)
		}
		list, err = o.Contents(ctx, w.ref, x.asOf, platforms, referrers)
		why = problemWith(list, err)
	}
	switch {
	case adminclient.IsCode(err, "not_kept"):
		return nil, &holeError{text: w.ref + " is not kept here"}
	case err != nil:
		return nil, err
	case why != nil:
		return nil, why
	}
	return list, nil
}

// problemWith returns why the contents of an image cannot be exported; nil if they can.
func problemWith(list *admin.Contents, err error) error {
	if err != nil {
		return nil //nolint:nilerr // that is another problem
	}
	missing, bytes := list.Missing()
	if len(missing) > 0 {
		return &holeError{fmt.Sprintf("%s: %s missing, %s", list.Ref, terminal.Count(int64(len(missing)), "blob is", "blobs are"), terminal.Bytes(bytes)), bytes}
	}
	if len(list.Platforms) == 0 && len(list.Omitted) > 0 {
		return &holeError{text: fmt.Sprintf("%s: nobody has pulled a platform of it: name one with --platform (%s)", list.Ref, strings.Join(list.Omitted, ", "))}
	}
	return nil
}

// leaveOut reads what the other side has, from earlier manifests and from its inventories.
func (x *exporting) leaveOut(p *bundle.Plan) error {
	for _, name := range x.since {
		err := withFile(name, func(r io.Reader) error {
			m, _, err := bundle.ReadManifest(r)
			if err == nil {
				p.LeaveOut(m.Has())
			}
			return err
		})
		if err != nil {
			return command.Usage(fmt.Errorf("--since: %q: %w", name, err))
		}
	}
	for _, name := range x.lacking {
		err := withFile(name, func(r io.Reader) error {
			blobs, err := bundle.ReadInventory(r)
			p.LeaveOut(blobs)
			return err
		})
		if err != nil {
			return command.Usage(fmt.Errorf("--lacking: %q: %w", name, err))
		}
	}
	return nil
}

// withFile opens a file to be read, - being standard input.
func withFile(name string, read func(io.Reader) error) error {
	if name == "-" {
		return read(os.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return read(f)
}

// tell says what was made.
func (x *exporting) tell(o *adminclient.Client, done *exported) error {
	if o.AsJSON && x.output != "-" {
		return terminal.WriteJSON(o.Stdout, done)
	}
	to := o.Stdout
	if x.output == "-" {
		to = o.Stderr // the archive has gone the other way
	}
	var refers int64
	for _, i := range done.Images {
		if i.Refers {
			refers++
		}
	}
	text := fmt.Sprintf("%s: %s", filepath.Base(x.output), terminal.Count(int64(len(done.Images))-refers, "image", "images"))
	if refers > 0 {
		text += fmt.Sprintf(", %s", terminal.Count(refers, "referrer", "referrers"))
	}
	text += fmt.Sprintf("; %s, %s", terminal.Count(int64(done.Items), "blob", "blobs"), terminal.Bytes(done.Bytes))
	if done.LeftOut > 0 {
		text += fmt.Sprintf("; left out %s, %s, that the other side has", humanize.Comma(int64(done.LeftOut)), terminal.Bytes(done.LeftOutBytes))
	}
	fmt.Fprintln(to, text)
	if done.LeftOut > 0 && !done.Signed {
		fmt.Fprintln(to, "It is not signed: an image gets of what is left out only what its own repository holds there.")
	}
	if n := len(done.Volumes); n > 0 {
		fmt.Fprintf(to, "%s of %s", terminal.Count(int64(n), "volume", "volumes"), terminal.Bytes(x.volume))
		if done.Resumed > 0 {
			fmt.Fprintf(to, ", of which %d were there", done.Resumed)
		}
		fmt.Fprintln(to, ": carry all of them and", filepath.Base(x.output)+bundle.RecordSuffix)
	}
	var err error
	if done.ManifestFile != "" {
		_, err = fmt.Fprintf(to, "keep %s here for the next export with --since\n", filepath.Base(done.ManifestFile))
	}
	return err
}
