package admin

import (
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	media "github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/upkeep"
	"forebay/internal/bundle"
	"forebay/internal/wire"
)

// An import is several requests: what it brings, a thing at a time, and the images at the end.
// The keeper remembers which import has brought what, since only that is linked.

// movesContent reports whether the body of a request is content, whose size no bound on
// questions fits.
func movesContent(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, prefix+"/imports/")
	_, what, _ := strings.Cut(rest, "/")
	return ok && (what == "content" || strings.HasPrefix(what, "content/"))
}

// proofMost bounds the proof of a bundle: its manifest as JSON text, which is a little longer.
const proofMost = 2 * bundle.ManifestMost

func (a *API) beginImport(w http.ResponseWriter, r *http.Request) error {
	var in ImportRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	o := upkeep.ImportOptions{MayBeOlder: in.AllowOlder}
	if in.Signed != nil {
		var err error
		if o.Signed, err = in.Signed.check(); err != nil {
			return err
		}
	}
	i, err := a.keeper.Begin(o)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, Import{i.ID})
	return nil
}

// check verifies the signature, and returns what it is over.
func (s *SignedManifest) check() (*upkeep.Signed, error) {
	keys, err := bundle.ParsePublicKeys([]byte(s.Key))
	if err != nil {
		return nil, badRequest("key: %s", err)
	}
	key, err := bundle.Proof{Text: []byte(s.Manifest), Signature: []byte(s.Signature), Keys: keys}.Check()
	if err != nil {
		return nil, err
	}
	m, _, err := bundle.ReadManifest(strings.NewReader(s.Manifest))
	if err != nil {
		return nil, badRequest("manifest: %s", err)
	}
	return &upkeep.Signed{Key: bundle.Fingerprint(key), Made: m.Made, Vouched: each(m.Assumed, func(b bundle.Blob) v1.Hash { return b.Digest.Hash })}, nil
}

func (a *API) endImport(w http.ResponseWriter, r *http.Request) error {
	i, err := a.keeper.FindImport(r.PathValue("id"))
	if err != nil {
		return err
	}
	i.End()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// digestsMost bounds the digests of one question, so that they fit into its body.
const digestsMost = 400

// lacking answers which of the given digests the import has to bring.
func (a *API) lacking(w http.ResponseWriter, r *http.Request) error {
	i, err := a.keeper.FindImport(r.PathValue("id"))
	if err != nil {
		return err
	}
	var in LackingRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	if len(in.Digests) > digestsMost {
		return badRequest("%d digests are more than %d", len(in.Digests), digestsMost)
	}
	var repos []upkeep.Repo
	for _, name := range in.Refs {
		ref, err := a.registries().Reference(name)
		if err != nil {
			return err
		}
		repos = append(repos, repoOf(ref))
	}
	var all []v1.Hash
	for _, s := range in.Digests {
		d, err := wire.ParseDigest(s)
		if err != nil {
			return badRequest("%s", err)
		}
		all = append(all, d)
	}
	reply(w, http.StatusOK, DigestList{each(i.Lacking(repos, all), v1.Hash.String)})
	return nil
}

// takeIn takes content in: of a digest that the path names, or of one that is found out.
func (a *API) takeIn(w http.ResponseWriter, r *http.Request) error {
	i, err := a.keeper.FindImport(r.PathValue("id"))
	if err != nil {
		return err
	}
	if r.ContentLength < 0 {
		return &problem{http.StatusLengthRequired, "no_length", "the request must say its Content-Length"}
	}
	var out TakenIn
	if r.PathValue("digest") == "" {
		out.Digest.Hash, out.Had, err = i.TakeUnnamed(r.Context(), r.ContentLength, r.Body)
	} else if out.Digest.Hash, err = pathDigest(r); err == nil {
		out.Had, err = i.TakeIn(r.Context(), out.Digest.Hash, r.ContentLength, r.Body)
	}
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (a *API) admit(w http.ResponseWriter, r *http.Request) error {
	i, err := a.keeper.FindImport(r.PathValue("id"))
	if err != nil {
		return err
	}
	var in AdmitRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	ref, err := a.reference(in.Ref)
	if err != nil {
		return err
	}
	d, err := wire.ParseDigest(in.Digest)
	if err != nil {
		return badRequest("%s", err)
	}
	if err := in.Decided.Check(); err != nil {
		return badRequest("%s", err)
	}
	if ref.HasDigest() && ref.Digest != d {
		return badRequest("the name %s and the digest %s disagree", clip(in.Ref), d)
	}
	for _, at := range []*time.Time{&in.Confirmed, &in.Since} {
		if at.After(time.Now()) {
			*at = time.Time{} // the clock of another machine
		}
	}
	root := upkeep.Root{Repo: repoOf(ref), Tag: ref.Tag, Confirmed: in.Confirmed, Since: in.Since, Desc: v1.Descriptor{Digest: d, Size: in.Size, MediaType: media.MediaType(in.MediaType)}}
	ctx, cancel := a.changing(r, purgeTimeout)
	defer cancel()
	done, err := i.Admit(ctx, root)
	if err != nil {
		return err
	}
	if root.Tag != "" && done.Stays == "" && a.rules != nil {
		if err := a.rules.Note(root.Repo, root.Tag, d, in.Decided); err != nil {
			return err
		}
	}
	answer := admitAnswerOf(done)
	if in.Pin {
		_, err := a.keeper.Pin(ctx, root.Repo, root.Tag, d, nil)
		answer.Pinned = err == nil
		if err != nil {
			answer.PinError = err.Error()
		}
	}
	reply(w, http.StatusOK, answer)
	return nil
}
