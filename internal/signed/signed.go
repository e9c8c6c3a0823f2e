// Package signed says whether an image bears a signature that somebody accepts: by whom, or why not.
//
// It promises to verify by sigstore-go and notation-go, offline but for what a trust policy of notation
// wants to know of revoked certificates, and never to take what it could not look at for signed. What it
// looks at comes from a [Source]; it keeps nothing but verdicts.
//
// It takes the signatures of cosign, as bundles among the referrers (since version 3) and by the tag
// scheme (before), and those of notation among the referrers.
package signed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"
)

// Signer is whose signatures are accepted: one of Keys, Identity with TrustedRoot, or Notation.
type Signer struct {
	Name string
	// Keys are PEM files with public keys of cosign. Without TrustedRoot nothing is asked of a transparency log;
	// with it, what they signed must be in one of its logs.
	Keys []string
	// Identity is of a certificate for one signing (keyless), by an authority of TrustedRoot.
	Identity Identity
	// TrustedRoot is a file: trusted_root.json of sigstore, which says whose authorities, logs and timestamps count.
	TrustedRoot string
	// Notation is a folder as notation's own: truststore/ and trustpolicy.json.
	Notation string
}

// Identity is whom a certificate is for. Issuer is compared as it is; one of the others is needed.
type Identity struct {
	Issuer        string // of the token by which the signer proved who it is: "https://token.actions.githubusercontent.com"
	Subject       string // pattern with *, ? and [sets]: "https://github.com/acme/*/.github/workflows/release.yml@refs/tags/*"
	SubjectRegexp string // of the whole subject
}

// Source gives what is to be looked at, of one repository.
type Source interface {
	// Name is that of the repository with its upstream: "docker.io/library/nginx".
	Name() string
	// Manifest returns a manifest by its tag or digest. An absent one is an error that Absent knows.
	Manifest(ctx context.Context, ref string) (v1.Descriptor, []byte, error)
	Referrers(ctx context.Context, d v1.Hash) ([]v1.Descriptor, error)
	// Blob returns a blob, whose size has been looked at.
	Blob(ctx context.Context, desc v1.Descriptor) ([]byte, error)
	// Absent reports whether an error says that something is not there.
	Absent(err error) bool
}

// Verdict is what is known of an image.
type Verdict struct {
	Signed bool
	By     string // who has signed it, as the signature says; with the name of the Signer in front
	Why    string // not
	// Unknown: it could not be found out.
	Unknown bool
	// Until is when it has to be looked at again; zero: never.
	Until time.Time
}

const (
	// signaturesMost are looked at of one image, and bytesMost of each: anybody who can push to the
	// repository can add some.
	signaturesMost = 24
	bytesMost      = 1 << 20
	// againFirst is when an image without an accepted signature is looked at again: who signs does so after the push.
	// It is doubled each time, up to againLast. againUnknown is when what could not be found out is.
	againFirst   = time.Minute
	againLast    = time.Hour
	againUnknown = time.Minute
	// verdictsMost bounds those that are remembered.
	verdictsMost = 8192
)

// Verifier verifies by a set of signers, which is not changed. Its methods may be called concurrently.
type Verifier struct {
	signers  map[string]method
	verdicts *lru.Cache[key, judged]
}

type key struct {
	repo    string
	digest  v1.Hash
	signers string
}

type judged struct {
	Verdict

	tries int
}

// method looks for signatures of one kind.
type method interface {
	// verify returns who has signed the image by one signature, or why it is not accepted, and until when it is.
	verify(ctx context.Context, image image, s found) (by string, until time.Time, err error)
	// takes reports whether a signature is of its kind.
	takes(s found) bool
}

// image is what is said to be signed.
type image struct {
	repo string
	desc v1.Descriptor
}

// found is a signature that was found: its bytes, and beside them the annotations of its layer (tag scheme).
type found struct {
	mediaType   string // of bytes
	bytes       []byte
	annotations map[string]string
}

// New reads keys, roots and policies. Revocation is asked by client, which decides where it may lead.
func New(signers []Signer, client *http.Client) (*Verifier, error) {
	verdicts, err := lru.New[key, judged](verdictsMost)
	if err != nil {
		panic(err) // only for a size below one
	}
	v := &Verifier{signers: map[string]method{}, verdicts: verdicts}
	for _, s := range signers {
		m, err := s.method(client)
		if err != nil {
			return nil, fmt.Errorf("signer %s: %w", s.Name, err)
		}
		v.signers[s.Name] = m
	}
	return v, nil
}

func (s *Signer) method(client *http.Client) (method, error) {
	given := 0
	for _, is := range []bool{len(s.Keys) > 0, s.Identity != Identity{}, s.Notation != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, errors.New("needs one of keys, issuer with a subject, and notation")
	case len(s.Keys) > 0:
		return newKeys(s)
	case s.Notation != "":
		return newNotation(s, client)
	}
	return newKeyless(s)
}

// Verdict says whether an image of src has a signature that one of the signers made. It is remembered
// for as long as it holds.
func (v *Verifier) Verdict(ctx context.Context, src Source, d v1.Hash, signers []string) Verdict {
	k := key{src.Name(), d, strings.Join(signers, "\x00")}
	known, ok := v.verdicts.Get(k)
	if ok && (known.Until.IsZero() || time.Now().Before(known.Until)) {
		return known.Verdict
	}
	now := judged{v.judge(ctx, src, d, signers), known.tries + 1}
	switch {
	case ctx.Err() != nil: // nobody waits for it any more, which says nothing of the image
		return now.Verdict
	case now.Signed:
	case now.Unknown:
		now.Until, now.tries = time.Now().Add(againUnknown), known.tries
	default:
		now.Until = time.Now().Add(min(againFirst<<min(known.tries, 10), againLast))
	}
	v.verdicts.Add(k, now)
	return now.Verdict
}

