package carry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/manifest"
	"forebay/internal/terminal"
)

// uploadsMost are the blobs that go to the registry at once.
const uploadsMost = 4

// NewCopy returns forebay copy.
func NewCopy(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy [REF…] TO",
		Short: "Copy images from the mirror to a registry of one's own",
		Long: `Copies images with all that belongs to them, signatures included, from what the mirror
keeps to another registry. The registry that they came from is not asked, and may not have
them any more: see "forebay vanished".

TO is a registry with the beginning of names, such as registry.corp/mirror/: to it the
repository is added (docker.io/library/nginx:1.27 becomes registry.corp/mirror/library/nginx:1.27).
For a single image TO may be its whole name, with or without a tag.

What the registry has is not sent again, and what another of its repositories has by this
command is mounted. Bytes and digests stay as they are. Without --platform those platforms
are copied that somebody pulled; of a single one the image itself gets the tag, since most registries
take no index of which images are missing. Credentials are those of docker and podman
("docker login registry.corp").`,
		Example: `  forebay copy nginx:1.27 registry.corp/mirror/
  forebay copy ghcr.io/owner/app:v1 registry.corp/team/app
  forebay copy --pinned --platform all --fetch registry.corp/mirror/`,
		Args: cobra.MinimumNArgs(1),
	}
	x := exporting{format: formatOCI}
	flags := cmd.Flags()
	flags.StringArrayVarP(&x.files, "file", "f", nil, "file that names images: a list, Kubernetes or Compose YAML, a Dockerfile or a lock file; may be repeated, - for standard input")
	flags.StringArrayVar(&x.sets, "set", nil, "prefetch set of the server's configuration; may be repeated")
	flags.BoolVar(&x.pinned, "pinned", false, "all that is pinned")
	flags.StringSliceVar(&x.platforms, "platform", nil, "platform, such as linux/arm64; may be repeated; all for every platform")
	flags.BoolVar(&x.referrers, "referrers", true, "signatures, SBOMs and attestations that are kept, too")
	flags.BoolVar(&x.fetch, "fetch", false, "fetch what is missing first")
	plain := flags.Bool("plain-http", false, "speak HTTP without TLS to the registry; so it is with one on localhost")
	return adminclient.OnServerOrFolder(p, cmd, adminclient.MustExist, func(ctx context.Context, o *adminclient.Client, args []string) error {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		to, refs := args[len(args)-1], args[:len(args)-1]
		if len(refs) == 0 && len(x.files) == 0 && len(x.sets) == 0 && !x.pinned {
			return command.Usage(errors.New("no images are named: give their names before TO, files with -f, --set or --pinned"))
		}
		return copyAll(ctx, o, &x, refs, to, *plain)
	})
}

// copied says what became of an image.
type copied struct {
	Ref       string   `json:"ref"`
	To        string   `json:"to"`
	Digest    string   `json:"digest,omitempty"`
	Platforms []string `json:"platforms,omitempty"`
	Blobs     int      `json:"blobs"`      // that belong to it, manifests left out
	Sent      int64    `json:"sent"`       // of these: uploaded
	SentBytes int64    `json:"sent_bytes"` // bytes of these
	Referrers int      `json:"referrers,omitempty"`
	Error     string   `json:"error,omitempty"`
}

func copyAll(ctx context.Context, o *adminclient.Client, x *exporting, refs []string, to string, plain bool) error {
	wanted, err := x.wanted(ctx, o, refs)
	if err != nil {
		return err
	}
	var names []name.Tag
	for _, w := range wanted {
		n, err := destination(to, w, len(wanted) == 1, plain)
		if err != nil {
			return command.Usage(err)
		}
		names = append(names, n)
	}
	pusher, err := remote.NewPusher(remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("forebay/"+o.Version), remote.WithJobs(uploadsMost))
	if err != nil {
		return err
	}
	c := copier{client: o, pusher: pusher, sent: map[v1.Hash]name.Repository{}}
	list, failed, limited := []copied{}, 0, false
	for i, w := range wanted {
		done := copied{Ref: w.ref, To: names[i].Name()}
		content, err := x.contents(ctx, o, w)
		if err == nil {
			err = c.copy(ctx, content, names[i], &done)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			done.Error = err.Error()
			failed++
			limited = limited || isStatus(err, http.StatusTooManyRequests)
		}
		list = append(list, done)
		if o.AsJSON {
			continue
		}
		if err := tellCopied(o, &done); err != nil {
			return err
		}
	}
	if o.AsJSON {
		if err := terminal.WriteJSON(o.Stdout, struct {
			Images []copied `json:"images"`
		}{list}); err != nil {
			return err
		}
	}
	switch err := fmt.Errorf("%d of %s not copied", failed, terminal.Count(int64(len(list)), "image", "images")); {
	case failed == 0:
		return nil
	case limited:
		return command.Exit(command.ExitLimited, err)
	case failed < len(list):
		return command.Exit(command.ExitPartial, err)
	default:
		return err
	}
}

