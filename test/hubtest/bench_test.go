package hubtest

import (
	"io"
	"net/http"
	"testing"
)

func BenchmarkVirtualBlob(b *testing.B) {
	const size = 64 << 20
	buf := make([]byte, chunkBytes)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{VirtualReader(1, size)}, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCDN(b *testing.B) {
	const size = 64 << 20
	hub := New(b, Options{})
	digest := hub.PutVirtualBlob("library/a", 1, size)
	p := newProbe(b, hub)
	b.SetBytes(size)
	for b.Loop() {
		resp, err := p.client.Get(hub.SignedURL(RoleCF, digest))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil || n != size || resp.StatusCode != http.StatusOK {
			b.Fatalf("%d bytes, %v", n, err)
		}
		resp.Body.Close()
	}
}