func (v *Verifier) judge(ctx context.Context, src Source, d v1.Hash, signers []string) Verdict {
	desc, _, err := src.Manifest(ctx, d.String())
	if err != nil {
		return Verdict{Unknown: true, Why: "the image cannot be looked at: " + err.Error()}
	}
	l := look{v: v, image: image{src.Name(), desc}, signers: signers}
	if err := find(ctx, src, desc, l.at); err != nil {
		return Verdict{Unknown: true, Why: "its signatures cannot be looked at: " + err.Error()}
	}
	switch {
	case l.verdict.Signed:
		return l.verdict
	case l.found == 0:
		return Verdict{Why: "no signature was found"}
	}
	return Verdict{Why: fmt.Sprintf("none of its %d signatures is accepted: %s", l.found, l.why)}
}

// look looks at the signatures of an image until one is accepted.
type look struct {
	v       *Verifier
	image   image
	signers []string
	found   int
	why     string // the first was not accepted
	verdict Verdict
}

// at looks at one signature, and reports whether to go on.
func (l *look) at(ctx context.Context, s found) bool {
	l.found++
	for _, name := range l.signers {
		m := l.v.signers[name]
		if m == nil || !m.takes(s) {
			continue
		}
		by, until, err := m.verify(ctx, l.image, s)
		if err == nil {
			l.verdict = Verdict{Signed: true, By: name + ": " + by, Until: until}
			return false
		}
		if l.why == "" {
			l.why = name + ": " + err.Error()
		}
	}
	if l.why == "" {
		l.why = "nobody who is accepted signs in this way (" + s.mediaType + ")"
	}
	return ctx.Err() == nil
}

// find calls at with the signatures of an image, until it returns false.
func find(ctx context.Context, src Source, image v1.Descriptor, at func(context.Context, found) bool) error {
	all, err := src.Referrers(ctx, image.Digest)
	if err != nil && !src.Absent(err) {
		return err
	}
	looked := 0
	for _, desc := range all {
		if !ofSignature(desc) {
			continue
		}
		if looked++; looked > signaturesMost {
			break
		}
		if more, err := each(ctx, src, desc.Digest.String(), at); err != nil || !more {
			return err
		}
	}
	if image.Digest.Algorithm != "sha256" {
		return nil // the tag scheme has no other
	}
	_, err = each(ctx, src, "sha256-"+image.Digest.Hex+".sig", at)
	if err != nil && src.Absent(err) {
		return nil
	}
	return err
}

// each calls at with the signatures in one manifest.
func each(ctx context.Context, src Source, ref string, at func(context.Context, found) bool) (more bool, err error) {
	_, b, err := src.Manifest(ctx, ref)
	if err != nil {
		return false, err
	}
	var m v1.Manifest // what is none has no layers, and no signature
	_ = json.Unmarshal(b, &m)
	for _, layer := range m.Layers[:min(len(m.Layers), signaturesMost)] {
		if !slices.Contains(mediaTypes(), string(layer.MediaType)) && !strings.HasPrefix(string(layer.MediaType), bundleType) || layer.Size > bytesMost {
			continue
		}
		content, err := src.Blob(ctx, layer)
		if err != nil {
			return false, err
		}
		if !at(ctx, found{string(layer.MediaType), content, layer.Annotations}) {
			return false, nil
		}
	}
	return true, nil
}

// The media types of signatures.
const (
	simpleType = "application/vnd.dev.cosign.simplesigning.v1+json" // what cosign signs before version 3
	bundleType = "application/vnd.dev.sigstore.bundle"              // with a version behind it
	jwsType    = "application/jose+json"                            // of notation, and the next
	coseType   = "application/cose"
)

func mediaTypes() []string { return []string{simpleType, jwsType, coseType} }

// ofSignature reports whether a referrer may be a signature, by what its descriptor says: others are
// SBOMs and the like, of which each would cost a request that may be counted. Some registries tell the
// type of the configuration, which says nothing.
func ofSignature(desc v1.Descriptor) bool {
	if what := desc.Annotations["dev.sigstore.bundle.predicateType"]; what != "" {
		return what == signPredicate
	}
	switch desc.ArtifactType {
	case "", "application/vnd.oci.empty.v1+json", "application/vnd.cncf.notary.signature", "application/vnd.dev.cosign.artifact.sig.v1+json":
		return true
	}
	return strings.HasPrefix(desc.ArtifactType, bundleType)
}

// simple is what cosign signs before version 3 (its SIGNATURE_SPEC).
type simple struct {
	Critical struct {
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

// names reports whether a simple signature is of an image.
func (s found) names(d v1.Hash) error {
	var p simple
	switch err := json.Unmarshal(s.bytes, &p); {
	case err != nil:
		return fmt.Errorf("it is no JSON: %w", err)
	case p.Critical.Type != "cosign container image signature":
		return fmt.Errorf("it is of the type %.60q", p.Critical.Type)
	case p.Critical.Image.Digest != d.String():
		return errors.New("it is of another image")
	}
	return nil
}
