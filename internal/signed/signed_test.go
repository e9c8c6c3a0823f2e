package signed

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

// repository is a Source in memory, which counts what it is asked for.
type repository struct {
	manifests map[string][]byte // by tag and digest
	types     map[string]types.MediaType
	blobs     map[v1.Hash][]byte
	referrers map[v1.Hash][]v1.Descriptor
	asked     map[string]int
	fails     error
}

var errAbsent = errors.New("it is not there")

func newRepository() *repository {
	return &repository{map[string][]byte{}, map[string]types.MediaType{}, map[v1.Hash][]byte{}, map[v1.Hash][]v1.Descriptor{}, map[string]int{}, nil}
}

func (r *repository) Name() string          { return "registry.test/acme/app" }
func (r *repository) Absent(err error) bool { return errors.Is(err, errAbsent) }

func (r *repository) Manifest(_ context.Context, ref string) (v1.Descriptor, []byte, error) {
	r.asked["manifest"]++
	if r.fails != nil {
		return v1.Descriptor{}, nil, r.fails
	}
	b, ok := r.manifests[ref]
	if !ok {
		return v1.Descriptor{}, nil, errAbsent
	}
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash(b), Size: int64(len(b))}, b, nil
}

func (r *repository) Referrers(_ context.Context, d v1.Hash) ([]v1.Descriptor, error) {
	r.asked["referrers"]++
	return r.referrers[d], r.fails
}

func (r *repository) Blob(_ context.Context, desc v1.Descriptor) ([]byte, error) {
	r.asked["blob"]++
	if b, ok := r.blobs[desc.Digest]; ok && int64(len(b)) == desc.Size {
		return b, nil
	}
	return nil, errAbsent
}

func hash(b []byte) v1.Hash {
	s := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])}
}

// put puts a manifest with one layer there, and returns its descriptor.
func (r *repository) put(ref, artifactType string, layer v1.Descriptor, content []byte) v1.Descriptor {
	layer.Digest, layer.Size = hash(content), int64(len(content))
	r.blobs[layer.Digest] = content
	b, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": artifactType,
		"config": v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Size: 2, Digest: hash([]byte("{}"))},
		"layers": []v1.Descriptor{layer},
	})
	if err != nil {
		panic(err)
	}
	d := hash(b)
	r.manifests[d.String()] = b
	if ref != "" {
		r.manifests[ref] = b
	}
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: d, Size: int64(len(b)), ArtifactType: artifactType}
}

// image puts an image there that has no signature.
func (r *repository) image(seed string) v1.Descriptor {
	return r.put("", "", v1.Descriptor{MediaType: types.OCILayer}, []byte(seed))
}

// refer adds a signature among the referrers of an image.
func (r *repository) refer(image v1.Descriptor, artifactType, mediaType string, content []byte) {
	r.referrers[image.Digest] = append(r.referrers[image.Digest], r.put("", artifactType, v1.Descriptor{MediaType: types.MediaType(mediaType)}, content))
}

const bundle03 = bundleType + ".v0.3+json"

// attach adds a bundle.
func (r *repository) attach(t *testing.T, image v1.Descriptor, b *protobundle.Bundle) {
	t.Helper()
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	r.refer(image, bundle03, bundle03, text)
}

// statement is what cosign 3 signs, and of another predicate an attestation.
func statement(image v1.Descriptor, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, image.Digest.Hex, predicate)
}

// payload is what cosign signs before version 3.
func payload(image v1.Descriptor) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"registry.test/acme/app"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, image.Digest)
}

const intoto = "application/vnd.in-toto+json"

func pae(body []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(intoto), intoto, len(body), body)
}

func sign(t *testing.T, key *ecdsa.PrivateKey, b []byte) []byte {
	t.Helper()
	s := sha256.Sum256(b)
	sig, err := key.Sign(rand.Reader, s[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return key, file
}

// keyBundle is what cosign 3 makes with a key, without a log.
func keyBundle(t *testing.T, key *ecdsa.PrivateKey, body []byte) *protobundle.Bundle {
	t.Helper()
	return &protobundle.Bundle{
		MediaType: bundle03,
		VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: "any"}}},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: body, PayloadType: intoto,
			Signatures: []*protodsse.Signature{{Sig: sign(t, key, pae(body))}}}},
	}
}

