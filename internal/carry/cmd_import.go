package carry

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"forebay/cache/upkeep"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/bundle"
	"forebay/internal/command"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// importing is what the command line asks of an import.
type importing struct {
	pin, older   bool
	verify       []string
	signature    string
	as, registry string
}

// NewImport returns forebay import, and what is below it.
func NewImport(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE…",
		Short: "Take in images from a file",
		Long: `Takes in a bundle of "forebay export", or images that other programs wrote: an OCI
image layout in a tar archive or a folder (skopeo, podman, buildah, crane, oras), or
what docker save writes; compressed by zstd or gzip or not. Of a bundle in volumes
name one, or all of them.

Every byte is compared with its digest, and nothing is visible before all of it has
come. An import that was cut is run again: what is here already is not written twice.
Images keep their names and tags; a name without a registry is of docker.io, or of
--registry. An import is the operator's word: from then on those repositories serve
what it brought, as if their registry had said so at that moment. What the file only
names is missing, unless the repository holds it already, or the bundle is signed and
--verify has a key for it.

A signed bundle says when it was made and when its tags were confirmed. With --verify
one that is older than another by the same key is refused, and no tag moves to what
was confirmed earlier; --allow-older does both all the same.

Asks the running server, or with --storage-dir fills a folder that no server uses.`,
		Example: `  forebay import site.tar
  forebay import site.tar --verify release.pub --pin
  forebay import /media/stick/site.tar.001
  docker save app:1 | gzip > app.tgz && forebay import app.tgz
  forebay import ./layout --as registry.example.com/team/app:1`,
		Args: cobra.MinimumNArgs(1),
	}
	var x importing
	flags := cmd.Flags()
	flags.BoolVar(&x.pin, "pin", false, "keep the images whole from now on")
	flags.StringArrayVar(&x.verify, "verify", nil, "file with ed25519 keys of OpenSSH or in PEM: refuse what none of them has signed; may be repeated")
	flags.StringVar(&x.signature, "signature", "", "file with the signature, if it is neither in the bundle nor beside it")
	flags.BoolVar(&x.older, "allow-older", false, "take in a bundle that is older than one by the same key that was taken in, and move its tags back")
	flags.StringVar(&x.as, "as", "", "name of the image, for a file with one; without a tag also of several that have only tags")
	flags.StringVar(&x.registry, "registry", "", "registry of names that say none, and of those that begin with localhost/, such as ghcr.io (default docker.io)")
	cmd.AddCommand(newImportRegistry(p))
	return adminclient.OnServerOrFolder(p, cmd, adminclient.MayBeNew, func(ctx context.Context, o *adminclient.Client, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return x.run(ctx, o, args)
	})
}

// imported says what an import came to.
type imported struct {
	Kind    string              `json:"kind"` // what made the file
	Signed  bool                `json:"signed"`
	Images  []admin.AdmitAnswer `json:"images"`
	Taken   int64               `json:"taken"` // things that were not here before
	Bytes   int64               `json:"bytes"` // of these
	Had     int64               `json:"had"`   // things of the file that were here before
	Notes   []string            `json:"notes,omitempty"`
	Refused []string            `json:"refused,omitempty"` // images that could not be linked, with why
}

func (x *importing) run(ctx context.Context, o *adminclient.Client, args []string) error {
	keys, err := x.keys()
	if err != nil {
		return err
	}
	names, err := o.Names(ctx)
	if err != nil {
		return err
	}
	if x.as != "" {
		if _, err := names.Reference(x.fullName(names, x.as)); err != nil {
			return command.Usage(fmt.Errorf("--as: %w", err))
		}
	}
	in := target{o.NewImport(), x, names}
	in.AllowOlder = x.older
	defer in.End()
	u := bundle.Unpacking{Target: in, Keys: keys, As: x.as, Names: func(_ context.Context, images []bundle.Image) error {
		return x.checkNames(names, images)
	}}
	m := terminal.NewMeter(o.Stderr, o.AsJSON, "import", 0)
	u.Progress = func(p bundle.Progress) { m.Set(p.Bytes, p.BytesTotal) }
	read, err := x.read(ctx, args, u)
	m.End()
	if err != nil {
		if ctx.Err() != nil {
			return command.Hint(errors.New("interrupted: no image of it is visible"), "What has come stays for a day, as long as there is room: run the same import again to go on.")
		}
		return hinted(err)
	}
	done := imported{Kind: read.Kind, Signed: read.Signed, Images: []admin.AdmitAnswer{}, Taken: read.Taken, Bytes: read.Bytes, Had: read.Had, Notes: read.Notes}
	for _, image := range read.Images {
		image.Name = x.fullName(names, image.Name)
		answer, err := in.Admit(ctx, admin.AdmitRequest{
			Ref: image.Name, Digest: image.Digest.String(), MediaType: image.MediaType, Size: image.Size, Confirmed: image.Confirmed, Since: image.Since, Decided: image.Decided, Pin: x.pin && !image.Refers,
		})
		switch {
		case adminclient.IsCode(err, "not_kept"):
			done.Refused = append(done.Refused, fmt.Sprintf("%s: its manifest is neither in the file nor here", image.Name))
		case adminclient.IsCode(err, "bad_content"):
			done.Refused = append(done.Refused, err.Error())
		case err != nil:
			return hinted(err)
		default:
			if d := image.Decided; d != nil && answer.Stays == "" {
				d.Elsewhere = true
				done.Notes = append(done.Notes, image.Name+" was "+d.String()+". The rules of this side say whether it answers")
			}
			done.Images = append(done.Images, *answer)
		}
	}
	if m := read.Manifest; m != nil && len(m.Assumed) > 0 && !read.Signed && done.lacks() {
		done.Notes = append(done.Notes, "it leaves out what this side has, and an image of a bundle that is not verified gets of that only what its own repository holds: sign it, and import it with --verify")
	}
	return x.tell(o, &done)
}

