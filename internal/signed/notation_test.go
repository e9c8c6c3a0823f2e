package signed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/signer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// notationCA is an authority that signs certificates, and says over HTTP which are revoked.
type notationCA struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	crl     *httptest.Server
	revoked []x509.RevocationListEntry
	fails   bool
}

func newNotationCA(t *testing.T) *notationCA {
	t.Helper()
	a := &notationCA{}
	a.crl = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if a.fails {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour), RevokedCertificateEntries: a.revoked,
		}, a.cert, a.key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(list)
	}))
	t.Cleanup(a.crl.Close)
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.cert = a.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root", Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Acme"}},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, a.key)
	return a
}

func (a *notationCA) issue(t *testing.T, c *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf returns a certificate that signs images, which ends at a time.
func (a *notationCA) leaf(t *testing.T, serial int64, name string, end time.Time) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return key, a.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name, Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Acme"}},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, CRLDistributionPoints: []string{a.crl.URL},
	}, key)
}

// folder is notation's own, which trusts the authority by a level.
func (a *notationCA) folder(t *testing.T, level string, override map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	store := filepath.Join(dir, "truststore", "x509", "ca", "acme")
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	verification := map[string]any{"level": level}
	if override != nil {
		verification["override"] = override
	}
	policy, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []map[string]any{{
		"name": "acme", "registryScopes": []string{"registry.test/acme/app"}, "signatureVerification": verification,
		"trustStores": []string{"ca:acme"}, "trustedIdentities": []string{"x509.subject: C=US, ST=WA, O=Acme, CN=release"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		filepath.Join(store, "root.pem"):       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}),
		filepath.Join(dir, "trustpolicy.json"): policy,
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// notate signs an image as notation does, and adds that among its referrers.
func (r *repository) notate(t *testing.T, image, signed v1.Descriptor, key *ecdsa.PrivateKey, chain []*x509.Certificate, o notation.SignerSignOptions) {
	t.Helper()
	s, err := signer.NewGenericSigner(key, chain)
	if err != nil {
		t.Fatal(err)
	}
	envelope, _, err := s.Sign(t.Context(), ocispec.Descriptor{MediaType: string(signed.MediaType), Digest: digest.Digest(signed.Digest.String()), Size: signed.Size}, o)
	if err != nil {
		t.Fatal(err)
	}
	r.refer(image, "application/vnd.cncf.notary.signature", o.SignatureMediaType, envelope)
}

func TestNotation(t *testing.T) {
	a, stranger := newNotationCA(t), newNotationCA(t)
	end := time.Now().Add(24 * time.Hour)
	key, cert := a.leaf(t, 2, "release", end)
	revokedKey, revoked := a.leaf(t, 3, "release", end)
	otherKey, other := a.leaf(t, 4, "somebody", end)
	strangeKey, strange := stranger.leaf(t, 2, "release", end)
	a.revoked = []x509.RevocationListEntry{{SerialNumber: revoked.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)}}
	strict, audit, skip := a.folder(t, "strict", nil), a.folder(t, "strict", map[string]string{"revocation": "skip"}), a.folder(t, "skip", nil)
	jws := notation.SignerSignOptions{SignatureMediaType: jwsType}
	for name, tt := range map[string]struct {
		folder  string
		add     func(r *repository, i v1.Descriptor)
		by, why string
	}{
		"good": {strict, func(r *repository, i v1.Descriptor) { r.notate(t, i, i, key, []*x509.Certificate{cert, a.cert}, jws) }, "CN=release", ""},
		"COSE": {strict, func(r *repository, i v1.Descriptor) {
			r.notate(t, i, i, key, []*x509.Certificate{cert, a.cert}, notation.SignerSignOptions{SignatureMediaType: coseType})
		}, "CN=release", ""},
		"missing": {strict, func(*repository, v1.Descriptor) {}, "", "no signature was found"},
		"revoked": {strict, func(r *repository, i v1.Descriptor) {
			r.notate(t, i, i, revokedKey, []*x509.Certificate{revoked, a.cert}, jws)
		}, "", "revoked"},
		"revoked, ignored": {audit, func(r *repository, i v1.Descriptor) {
			r.notate(t, i, i, revokedKey, []*x509.Certificate{revoked, a.cert}, jws)
		}, "CN=release", ""},
		"other identity": {strict, func(r *repository, i v1.Descriptor) {
			r.notate(t, i, i, otherKey, []*x509.Certificate{other, a.cert}, jws)
		}, "", "identit"},
		"other authority": {strict, func(r *repository, i v1.Descriptor) {
			r.notate(t, i, i, strangeKey, []*x509.Certificate{strange, stranger.cert}, jws)
		}, "", "any trusted certificate"},
		"other image": {strict, func(r *repository, i v1.Descriptor) {
			r.notate(t, i, r.image("x"), key, []*x509.Certificate{cert, a.cert}, jws)
		}, "", "mismatch"},
		"bad": {strict, func(r *repository, i v1.Descriptor) {
			r.refer(i, "application/vnd.cncf.notary.signature", jwsType, []byte("{}"))
		}, "", "none of its 1 signatures"},
		"nothing asked": {skip, func(r *repository, i v1.Descriptor) { r.notate(t, i, i, key, []*x509.Certificate{cert, a.cert}, jws) }, "", "verifies nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.folder == skip { // which must trust nobody
				rewrite(t, filepath.Join(skip, "trustpolicy.json"), `"trustStores":["ca:acme"],"trustedIdentities":["x509.subject: C=US, ST=WA, O=Acme, CN=release"]`, "")
			}
			v := newVerifier(t, Signer{Name: "notary", Notation: tt.folder})
			r := newRepository()
			image := r.image("app")
			tt.add(r, image)
			got := verdict(t, v, r, image)
			expect(t, got, tt.by, tt.why)
			if got.Signed && got.Until.IsZero() {
				t.Errorf("verdict %+v has no end, and its certificate has", got)
			}
		})
	}
}