func tellCopied(o *adminclient.Client, done *copied) error {
	line := fmt.Sprintf("%s → %s: ", terminal.Printable(done.Ref), done.To)
	switch {
	case done.Error != "":
		line += terminal.Printable(done.Error)
	case done.Sent == 0:
		line += fmt.Sprintf("nothing was missing of %s", terminal.Count(int64(done.Blobs), "blob", "blobs"))
	default:
		line += fmt.Sprintf("%d of %s sent, %s", done.Sent, terminal.Count(int64(done.Blobs), "blob", "blobs"), terminal.Bytes(done.SentBytes))
	}
	if done.Referrers > 0 && done.Error == "" {
		line += ", " + terminal.Count(int64(done.Referrers), "referrer", "referrers")
	}
	_, err := fmt.Fprintln(o.Stdout, line)
	return err
}

// destination returns the name of an image in the other registry.
func destination(to string, w wantedImage, single, plain bool) (name.Tag, error) {
	var options []name.Option
	if plain {
		options = append(options, name.Insecure)
	}
	ref := w.ref
	if w.name != "" {
		ref = w.name
	}
	source, tag := ref, ""
	if i := strings.LastIndexByte(ref, '@'); i >= 0 { // which has no tag: the digest makes one
		source, tag = ref[:i], strings.ReplaceAll(ref[i+1:], ":", "-")
	} else if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		source, tag = ref[:i], ref[i+1:]
	}
	_, repository, _ := strings.Cut(source, "/")
	if !strings.Contains(to, "/") {
		to += "/"
	}
	switch named := strings.LastIndexByte(to, ':') > strings.LastIndexByte(to, '/'); {
	case strings.HasSuffix(to, "/"):
		to += repository + ":" + tag
	case !single:
		return name.Tag{}, fmt.Errorf("%s is the name of one image, and there are several: end it with a slash, to which their repositories are added", to)
	case !named:
		to += ":" + tag
	}
	n, err := name.NewTag(to, options...)
	if err != nil {
		return name.Tag{}, fmt.Errorf("%s cannot be the name of an image: %w", to, err)
	}
	if first, _, _ := strings.Cut(to, "/"); !strings.ContainsAny(first, ".:") && first != "localhost" {
		return name.Tag{}, fmt.Errorf("%s names no registry: begin it with one, such as registry.corp/", to)
	}
	return n, nil
}

// copier copies images to one registry.
type copier struct {
	client *adminclient.Client
	pusher *remote.Pusher

	mu   sync.Mutex
	sent map[v1.Hash]name.Repository // guarded by mu; where blobs are that were sent, or were there
}

// copy copies an image: first what it is made of, and its tag at last.
func (c *copier) copy(ctx context.Context, list *admin.Contents, to name.Tag, done *copied) error {
	done.Platforms, done.Referrers = list.Platforms, len(list.Referrers)
	var count, bytesSent atomic.Int64
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(uploadsMost)
	seen := map[v1.Hash]bool{}
	var manifests []admin.Part
	for _, p := range list.Parts {
		switch {
		case p.Role == "manifest":
			manifests = append(manifests, p)
		case !seen[p.Digest.Hash]:
			seen[p.Digest.Hash] = true
			group.Go(func() error {
				l := &blob{ctx: inner, client: c.client, part: p}
				if err := c.upload(inner, to.Context(), l); err != nil {
					return fmt.Errorf("blob %s: %w", p.Digest, err)
				}
				if n := l.read.Load(); n > 0 {
					count.Add(1)
					bytesSent.Add(n)
				}
				return nil
			})
		}
	}
	err := group.Wait()
	done.Blobs, done.Sent, done.SentBytes = len(seen), count.Load(), bytesSent.Load()
	if err != nil {
		return err
	}
	documents := map[v1.Hash]document{}
	for _, p := range manifests {
		b, err := c.bytes(ctx, p.Digest.Hash)
		if err != nil {
			return err
		}
		documents[p.Digest.Hash] = document{b, types.MediaType(p.MediaType), p.Digest.Hash}
	}
	top, ok := documents[list.Digest.Hash]
	if !ok {
		return fmt.Errorf("its manifest %s is not kept", list.Digest)
	}
	if only := alone(list, top, documents); only != nil {
		delete(documents, top.digest)
		top = *only
	}
	done.Digest = top.digest.String()
	slices.Reverse(manifests) // what is referred to goes before what refers to it
	for _, p := range manifests {
		if d, is := documents[p.Digest.Hash]; is && d.digest != top.digest {
			if err := c.put(ctx, to.Context().Digest(d.digest.String()), d); err != nil {
				return err
			}
		}
	}
	if err := c.put(ctx, to, top); err != nil {
		if len(list.Omitted) > 0 && isStatus(err, http.StatusBadRequest, http.StatusNotFound) {
			return fmt.Errorf("%w: the registry takes no index of which images are missing (%s): copy one --platform, or all with --fetch", err, strings.Join(list.Omitted, ", "))
		}
		return err
	}
	for _, r := range list.Referrers { // by the tag scheme
		if d, is := documents[r.Digest.Hash]; is && r.Tag != "" {
			if err := c.put(ctx, to.Context().Tag(r.Tag), d); err != nil {
				return err
			}
		}
	}
	return nil
}