// lacks reports whether something of the images is missing.
func (i *imported) lacks() bool {
	return len(i.Refused) > 0 || slices.ContainsFunc(i.Images, func(a admin.AdmitAnswer) bool { return a.MissingCount > 0 })
}

// target is what takes the content of an archive, with the names that its images get.
type target struct {
	*adminclient.Import
	x     *importing
	names *wire.Registries
}

func (t target) Begin(ctx context.Context, images []bundle.Image, proof *bundle.Proof) error {
	named := slices.Clone(images)
	for i := range named {
		named[i].Name = t.x.fullName(t.names, named[i].Name)
	}
	return t.Import.Begin(ctx, named, proof)
}

// hinted says what can be done about a file that is not taken in.
func hinted(err error) error {
	var nameless *bundle.NamelessError
	switch {
	case adminclient.IsCode(err, "older"):
		return command.Hint(err, "If it is to be so, take it in with --allow-older, which moves its tags back.")
	case !errors.As(err, &nameless):
		return err
	case nameless.Tag != "":
		return command.Hint(err, "Name it with --as NAME.")
	}
	return command.Hint(err, "Name it with --as NAME:TAG.")
}

// keys reads the keys that must have signed.
func (x *importing) keys() ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for _, name := range x.verify {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, command.Usage(fmt.Errorf("--verify: %w", err))
		}
		some, err := bundle.ParsePublicKeys(text)
		if err != nil {
			return nil, command.Usage(fmt.Errorf("--verify: %q: %w", name, err))
		}
		keys = append(keys, some...)
	}
	return keys, nil
}

// read reads the files of an import.
func (x *importing) read(ctx context.Context, args []string, u bundle.Unpacking) (*bundle.Unpacked, error) {
	if len(args) == 1 {
		info, err := os.Stat(args[0])
		switch {
		case args[0] == "-":
			return x.readStream(ctx, os.Stdin, u)
		case err != nil || info.Mode().IsRegular(): // a file, or a name of volumes
		case info.IsDir():
			read, err := bundle.UnpackDir(ctx, args[0], u)
			return read, named(args[0], err)
		default: // a pipe, as the shell's <(…), or a tape
			f, err := os.Open(args[0])
			if err != nil {
				return nil, err
			}
			defer f.Close()
			read, err := x.readStream(ctx, f, u)
			return read, named(args[0], err)
		}
	}
	files, record, err := bundle.Find(args)
	if err != nil {
		return nil, err
	}
	if u.Signature, err = x.signatureOf(files[0], record); err != nil {
		return nil, err
	}
	f, err := bundle.OpenFiles(files)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	read, err := bundle.Unpack(ctx, f, u)
	if errors.Is(err, bundle.ErrFormat) || adminclient.IsCode(err, "bad_content") || errors.Is(err, upkeep.ErrContent) {
		if bad := damagedVolume(ctx, files, record); bad != nil {
			err = bad // it is the cause, and says which volume to copy again
		}
	}
	return read, named(files[0], err)
}

// readStream reads what comes once, and has nothing beside it.
func (x *importing) readStream(ctx context.Context, f *os.File, u bundle.Unpacking) (read *bundle.Unpacked, err error) {
	if x.signature != "" {
		if u.Signature, err = x.signatureOf("", nil); err != nil {
			return nil, err
		}
	}
	return bundle.Unpack(ctx, onlyReader{f}, u)
}

// onlyReader hides that a file could seek, as standard input from a file can.
type onlyReader struct{ r *os.File }

func (r onlyReader) Read(p []byte) (int, error) { return r.r.Read(p) }

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q: %w", name, err)
}

// damagedVolume returns the first volume that is not as it was written.
func damagedVolume(ctx context.Context, files []string, record *bundle.Volumes) error {
	if record == nil {
		return nil
	}
	for i, v := range record.Volumes {
		if i < len(files) {
			if err := bundle.CheckVolume(ctx, filepath.Dir(files[i]), v); err != nil {
				return err
			}
		}
	}
	return nil
}

