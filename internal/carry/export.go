package carry

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forebay/cache/disk"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/bundle"
	"forebay/internal/command"
	"forebay/internal/imageset"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// wantedImage is an image that is to be exported.
type wantedImage struct {
	ref       string         // in full, as the admin API is asked for it
	name      string         // that it is to have on the other side, if that is another
	platforms []string       // that a file or a pin asks for; none: those of the command line
	referrers bool           // that a set asks for
	since     time.Time      // that a lock file says
	decided   *wire.Decision // that a lock file says
}

// wanted gathers the images of the command line, of files and of pins, each once.
func (x *exporting) wanted(ctx context.Context, o *adminclient.Client, args []string) ([]wantedImage, error) {
	names, err := o.Names(ctx)
	if err != nil {
		return nil, err
	}
	read := func(name string) ([]imageset.Entry, error) {
		how := imageset.Options{
			Registries: names, Lookup: os.LookupEnv, Platforms: x.platforms,
			Note: func(f imageset.Fault) { fmt.Fprintln(o.Stderr, terminal.Printable(f.Error())) },
		}
		if name == "-" {
			return imageset.Read("standard input", os.Stdin, how)
		}
		return imageset.ReadFile(name, how)
	}
	all, err := fromEntries(namedEntries(args, names))
	if err != nil {
		return nil, command.Usage(err)
	}
	for _, name := range x.files {
		some, err := fromEntries(read(name))
		if err != nil {
			return nil, command.Usage(fmt.Errorf("-f: %w", err))
		}
		all = append(all, some...)
	}
	for _, set := range x.sets {
		some, err := setImages(ctx, o, set, names, read)
		if err != nil {
			return nil, fmt.Errorf("--set %s: %w", set, err)
		}
		all = append(all, some...)
	}
	if len(all) == 0 && len(x.sets) == 0 && !x.pinned {
		return nil, command.Usage(errors.New("no image is named there: name some as arguments, or with -f, --set or --pinned"))
	}
	if x.pinned {
		var pins admin.PinList
		if _, err := o.Ask(ctx, http.MethodGet, "/pins", nil, nil, &pins); err != nil {
			return nil, err
		}
		for _, p := range pins.Pins {
			all = append(all, wantedImage{ref: p.Ref, platforms: p.Platforms})
		}
	}
	return once(all), nil
}

// namedEntries reads names as people write them.
func namedEntries(list []string, names *wire.Registries) (entries []imageset.Entry, err error) {
	for _, name := range list {
		ref, err := names.Reference(name)
		if err != nil {
			return nil, err
		}
		if ref.Tag == "" && !ref.HasDigest() {
			ref.Tag = "latest"
		}
		if ref.HasDigest() {
			ref.Tag = ""
		}
		entries = append(entries, imageset.Entry{Ref: ref})
	}
	return entries, nil
}

func fromEntries(entries []imageset.Entry, err error) ([]wantedImage, error) {
	if err != nil {
		return nil, err
	}
	var all []wantedImage
	for _, e := range entries {
		if e.Blob {
			return nil, fmt.Errorf("%s: a layer alone cannot be exported: prefetch what is wanted, and export the images", e.At)
		}
		w := wantedImage{ref: e.Ref.String(), platforms: e.Platforms, since: e.Since, decided: e.Decided}
		if e.Ref.HasDigest() && e.Ref.Tag != "" { // of a lock file: the digest says what, the tag how it is called
			w.name = e.Ref.Name() + ":" + e.Ref.Tag
			w.ref = e.Ref.Name() + "@" + e.Ref.Digest.String()
		}
		all = append(all, w)
	}
	return all, nil
}

// setImages returns the images of a prefetch set, with what the set says of them.
func setImages(ctx context.Context, o *adminclient.Client, name string, names *wire.Registries, read func(string) ([]imageset.Entry, error)) ([]wantedImage, error) {
	var set admin.PrefetchSet
	if _, err := o.Ask(ctx, http.MethodGet, "/prefetch/"+url.PathEscape(name), nil, nil, &set); err != nil {
		return nil, err
	}
	all, err := fromEntries(namedEntries(set.Images, names))
	if err != nil {
		return nil, err
	}
	for _, file := range set.Files {
		some, err := fromEntries(read(file))
		if err != nil {
			return nil, fmt.Errorf("the set names a file of the server's machine: %w", err)
		}
		all = append(all, some...)
	}
	for i := range all {
		if len(all[i].platforms) == 0 {
			all[i].platforms = set.Platforms
		}
		all[i].referrers = set.Referrers
	}
	return all, nil
}

// once drops images that are named again in the same way.
func once(all []wantedImage) []wantedImage {
	seen := map[string]bool{}
	var out []wantedImage
	for _, w := range all {
		key := w.ref + " " + w.name + " " + strings.Join(w.platforms, ",")
		if !seen[key] {
			seen[key] = true
			out = append(out, w)
		}
	}
	return out
}