// tagged adds a signature by the tag scheme, with more annotations.
func (r *repository) tagged(image v1.Descriptor, body, sig []byte, more map[string]string) {
	layer := v1.Descriptor{MediaType: simpleType, Annotations: map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(sig)}}
	for name, value := range more {
		layer.Annotations[name] = value
	}
	r.put("sha256-"+image.Digest.Hex+".sig", "", layer, body)
}

func newVerifier(t *testing.T, signers ...Signer) *Verifier {
	t.Helper()
	v, err := New(signers, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func verdict(t *testing.T, v *Verifier, r *repository, image v1.Descriptor) Verdict {
	t.Helper()
	var names []string
	for name := range v.signers {
		names = append(names, name)
	}
	return v.Verdict(t.Context(), r, image.Digest, names)
}

// expect fails unless a verdict is a signature by somebody, or not one because of something.
func expect(t *testing.T, got Verdict, by, why string) {
	t.Helper()
	if by != "" && (!got.Signed || !strings.Contains(got.By, by)) || by == "" && (got.Signed || !strings.Contains(got.Why, why)) {
		t.Errorf("verdict %+v, want signed by %q or not because of %q", got, by, why)
	}
}

func TestKeysOfCosign(t *testing.T) {
	key, file := newKey(t)
	other, _ := newKey(t)
	v := newVerifier(t, Signer{Name: "acme", Keys: []string{file}})
	for name, tt := range map[string]struct {
		add     func(r *repository, image v1.Descriptor)
		by, why string
	}{
		"none":           {func(*repository, v1.Descriptor) {}, "", "no signature was found"},
		"bundle":         {func(r *repository, i v1.Descriptor) { r.attach(t, i, keyBundle(t, key, statement(i, signPredicate))) }, "acme: cosign.pub", ""},
		"of another key": {func(r *repository, i v1.Descriptor) { r.attach(t, i, keyBundle(t, other, statement(i, signPredicate))) }, "", "do not match"},
		"of another image": {func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keyBundle(t, key, statement(r.image("x"), signPredicate)))
		}, "", "digest"},
		"an attestation": {func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keyBundle(t, key, statement(i, "https://slsa.dev/provenance/v1")))
		}, "", "attestation"},
		"tag":                {func(r *repository, i v1.Descriptor) { r.tagged(i, payload(i), sign(t, key, payload(i)), nil) }, "acme: cosign.pub", ""},
		"tag, another key":   {func(r *repository, i v1.Descriptor) { r.tagged(i, payload(i), sign(t, other, payload(i)), nil) }, "", "invalid signature"},
		"tag, another image": {func(r *repository, i v1.Descriptor) { o := payload(r.image("x")); r.tagged(i, o, sign(t, key, o), nil) }, "", "another image"},
		"tag, spoilt":        {func(r *repository, i v1.Descriptor) { r.tagged(i, payload(i), []byte("no signature"), nil) }, "", "signature"},
		"tag, none":          {func(r *repository, i v1.Descriptor) { r.tagged(i, payload(i), nil, nil) }, "", "no signature among its annotations"},
		"a referrer as before": {func(r *repository, i v1.Descriptor) {
			d := v1.Descriptor{MediaType: simpleType, Annotations: map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(sign(t, key, payload(i)))}}
			r.referrers[i.Digest] = append(r.referrers[i.Digest], r.put("", "application/vnd.dev.cosign.artifact.sig.v1+json", d, payload(i)))
		}, "acme: cosign.pub", ""},
		"of a type that is not told": {func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keyBundle(t, key, statement(i, signPredicate)))
			r.referrers[i.Digest][0].ArtifactType = "application/vnd.oci.empty.v1+json"
		}, "acme: cosign.pub", ""},
		"bad beside good": {func(r *repository, i v1.Descriptor) {
			r.refer(i, bundle03, bundle03, []byte("{"))
			r.attach(t, i, keyBundle(t, other, statement(i, signPredicate)))
			r.tagged(i, payload(i), sign(t, key, payload(i)), nil)
		}, "acme: cosign.pub", ""},
		"in another way": {func(r *repository, i v1.Descriptor) {
			r.refer(i, "application/vnd.cncf.notary.signature", jwsType, []byte("{}"))
		}, "", "nobody who is accepted signs in this way"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository()
			image := r.image(name) // verdicts are remembered
			tt.add(r, image)
			expect(t, verdict(t, v, r, image), tt.by, tt.why)
		})
	}
}

