package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/internal/wire"
	"forebay/upstream/heads"
)

// acceptManifests is sent for every manifest, whatever the client can take: Docker Hub
// and others convert or hide what a request does not list. "*/*" comes last, as containerd has
// it, for registries that hide what they do not know.
var acceptManifests = strings.Join(manifest.Types(), ", ")

// acceptable returns what is sent for the clients of ctx.
func acceptable(ctx context.Context) string {
	if more := pull.Accept(ctx); more != "" {
		return acceptManifests + ", " + more + ", */*"
	}
	return acceptManifests + ", */*"
}

// digestHeader names the digest of a manifest.
const digestHeader = "Docker-Content-Digest"

// Resolve asks what ref points to, by HEAD. The kind is pull.Unsupported when a HEAD does not
// give type, digest and size of a manifest: then only [Registry.Manifest] can tell. So it is
// with [pull.HeadOnly], with which the registry refuses a HEAD, or says that there is nothing.
func (r *Registry) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	a, want, err := r.manifestAsk(http.MethodHead, repo, ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	a.accept = acceptable(ctx)
	worth := r.heads.Worth(repo, a.what())
	if worth == heads.Useless {
		return r.unchanged(ctx, a, ref)
	}
	ans, err := r.doHeld(ctx, r.questions, a)
	if err != nil {
		var e *pull.Error
		if errors.As(err, &e) && headRefused(err) && (worth != heads.Good || e.Kind != pull.NotFound) {
			if e.Detail = pull.HeadOnly; a.login == nil { // else it may be the login that is refused
				r.heads.Silent(repo, ref, true)
			}
		}
		return v1.Descriptor{}, err
	}
	defer ans.Body.Close()
	desc, err := headDescriptor(ans, want)
	if err != nil {
		etag := ans.Header.Get("Etag")
		named, unnamed := wire.ParseDigest(ans.Header.Get(digestHeader))
		if was, desc := r.heads.Known(repo, ref); etag != "" && was == etag || unnamed == nil && desc.Digest == named {
			return desc, nil
		}
		r.heads.Silent(repo, ref, etag == "" && unnamed != nil)
		f := r.fail(a, pull.Unsupported, err)
		f.err.Status = ans.StatusCode
		return v1.Descriptor{}, f.err
	}
	r.heads.Learn(repo, a.what(), heads.Good)
	if !a.byDigest {
		if desc = r.heads.Named(repo, ref, desc); unconfirmed(ans.Header) {
			pull.MarkStale(&desc)
		}
	}
	return desc, nil
}

// what returns what a, for a manifest, names.
func (a *ask) what() heads.What {
	if a.byDigest {
		return heads.Digest
	}
	return heads.Tag
}

// errHeads: the HEADs of a repository have told nothing that a GET did not contradict.
var errHeads = errors.New("HEADs do not work in this repository")

// unchanged is Resolve where HEADs do not work: by a GET that brings nothing if ref is still
// what an earlier one brought (RFC 9110, 13.1.2).
func (r *Registry) unchanged(ctx context.Context, a *ask, ref string) (v1.Descriptor, error) {
	if etag, desc := r.heads.Known(a.repo, ref); etag != "" {
		a.method, a.unless = http.MethodGet, etag
		ans, err := r.doHeld(ctx, r.questions, a)
		if err != nil {
			return v1.Descriptor{}, err
		}
		ans.Body.Close()
		if ans.StatusCode == http.StatusNotModified {
			return desc, nil
		}
	}
	return v1.Descriptor{}, r.fail(a, pull.Unsupported, errHeads).err
}

// headDescriptor reads a manifest's descriptor from headers. want is the digest that was
// asked for, or zero.
func headDescriptor(ans *answer, want v1.Hash) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: types.MediaType(wire.MediaType(ans.Header.Get("Content-Type"))), Size: ans.ContentLength, Digest: want}
	named := ans.Header.Get(digestHeader)
	found, err := wire.ParseDigest(named)
	switch {
	case !manifest.IsType(desc.MediaType):
		return desc, fmt.Errorf("HEAD gives the content type %q", wire.Redact(string(desc.MediaType)))
	case desc.Size <= 0 || wire.ContentEncoding(ans.Header) != "":
		return desc, errors.New("HEAD gives no size")
	case want == v1.Hash{} && err != nil:
		return desc, errors.New("HEAD gives no usable digest")
	case want == v1.Hash{}:
		desc.Digest = found
	case err == nil && found.Algorithm == want.Algorithm && found != want:
		return desc, fmt.Errorf("HEAD gives the digest %s", found)
	}
	return desc, nil
}

// Manifest fetches the manifest ref by GET. Its bytes have the digest of the descriptor,
// which is ref when ref is a digest, and its media type is certain.
func (r *Registry) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	for w := r.limitWait(); ; {
		desc, body, err := r.manifestOnce(ctx, repo, ref)
		if err == nil || !w.sitOut(ctx, err) {
			return desc, body, err
		}
	}
}

