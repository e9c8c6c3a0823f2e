package upstream

import (
	"bytes"
	"testing"

	"forebay/test/hubtest"
)

func TestPullWholeImage(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	desc, err := r.Resolve(t.Context(), "library/alpine", "latest")
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	if desc.Digest.String() != img.Digest || string(desc.MediaType) != img.MediaType || desc.Size != int64(len(img.Raw)) {
		t.Errorf("Resolve = %+v, want %s %s %d", desc, img.Digest, img.MediaType, len(img.Raw))
	}
	for _, m := range img.Manifests() {
		got, raw, err := r.Manifest(t.Context(), "library/alpine", m.Digest)
		if err != nil {
			t.Fatalf("Manifest(%s): %v", m.Digest, err)
		}
		if got.Digest.String() != m.Digest || string(got.MediaType) != m.MediaType || !bytes.Equal(raw, hub.Bytes(m.Digest)) {
			t.Errorf("Manifest(%s) = %+v with %d bytes, want %+v", m.Digest, got, len(raw), m)
		}
	}
	for _, b := range img.Blobs() {
		d := digest(t, b.Digest)
		size, err := r.StatBlob(t.Context(), "library/alpine", d)
		if err != nil || size != b.Size {
			t.Errorf("StatBlob(%s) = %d, %v; want %d", d, size, err, b.Size)
		}
		wantBlob(t, r, "library/alpine", d, hub.Bytes(b.Digest))
	}
	tags, err := r.Tags(t.Context(), "library/alpine")
	if err != nil || len(tags) != 1 || tags[0] != "latest" {
		t.Errorf("Tags = %v, %v; want [latest]", tags, err)
	}
	list, err := r.Referrers(t.Context(), "library/alpine", desc.Digest)
	if err != nil || list == nil || len(list) != 0 {
		t.Errorf("Referrers = %v, %v; want an empty list", list, err)
	}
	hub.AssertClean(t)
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests, want 1", n)
	}
}