// What may not be a signature is not fetched, which might be counted; and no more than a few are.
func TestWhatIsLookedAtIsBounded(t *testing.T) {
	_, file := newKey(t)
	other, _ := newKey(t)
	v := newVerifier(t, Signer{Name: "acme", Keys: []string{file}})
	r := newRepository()
	image := r.image("app")
	for i := range 40 {
		r.refer(image, "application/spdx+json", "application/spdx+json", fmt.Appendf(nil, "sbom %d", i))
	}
	r.attach(t, image, keyBundle(t, other, statement(image, "https://slsa.dev/provenance/v1")))
	r.referrers[image.Digest][40].Annotations = map[string]string{"dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1"}
	expect(t, verdict(t, v, r, image), "", "no signature was found")
	if r.asked["manifest"] != 2 || r.asked["blob"] != 0 { // the image, and the tag
		t.Errorf("it asked for %v, want 2 manifests", r.asked)
	}
	for i := range 40 {
		r.attach(t, image, keyBundle(t, other, fmt.Appendf(nil, "%d", i)))
	}
	again := newVerifier(t, Signer{Name: "acme", Keys: []string{file}})
	expect(t, verdict(t, again, r, image), "", "none of its 24 signatures is accepted")
}

// A verdict is remembered: for ever if it is good, for a while if a signature may still come.
func TestVerdictsAreRemembered(t *testing.T) {
	key, file := newKey(t)
	v := newVerifier(t, Signer{Name: "acme", Keys: []string{file}})
	r := newRepository()
	image := r.image("app")
	first := verdict(t, v, r, image)
	asked := r.asked["manifest"]
	r.attach(t, image, keyBundle(t, key, statement(image, signPredicate)))
	if again := verdict(t, v, r, image); again != first || r.asked["manifest"] != asked || time.Until(first.Until) > againFirst {
		t.Errorf("verdict %+v after %+v, %d manifests; want the same within a minute, and %d", again, first, r.asked["manifest"], asked)
	}
	k := v.verdicts.Keys()[0]
	old, _ := v.verdicts.Get(k)
	old.Until = time.Now()
	v.verdicts.Add(k, old)
	expect(t, verdict(t, v, r, image), "acme", "")
	asked = r.asked["manifest"]
	if got := verdict(t, v, r, image); !got.Until.IsZero() || r.asked["manifest"] != asked {
		t.Errorf("verdict %+v, want one without an end, and nobody asked again", got)
	}
}

func TestWhatCannotBeLookedAtIsNotSigned(t *testing.T) {
	key, file := newKey(t)
	v := newVerifier(t, Signer{Name: "acme", Keys: []string{file}})
	r := newRepository()
	image := r.image("app")
	r.attach(t, image, keyBundle(t, key, statement(image, signPredicate)))
	r.fails = errors.New("the registry fails")
	if got := verdict(t, v, r, image); got.Signed || !got.Unknown || !strings.Contains(got.Why, "the registry fails") || got.Until.IsZero() {
		t.Errorf("verdict %+v, want that it is unknown", got)
	}
	clear(r.blobs)
	r.fails = nil
	if got := newVerifier(t, Signer{Name: "acme", Keys: []string{file}}).Verdict(t.Context(), r, image.Digest, []string{"acme"}); got.Signed || !got.Unknown {
		t.Errorf("verdict %+v without the blob, want that it is unknown", got)
	}
}

const issuer, subject = "https://issuer.test", "https://code.test/acme/app/.github/workflows/release.yml@refs/tags/v1"

// authority is a whole sigstore with authority, log and clock, and the file that says to trust it.
func authority(t *testing.T, logs bool) (*ca.VirtualSigstore, string) {
	t.Helper()
	s, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	rekor := s.RekorLogs()
	for id, log := range rekor {
		if log.ID, err = hex.DecodeString(id); err != nil {
			t.Fatal(err)
		}
	}
	if !logs {
		rekor = nil
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.FulcioCertificateAuthorities(), nil, s.TimestampingAuthorities(), rekor)
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "trusted_root.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, file
}

