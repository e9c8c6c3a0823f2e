package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// sign signs an image at the hub as cosign does by the tag scheme.
func sign(t *testing.T, hub *hubtest.Hub, repo string, digest string, key *ecdsa.PrivateKey) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	sum := sha256.Sum256(payload)
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	layer, config := hub.PutBlob(repo, payload), hub.PutBlob(repo, []byte("{}"))
	hub.PutManifest(repo, strings.Replace(digest, ":", "-", 1)+".sig", hubtest.OCIManifest, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":%q,"size":%d,"annotations":{"dev.cosignproject.cosign/signature":%q}}]}`,
		hubtest.OCIManifest, config, layer, len(payload), base64.StdEncoding.EncodeToString(sig)))
}

// newSigner returns a key of cosign, and the file with its public half.
func newSigner(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, write(t, "cosign.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

// Who asks by digest gets an index that is signed, its images and their blobs, and the signature; what nobody
// signed is refused, or served with digests: any.
func TestDigestsAreHeldToSignatures(t *testing.T) {
	key, public := newSigner(t)
	hub := hubtest.New(t, hubtest.Options{})
	whole := hub.PushImage("acme/app", "v1", hubtest.ImageSpec{Layers: 2, Platforms: []string{"linux/amd64", "linux/arm64"}})
	sign(t, hub, "acme/app", whole.Digest, key)
	stray := hub.PushImage("acme/app", "stray", hubtest.ImageSpec{Seed: 2})
	yaml := func(digests string) string {
		return fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q], tag_ttl: 0s}}\nsigners: [{name: acme, keys: [%q]}]\npolicies: [{name: prod, match: [\"acme/*\"], signed_by: [acme]%s}]\n",
			t.TempDir(), hub.RegistryURL(), public, digests)
	}
	s := start(t, yaml(""))
	given := func(kind, digest string) {
		t.Helper()
		if status, body := get(t, s.registry+"/v2/acme/app/"+kind+"/"+digest); status != 200 || hubtest.Digest([]byte(body)) != digest {
			t.Errorf("GET of %s %s = %d %.200s", kind, digest, status, body)
		}
	}
	for range 2 { // of a mirror that knows no tag
		for _, d := range whole.Manifests() {
			given("manifests", d.Digest)
		}
		for _, b := range whole.Blobs() {
			given("blobs", b.Digest)
		}
	}
	if status, body := get(t, s.registry+"/v2/acme/app/manifests/"+strings.Replace(whole.Digest, ":", "-", 1)+".sig"); status != 200 {
		t.Errorf("the signature by its tag = %d %s", status, body)
	} else {
		given("manifests", hubtest.Digest([]byte(body)))
	}
	counted := hub.ChargedTotal()
	for range 2 {
		if status, body := get(t, s.registry+"/v2/acme/app/manifests/"+stray.Digest); status != 403 || !strings.Contains(body, `"DENIED"`) || !strings.Contains(body, "policy prod: ") || !strings.Contains(body, "no signature was found") {
			t.Errorf("what nobody signed = %d %s, want 403 by rule prod", status, body)
		}
	}
	if n := hub.ChargedTotal() - counted; n != 1 {
		t.Errorf("the hub counted %d pulls of what nobody signed, want one", n)
	}
	s.stop()
	s = start(t, yaml(", digests: any"))
	given("manifests", stray.Digest)
	if status, body := get(t, s.registry+"/v2/acme/app/manifests/stray"); !strings.Contains(body, "policy prod: docker.io/acme/app:stray: it has no valid signature") {
		t.Errorf("what nobody signed, by tag with digests: any = %d %s, want that rule prod refuses it", status, body)
	}
}

// A tag that moves to what is not signed goes on at the last that is, for HEAD and GET; a signature is
// fetched once, and can be had through the mirror.
func TestATagGoesOnAtTheLastSignedDigest(t *testing.T) {
	key, public := newSigner(t)
	hub := hubtest.New(t, hubtest.Options{})
	yaml := fmt.Sprintf(`storage: {dir: %q}
upstreams: {docker.io: {endpoints: [%q], tag_ttl: 0s}}
signers: [{name: acme, keys: [%q]}]
policies: [{name: prod, match: ["acme/*"], signed_by: [acme]}]
`, t.TempDir(), hub.RegistryURL(), public)
	s := start(t, yaml)
	good := hub.PushImage("acme/app", "v1", hubtest.ImageSpec{Seed: 1})
	sign(t, hub, "acme/app", good.Digest, key)
	served := func(want string) {
		t.Helper()
		for range 3 {
			status, body := get(t, s.registry+"/v2/acme/app/manifests/v1")
			if status != 200 || hubtest.Digest([]byte(body)) != want {
				t.Fatalf("GET = %d %s, want %s", status, body, want)
			}
			res, err := http.Head(s.registry + "/v2/acme/app/manifests/v1")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Header.Get("Docker-Content-Digest"); res.StatusCode != 200 || got != want {
				t.Fatalf("HEAD = %d %s, want %s", res.StatusCode, got, want)
			}
		}
	}
	// Both ways of asking tell what the rule found, and have nothing verified for it.
	tells := func(want string) {
		t.Helper()
		code, out, stderr := execute(t, []string{"FOREBAY_ADMIN=" + s.admin}, "inspect", "acme/app:v1")
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("forebay inspect = %d, %s%s, want %q", code, out, stderr, want)
		}
	}
	served(good.Digest)
	tells("verified by rule prod: acme: ")
	tag := strings.Replace(good.Digest, ":", "-", 1) + ".sig"
	if n := hub.ChargedTotal(); n != 2 {
		t.Errorf("the hub counted %d pulls, want the image and its signature", n)
	}
	if status, body := get(t, s.registry+"/v2/acme/app/manifests/"+tag); status != 200 {
		t.Errorf("the signature through the mirror = %d %s", status, body)
	}
	bad := hub.PushImage("acme/app", "v1", hubtest.ImageSpec{Seed: 2})
	served(good.Digest)
	tells("refused by rule prod: no signature was found")
	hub.PushImage("acme/never", "v1", hubtest.ImageSpec{})
	if _, body := get(t, s.registry+"/v2/acme/never/manifests/v1"); !strings.Contains(body, "policy prod: docker.io/acme/never:v1: it has no valid signature: no signature was found") {
		t.Errorf("what was never signed = %s, want that rule prod does not allow it", body)
	}
	s.stop()
	sign(t, hub, "acme/app", bad.Digest, key)
	s = start(t, yaml) // else it would be looked at again after a minute
	tells("unknown by rule prod: nobody has pulled it since the start")
	served(bad.Digest)
	tells("verified by rule prod: acme: ")
}

func TestSignersThatCannotWork(t *testing.T) {
	for yaml, want := range map[string]string{
		"signers: [{name: x}]":                                        "needs one of keys, issuer with subject, and notation",
		"signers: [{name: x, keys: [a], notation: b}]":                "needs one of keys",
		"signers: [{name: x, keys: [/none]}]":                         "signers[1]: signer x: open /none",
		"signers: [{name: x, issuer: i, subject: s}]":                 "needs a trusted_root",
		"policies: [{name: p, signed_by: [y]}]":                       "signed_by names y, which is not among signers",
		"signers: [{name: x, notation: /a}, {name: x, notation: /a}]": "x is there twice",
	} {
		code, _, stderr := execute(t, nil, "config", "check", write(t, "forebay.yaml", yaml))
		if code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("with %q: %d %q, want %q", yaml, code, stderr, want)
		}
	}
}