// rewrite replaces a part of a file, with the comma before or behind it.
func rewrite(t *testing.T, name, old, by string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(b), ","+old, by), old+",", by)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A signature, or the certificate behind it, that has run out is none; before, its end is that of the verdict.
func TestNotationExpires(t *testing.T) {
	a := newNotationCA(t)
	end := time.Now().Add(24 * time.Hour)
	key, cert := a.leaf(t, 2, "release", end)
	v := newVerifier(t, Signer{Name: "notary", Notation: a.folder(t, "strict", nil)})
	r := newRepository()
	image := r.image("app")
	r.notate(t, image, image, key, []*x509.Certificate{cert, a.cert}, notation.SignerSignOptions{SignatureMediaType: jwsType, ExpiryDuration: 2 * time.Second})
	got := verdict(t, v, r, image)
	if !got.Signed || time.Until(got.Until) > 2*time.Second {
		t.Fatalf("verdict %+v, want signed for two seconds", got)
	}
	deadline := time.Now().Add(time.Minute)
	for got.Signed {
		if time.Now().After(deadline) {
			t.Fatalf("after its end the verdict is %+v", got)
		}
		<-time.After(100 * time.Millisecond)
		got = verdict(t, v, r, image)
	}
	expect(t, got, "", "expired")
}

// An authority that does not answer is no proof that a certificate is good: whether that counts is what the trust policy
// says of revocation. Once it answers, the signature counts.
func TestNotationWithoutWordOfRevocation(t *testing.T) {
	for action, by := range map[string]string{"": "", "enforce": "", "log": "CN=release", "skip": "CN=release"} {
		t.Run(action, func(t *testing.T) {
			a := newNotationCA(t)
			a.fails = true
			key, cert := a.leaf(t, 2, "release", time.Now().Add(24*time.Hour))
			override := map[string]string{"revocation": action}
			if action == "" {
				override = nil
			}
			v := newVerifier(t, Signer{Name: "notary", Notation: a.folder(t, "strict", override)})
			r := newRepository()
			image := r.image("app")
			r.notate(t, image, image, key, []*x509.Certificate{cert, a.cert}, notation.SignerSignOptions{SignatureMediaType: jwsType})
			why := ""
			if by == "" {
				why = "revocation"
			}
			expect(t, verdict(t, v, r, image), by, why)
			a.fails = false // what a verdict of before is kept for is over for another verifier
			expect(t, verdict(t, newVerifier(t, Signer{Name: "notary", Notation: a.folder(t, "strict", override)}), r, image), "CN=release", "")
		})
	}
}
