package hubtest

import (
	"io"
	"net/http"
	"testing"
)

func TestPullOfAWholeImage(t *testing.T) {
	for name, o := range map[string]Options{
		"loopback":        {},
		"tls":             {TLS: true},
		"named":           {Named: true},
		"http2":           {Named: true, HTTP2: true},
		"memory":          {InMemory: true},
		"named in memory": {Named: true, InMemory: true},
	} {
		t.Run(name, func(t *testing.T) {
			hub := New(t, o)
			img := hub.PushImage("library/alpine", "latest", ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64/v8"}, Attestations: true})
			p := newProbe(t, hub)
			token := p.token("library/alpine")
			for _, d := range img.Manifests() {
				a := p.pull("/v2/library/alpine/manifests/"+d.Digest, token)
				wantStatus(t, a, http.StatusOK)
				if got := Digest([]byte(a.body)); got != d.Digest {
					t.Errorf("manifest digest = %s, want %s", got, d.Digest)
				}
				if n := hub.ManifestGets(d.Digest); n != 1 {
					t.Errorf("ManifestGets(%s) = %d, want 1", d.Digest, n)
				}
			}
			for _, d := range img.Blobs() {
				a := p.do(http.MethodGet, p.location("library/alpine", d.Digest, token))
				wantStatus(t, a, http.StatusOK)
				if got := Digest([]byte(a.body)); got != d.Digest {
					t.Errorf("blob digest = %s, want %s", got, d.Digest)
				}
				if n := hub.BlobBytes(d.Digest); n != d.Size {
					t.Errorf("BlobBytes(%s) = %d, want %d", d.Digest, n, d.Size)
				}
			}
			if n, want := hub.ChargedTotal(), len(img.Manifests()); n != want {
				t.Errorf("ChargedTotal() = %d, want %d", n, want)
			}
			if n := hub.TokenRequests(); n != 1 {
				t.Errorf("TokenRequests() = %d, want 1", n)
			}
			hub.AssertClean(t)
		})
	}
}

func TestVirtualBlobIsSeekable(t *testing.T) {
	hub := New(t, Options{})
	const size = 1<<20 + 77
	digest := hub.PutVirtualBlob("library/big", 7, size)
	whole, err := io.ReadAll(VirtualReader(7, size))
	if err != nil {
		t.Fatal(err)
	}
	if got := Digest(whole); got != digest {
		t.Fatalf("digest of the reader = %s, want %s", got, digest)
	}
	p := newProbe(t, hub)
	at := p.location("library/big", digest, p.token("library/big"))
	for _, off := range []int64{0, 1, 15, 16, 17, 4096, size - 1} {
		v := virtual{7, size}
		r, err := v.open(t.Context(), off, size-off)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != string(whole[off:]) {
			t.Errorf("open(%d) differs from the whole (%v)", off, err)
		}
	}
	wantBody(t, p.do(http.MethodGet, at), string(whole))
}