// keylessBundle is what cosign 3 makes without a key.
func keylessBundle(t *testing.T, s *ca.VirtualSigstore, who string, body []byte, at time.Time) *protobundle.Bundle {
	t.Helper()
	e, err := s.AttestAtTime(who, issuer, body, at, true)
	if err != nil {
		t.Fatal(err)
	}
	content, err := e.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	material, err := e.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := e.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(content.EnvelopeContent().RawEnvelope().Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	b := &protobundle.Bundle{
		MediaType: bundle03,
		VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{
			Certificate: &protocommon.X509Certificate{RawBytes: material.Certificate().Raw}}},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: body, PayloadType: intoto, Signatures: []*protodsse.Signature{{Sig: sig}}}},
	}
	for _, one := range entries {
		b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, whole(t, s, one))
	}
	return b
}

// whole returns an entry of a log with what the log itself would add.
func whole(t *testing.T, s *ca.VirtualSigstore, e *tlog.Entry) *protorekor.TransparencyLogEntry {
	t.Helper()
	entry := e.TransparencyLogEntry()
	var kind struct{ Kind, APIVersion string }
	if err := json.Unmarshal(entry.CanonicalizedBody, &kind); err != nil {
		t.Fatal(err)
	}
	promise, err := s.RekorSignPayload(tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(entry.CanonicalizedBody),
		IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex, LogID: hex.EncodeToString(entry.LogId.KeyId)})
	if err != nil {
		t.Fatal(err)
	}
	entry.KindVersion = &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion}
	entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	return entry
}

// keylessTag adds what cosign made without a key before version 3.
func (r *repository) keylessTag(t *testing.T, s *ca.VirtualSigstore, image v1.Descriptor, who string, at time.Time, without ...string) {
	t.Helper()
	body := payload(image)
	e, err := s.SignAtTimeWithVersion(who, issuer, body, at, "v0.1")
	if err != nil {
		t.Fatal(err)
	}
	content, _ := e.SignatureContent()
	material, _ := e.VerificationContent()
	entries, err := e.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	entry := whole(t, s, entries[0])
	log, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload":              map[string]any{"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(), "logIndex": entry.GetLogIndex(), "logID": hex.EncodeToString(entry.GetLogId().GetKeyId())},
	})
	if err != nil {
		t.Fatal(err)
	}
	stamps, err := e.Timestamps()
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := json.Marshal(map[string]any{"SignedRFC3161Timestamp": stamps[0]})
	if err != nil {
		t.Fatal(err)
	}
	more := map[string]string{
		annotationCertificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: material.Certificate().Raw})),
		annotationBundle:      string(log), annotationTimestamp: string(stamp),
	}
	for _, name := range without {
		delete(more, name)
	}
	r.tagged(image, body, content.Signature(), more)
}