// passphraseVariable names a file with the passphrase of a key, as --passphrase-file does.
const passphraseVariable = "FOREBAY_PASSPHRASE_FILE"

// key reads the key to sign with.
func (x *exporting) key(p adminclient.Program) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(x.sign)
	if err != nil {
		return nil, command.Usage(fmt.Errorf("--sign: %w", err))
	}
	from := x.passphraseFile
	if from == "" {
		for _, entry := range p.Env {
			if value, ok := strings.CutPrefix(entry, passphraseVariable+"="); ok {
				from = value
			}
		}
	}
	var passphrase []byte
	if from != "" {
		if passphrase, err = os.ReadFile(from); err != nil {
			return nil, command.Usage(fmt.Errorf("--passphrase-file: %w", err))
		}
		passphrase = bytes.TrimRight(passphrase, "\r\n")
	}
	key, err := bundle.ParsePrivateKey(text, passphrase)
	if errors.Is(err, bundle.ErrPassphrase) {
		return nil, command.Hint(command.Usage(fmt.Errorf("--sign: %q: %w", x.sign, err)), "Put the passphrase into a file and name that with --passphrase-file or "+passphraseVariable+".")
	}
	if err != nil {
		return nil, command.Usage(fmt.Errorf("--sign: %q: %w", x.sign, err))
	}
	return key, nil
}

// write writes the archive to where it is to be, and what belongs beside it.
func (x *exporting) write(ctx context.Context, o *adminclient.Client, a *bundle.Archive, done *exported) error {
	m := terminal.NewMeter(o.Stderr, o.AsJSON, "export", a.Size)
	err := x.writeArchive(ctx, o, a, m, done)
	m.End()
	if err != nil {
		if ctx.Err() != nil {
			return x.interrupted()
		}
		var damaged *bundle.DamagedError
		if errors.As(err, &damaged) {
			return fmt.Errorf("%w: mend it with forebay verify --repair", err)
		}
		return err
	}
	if x.output == "-" || special(x.output) {
		return nil
	}
	done.ManifestFile = x.output + ".manifest"
	err = writeWhole(done.ManifestFile, func(w io.Writer) error {
		_, err := w.Write(a.Manifest)
		return err
	})
	name := done.ManifestFile + ".sig"
	if err != nil {
		return err
	}
	if a.Signature == nil {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // one of an earlier bundle would be wrong
		}
		return nil
	}
	return writeWhole(name, func(w io.Writer) error {
		_, err := w.Write(a.Signature)
		return err
	})
}

func (x *exporting) interrupted() error {
	if x.volume > 0 && !x.zstd {
		return command.Hint(errors.New("interrupted"), "The volumes that are whole stay: run the same export again to go on.")
	}
	return errors.New("interrupted: nothing is left of it")
}

func (x *exporting) writeArchive(ctx context.Context, o *adminclient.Client, a *bundle.Archive, m *terminal.Meter, done *exported) error {
	switch {
	case x.volume > 0:
		return x.writeVolumes(ctx, o, a, m, done)
	case x.output == "-":
		return x.pack(o.Stdout, func(w io.Writer) error { return a.WriteTo(ctx, w, o, 0, m.Add) })
	}
	if err := x.roomFor(a.Size); err != nil {
		return err
	}
	return writeWhole(x.output, func(f io.Writer) error {
		return x.pack(f, func(w io.Writer) error { return a.WriteTo(ctx, w, o, 0, m.Add) })
	})
}

// pack compresses what write writes, if that is asked for.
func (x *exporting) pack(to io.Writer, write func(io.Writer) error) error {
	if !x.zstd {
		return write(to)
	}
	z, err := bundle.Packed(to)
	if err != nil {
		return err
	}
	if err := write(z); err != nil {
		_ = z.Close() // the first error says more
		return err
	}
	return z.Close()
}

func (x *exporting) writeVolumes(ctx context.Context, o *adminclient.Client, a *bundle.Archive, m *terminal.Meter, done *exported) error {
	v, from, err := bundle.NewVolumes(ctx, x.output, a.Digest, x.volume, x.zstd)
	if err != nil {
		return err
	}
	done.Resumed = v.Kept()
	if err := x.roomFor(a.Size - from); err != nil {
		return err
	}
	err = x.pack(v, func(w io.Writer) error { return a.WriteTo(ctx, w, o, from, m.Add) })
	if err != nil {
		return errors.Join(err, v.Abort())
	}
	if err := v.Finish(); err != nil {
		return err
	}
	done.Volumes = v.Volumes()
	return nil
}

// roomFor refuses an export that the disk has no room for. What is compressed may fit.
func (x *exporting) roomFor(n int64) error {
	if x.zstd || special(x.output) {
		return nil
	}
	free, _, err := disk.Room(filepath.Dir(x.output))
	if err == nil && int64(free) < n {
		return fmt.Errorf("%q: the bundle has %s, and %s are free there", x.output, terminal.Bytes(n), terminal.Bytes(int64(free)))
	}
	return nil // where it is not known, the writing will tell
}