// signatureOf returns the signature beside a bundle. One that is in it counts more.
func (x *importing) signatureOf(file string, record *bundle.Volumes) ([]byte, error) {
	if x.signature != "" {
		text, err := os.ReadFile(x.signature)
		if err != nil {
			return nil, command.Usage(fmt.Errorf("--signature: %w", err))
		}
		return text, nil
	}
	base := file
	if record != nil {
		base = filepath.Join(filepath.Dir(file), record.Name)
	}
	text, err := os.ReadFile(base + ".manifest.sig")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// fullName puts the registry before a name that says none.
func (x *importing) fullName(names *wire.Registries, name string) string {
	first, rest, several := strings.Cut(name, "/")
	switch {
	case x.registry == "":
		return name
	case several && first == "localhost" && names.Names[first] == "": // what podman and buildah call images of no registry
		return x.registry + "/" + rest
	case several && (strings.ContainsAny(first, ".:") || names.Names[strings.ToLower(first)] != ""):
		return name
	}
	return x.registry + "/" + name
}

// checkNames refuses names before anything is taken in that would be refused afterwards.
func (x *importing) checkNames(names *wire.Registries, images []bundle.Image) error {
	var faults []string
	for _, image := range images {
		image.Name = x.fullName(names, image.Name)
		if _, err := names.Reference(image.Name); err != nil {
			faults = append(faults, fmt.Sprintf("%s: %s", image.Name, err))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	text := strings.Join(faults[:min(len(faults), faultsShown)], "\n  ")
	if n := len(faults) - faultsShown; n > 0 {
		text += fmt.Sprintf("\n  and %d more", n)
	}
	return command.Hint(fmt.Errorf("no image is taken in, since names cannot be kept here:\n  %s", text),
		"Configure their registries (upstreams), or name them otherwise with --as or --registry.")
}

// tell says what came of an import.
func (x *importing) tell(o *adminclient.Client, done *imported) error {
	failed := len(done.Refused)
	for _, i := range done.Images {
		if i.PinError != "" {
			failed++
		}
	}
	var err error
	if o.AsJSON {
		err = terminal.WriteJSON(o.Stdout, done)
	} else {
		err = x.tellPeople(o, done)
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%s could not be taken in as wanted", terminal.Count(int64(failed), "image", "images"))
	}
	return err
}

func (x *importing) tellPeople(o *adminclient.Client, done *imported) error {
	t := terminal.NewTable(o.Stdout, "IMAGE", "DIGEST", "STATE")
	for _, i := range done.Images {
		t.Row(i.Ref, terminal.ShortDigest(i.Digest.Hash), importState(i))
	}
	if len(done.Images) > 0 {
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, i := range done.Images {
		if len(i.Omitted) > 0 {
			fmt.Fprintf(o.Stdout, "%s: here for %s; not for %s\n", terminal.Printable(i.Ref), terminal.OrDash(strings.Join(i.Platforms, ", ")), terminal.Printable(strings.Join(i.Omitted, ", ")))
		}
		if i.Stays != "" {
			fmt.Fprintf(o.Stderr, "%s stays at %s, which was confirmed later than what the file has\n", terminal.Printable(i.Ref), terminal.Printable(i.Stays))
		}
		if i.MissingCount > 0 {
			fmt.Fprintf(o.Stderr, "%s: still missing are %s, %s\n", terminal.Printable(i.Ref), terminal.Count(i.MissingCount, "blob", "blobs"), terminal.Bytes(i.MissingBytes))
		}
		if i.PinError != "" {
			fmt.Fprintf(o.Stderr, "%s is not pinned: %s\n", terminal.Printable(i.Ref), terminal.Printable(i.PinError))
		}
	}
	for _, text := range done.Refused {
		fmt.Fprintf(o.Stderr, "%s\n", terminal.Printable(text))
	}
	for _, text := range done.Notes {
		fmt.Fprintf(o.Stderr, "Note: %s.\n", terminal.Printable(text))
	}
	signed := ""
	if done.Signed {
		signed = ", signed by a key that was given"
	}
	_, err := fmt.Fprintf(o.Stdout, "%s%s: %s, %s came; %s here before\n", done.Kind, signed,
		terminal.Count(done.Taken, "blob", "blobs"), terminal.Bytes(done.Bytes), terminal.Count(done.Had, "was", "were"))
	return err
}

// importState is how an image stands after an import, in a few words.
func importState(i admin.AdmitAnswer) string {
	var words []string
	switch {
	case i.MissingCount > 0:
		words = append(words, "incomplete")
	default:
		words = append(words, "complete")
	}
	switch {
	case i.Before != "":
		words = append(words, "moved")
	case i.Stays != "":
		words = append(words, "tag not moved")
	}
	if i.Pinned {
		words = append(words, "pinned")
	}
	return strings.Join(words, ", ")
}