func TestKeyless(t *testing.T) {
	s, file := authority(t, true)
	stranger, _ := authority(t, true)
	keyless := func(id Identity) *Verifier {
		return newVerifier(t, Signer{Name: "release", Identity: id, TrustedRoot: file})
	}
	release := Identity{Issuer: issuer, Subject: "https://code.test/acme/*/.github/workflows/release.yml@refs/tags/*"}
	now, later := time.Now(), time.Now().Add(30*time.Minute)
	for name, tt := range map[string]struct {
		id      Identity
		add     func(r *repository, image v1.Descriptor)
		by, why string
	}{
		"bundle": {release, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, subject, statement(i, signPredicate), now))
		}, "release: " + subject + " (" + issuer + ")", ""},
		"by an expression": {Identity{Issuer: issuer, SubjectRegexp: `https://code\.test/acme/.*`}, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, subject, statement(i, signPredicate), now))
		}, subject, ""},
		"an expression is of the whole": {Identity{Issuer: issuer, SubjectRegexp: `code\.test/acme`}, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, subject, statement(i, signPredicate), now))
		}, "", "identity"},
		"another subject": {release, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, strings.Replace(subject, "acme", "evil", 1), statement(i, signPredicate), now))
		}, "", "identity"},
		"another issuer": {Identity{Issuer: "https://other.test", Subject: "*"}, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, subject, statement(i, signPredicate), now))
		}, "", "issuer"},
		"another authority": {release, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, stranger, subject, statement(i, signPredicate), now))
		}, "", "log"},
		"expired": {release, func(r *repository, i v1.Descriptor) { // signed when the certificate did not hold any more
			r.attach(t, i, keylessBundle(t, s, subject, statement(i, signPredicate), later))
		}, "", "certificate"},
		"an attestation": {release, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, subject, statement(i, "https://slsa.dev/provenance/v1"), now))
		}, "", "attestation"},
		"another image": {release, func(r *repository, i v1.Descriptor) {
			r.attach(t, i, keylessBundle(t, s, subject, statement(r.image("x"), signPredicate), now))
		}, "", "digest"},
		"in no log": {release, func(r *repository, i v1.Descriptor) {
			b := keylessBundle(t, s, subject, statement(i, signPredicate), now)
			b.VerificationMaterial.TlogEntries = nil
			r.attach(t, i, b)
		}, "", "log"},
		"tag":              {release, func(r *repository, i v1.Descriptor) { r.keylessTag(t, s, i, subject, now) }, subject, ""},
		"tag, by log":      {release, func(r *repository, i v1.Descriptor) { r.keylessTag(t, s, i, subject, now, annotationTimestamp) }, subject, ""},
		"tag, no log":      {release, func(r *repository, i v1.Descriptor) { r.keylessTag(t, s, i, subject, now, annotationBundle) }, "", "log"},
		"tag, expired":     {release, func(r *repository, i v1.Descriptor) { r.keylessTag(t, s, i, subject, later) }, "", "certificate"},
		"tag, stranger":    {release, func(r *repository, i v1.Descriptor) { r.keylessTag(t, stranger, i, subject, now) }, "", "log"},
		"tag, no identity": {release, func(r *repository, i v1.Descriptor) { r.keylessTag(t, s, i, "evil@code.test", now) }, "", "identity"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository()
			image := r.image("app")
			tt.add(r, image)
			expect(t, verdict(t, keyless(tt.id), r, image), tt.by, tt.why)
		})
	}
}

// A sigstore of one's own may have a clock and no log; then what has neither is not accepted.
func TestKeylessByTimestampAlone(t *testing.T) {
	s, file := authority(t, false)
	v := newVerifier(t, Signer{Name: "release", Identity: Identity{Issuer: issuer, Subject: subject}, TrustedRoot: file})
	r := newRepository()
	stamped, bare := r.image("stamped"), r.image("bare")
	r.keylessTag(t, s, stamped, subject, time.Now(), annotationBundle)
	r.keylessTag(t, s, bare, subject, time.Now(), annotationBundle, annotationTimestamp)
	expect(t, verdict(t, v, r, stamped), subject, "")
	expect(t, verdict(t, v, r, bare), "", "timestamp")
}

// A key beside a trusted root accepts only what is in a log.
func TestKeysWithALog(t *testing.T) {
	_, root := authority(t, true)
	key, file := newKey(t)
	v := newVerifier(t, Signer{Name: "acme", Keys: []string{file}, TrustedRoot: root})
	r := newRepository()
	image := r.image("app")
	r.attach(t, image, keyBundle(t, key, statement(image, signPredicate)))
	expect(t, verdict(t, v, r, image), "", "log")
}

func TestSignersThatCannotWork(t *testing.T) {
	_, file := newKey(t)
	_, root := authority(t, true)
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]Signer{
		"needs one of keys":            {},
		"needs one of keys,":           {Keys: []string{file}, Notation: "/x"},
		"no such file":                 {Keys: []string{"/none"}},
		"no public key":                {Keys: []string{bad}},
		"needs an issuer":              {Identity: Identity{Subject: "x"}, TrustedRoot: root},
		"one of subject":               {Identity: Identity{Issuer: "x"}, TrustedRoot: root},
		"needs a trusted_root":         {Identity: Identity{Issuer: "x", Subject: "x"}},
		"trusted root":                 {Identity: Identity{Issuer: "x", Subject: "x"}, TrustedRoot: bad},
		"subject:":                     {Identity: Identity{Issuer: "x", SubjectRegexp: "("}, TrustedRoot: root},
		"open /none/trustpolicy.json:": {Notation: "/none"},
	} {
		s.Name = "x"
		if _, err := New([]Signer{s}, http.DefaultClient); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) = %v, want %q", s, err, want)
		}
	}
}