// manifestOnce fetches a manifest, and once more if it comes damaged: then from another
// endpoint, if there is one.
func (r *Registry) manifestOnce(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeouts.Answer, errTooSlow)
	defer cancel() // a manifest is small: its body counts as part of the answer
	a, want, err := r.manifestAsk(http.MethodGet, repo, ref)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	a.accept = acceptable(ctx)
	for try := 1; ; try++ {
		p, err := r.fetch(ctx, a, manifest.MaxBytes)
		if err != nil {
			if want != (v1.Hash{}) && pull.KindOf(err) == pull.NotFound {
				r.heads.Missing(repo, want)
			}
			return v1.Descriptor{}, nil, err
		}
		desc, body, err := verified(p, want)
		if err == nil {
			r.heads.Got(repo, ref, a.what(), desc, p.header.Get("Etag"), false)
			if want == (v1.Hash{}) && unconfirmed(p.header) {
				pull.MarkStale(&desc)
			}
			return desc, body, nil
		}
		if !errors.Is(err, pull.ErrDigest) {
			f := r.broken(a, "%w", err)
			if f.err.Message = err.Error(); want != (v1.Hash{}) || p.header.Get(digestHeader) != "" {
				f.err.Detail = pull.Refused // its digest is right: no page of a proxy on the way
			}
			return v1.Descriptor{}, nil, f.err
		}
		named, _ := wire.ParseDigest(p.header.Get(digestHeader))
		switch {
		case try == 1 && !r.heads.IsMissing(repo, named):
			a.avoid = p.endpoint
			continue
		case want != (v1.Hash{}):
			r.heads.Missing(repo, want)
		case r.holds(ctx, repo, desc.Digest):
			r.log.Warn("registry names a wrong digest", logkey.Repository(repo), logkey.Reference(ref), logkey.Digest(desc.Digest))
			r.heads.Got(repo, ref, a.what(), desc, "", true)
			return desc, body, nil
		}
		return v1.Descriptor{}, nil, r.broken(a, "%w", err).err
	}
}

// holds reports whether the registry has a manifest of that digest. If so, the bytes are
// right and it was the header that was wrong.
func (r *Registry) holds(ctx context.Context, repo string, d v1.Hash) bool {
	_, err := r.Resolve(ctx, repo, d.String())
	if pull.KindOf(err) == pull.Unsupported || pull.DetailOf(err) == pull.HeadOnly {
		_, _, err = r.manifestOnce(ctx, repo, d.String())
	}
	return err == nil
}

func (r *Registry) manifestAsk(method, repo, ref string) (*ask, v1.Hash, error) {
	verb, separator := "get", ":"
	if method == http.MethodHead {
		verb = "head"
	}
	want, err := wire.ParseDigest(ref)
	if err == nil {
		separator = "@"
	}
	a := &ask{
		op: verb + " manifest " + repo + separator + ref, method: method, repo: repo,
		tail: "/manifests/" + ref, manifest: true, byDigest: err == nil,
	}
	if err := validRepo(repo); err != nil {
		return nil, want, r.broken(a, "%w", err).err
	}
	if want == (v1.Hash{}) && !wire.ValidTag(ref) {
		return nil, want, r.broken(a, "%q is neither a tag nor a digest", wire.Redact(ref)).err
	}
	return a, want, nil
}

func validRepo(repo string) error {
	if !wire.ValidRepository(repo) {
		return fmt.Errorf("%q is no repository name", wire.Redact(repo))
	}
	return nil
}

// verified checks a fetched manifest and describes it. Its digest must be want, else the one
// that the header names; without either it is computed. With a [pull.ErrDigest] come the
// descriptor and bytes that are right if the header is wrong.
func verified(p *page, want v1.Hash) (v1.Descriptor, []byte, error) {
	expect := want
	if want == (v1.Hash{}) {
		if named, err := wire.ParseDigest(p.header.Get(digestHeader)); err == nil {
			expect = named
		}
	}
	body := p.body
	digest := digestOf(expect.Algorithm, body)
	if expect != (v1.Hash{}) && digest != expect && digestOf(expect.Algorithm, p.raw) == expect {
		body, digest = p.raw, expect // Content-Encoding described what is stored, not the transfer
	}
	mediaType, err := manifest.TypeOf(p.header.Get("Content-Type"), body)
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(body))}
	if mediaType == types.DockerManifestSchema1Signed && expect != (v1.Hash{}) && digest != expect {
		return desc, body, errors.New("its digest leaves out the signatures of Docker's first schema: it cannot be kept by it")
	}
	if expect != (v1.Hash{}) && digest != expect {
		mismatch := fmt.Errorf("%w: got %s, want %s", pull.ErrDigest, digest, expect)
		return desc, body, errors.Join(mismatch, err)
	}
	return desc, body, err
}

// digestOf computes a digest; an empty algorithm means sha256.
func digestOf(algorithm string, b []byte) v1.Hash {
	d, err := sums.Of(cmp.Or(algorithm, "sha256"), b)
	if err != nil {
		panic(err) // [wire.ParseDigest] lets no other algorithm through
	}
	return d
}