// alone returns the image that is all there is of an index; nil for anything else.
func alone(list *admin.Contents, top document, documents map[v1.Hash]document) *document {
	if len(list.Omitted) == 0 || len(list.Platforms) != 1 {
		return nil
	}
	index, _ := manifest.Parse(top.bytes)
	for _, m := range index.Manifests {
		h, _ := m.Hash()
		if d, is := documents[h]; is && m.Name() == list.Platforms[0] {
			return &d
		}
	}
	return nil
}

// upload sends a blob that the repository does not have, or mounts it.
func (c *copier) upload(ctx context.Context, to name.Repository, l *blob) error {
	d := l.part.Digest.Hash
	c.mu.Lock()
	from, known := c.sent[d]
	c.mu.Unlock()
	var layer v1.Layer = l
	if known && from != to {
		layer = &remote.MountableLayer{Layer: l, Reference: from.Digest(d.String())}
	}
	if err := c.pusher.Upload(ctx, to, layer); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[d] = to
	return nil
}

// put sends a manifest, unless it is there by that name.
func (c *copier) put(ctx context.Context, to name.Reference, d document) error {
	if there, err := remote.Head(to, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err == nil && there.Digest == d.digest {
		return nil
	}
	if err := c.pusher.Put(ctx, to, d); err != nil {
		return fmt.Errorf("manifest %s: %w", to.Identifier(), err)
	}
	return nil
}

func (c *copier) bytes(ctx context.Context, d v1.Hash) ([]byte, error) {
	r, err := c.client.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, manifest.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if got, _, err := v1.SHA256(bytes.NewReader(b)); d.Algorithm == "sha256" && (err != nil || got != d) {
		return nil, fmt.Errorf("manifest %s came with another digest", d)
	}
	return b, nil
}

// document is a manifest as it is.
type document struct {
	bytes     []byte
	mediaType types.MediaType
	digest    v1.Hash
}

func (d document) RawManifest() ([]byte, error)        { return d.bytes, nil }
func (d document) MediaType() (types.MediaType, error) { return d.mediaType, nil }

// blob is a kept blob as what go-containerregistry sends. It is compared with its digest by the registry.
type blob struct {
	ctx    context.Context
	client *adminclient.Client
	part   admin.Part
	read   atomic.Int64
}

func (b *blob) Digest() (v1.Hash, error)             { return b.part.Digest.Hash, nil }
func (b *blob) DiffID() (v1.Hash, error)             { return b.part.Digest.Hash, nil } // which nobody asks for
func (b *blob) Size() (int64, error)                 { return b.part.Size, nil }
func (b *blob) MediaType() (types.MediaType, error)  { return types.MediaType(b.part.MediaType), nil }
func (b *blob) Uncompressed() (io.ReadCloser, error) { return b.Compressed() }
func (b *blob) Compressed() (io.ReadCloser, error) {
	r, err := b.client.Open(b.ctx, b.part.Digest.Hash)
	if err != nil {
		return nil, err
	}
	return &counted{r, &b.read}, nil
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// isStatus reports whether a registry answered one of these.
func isStatus(err error, status ...int) bool {
	var of *transport.Error
	return errors.As(err, &of) && slices.Contains(status, of.StatusCode)
}
