package upstream

import (
	"bytes"
	"testing"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

// TestM16EveryRegistry pulls a whole image from each kind of registry, again when all
// tokens have expired, and asks it for what is not there.
func TestM16EveryRegistry(t *testing.T) {
	profiles := []hubtest.Profile{
		hubtest.DockerHub, hubtest.Plain, hubtest.GHCR, hubtest.Quay, hubtest.GAR, hubtest.K8s,
		hubtest.ECR, hubtest.ECRPublic, hubtest.MCR, hubtest.ACR, hubtest.GitLab, hubtest.DHI,
	}
	for _, profile := range profiles {
		for _, anonymous := range []bool{true, false} {
			if anonymous && (profile == hubtest.ECR || profile == hubtest.DHI) {
				continue // nothing there is public
			}
			t.Run(string(profile)+" "+map[bool]string{true: "anonymous", false: "user"}[anonymous], func(t *testing.T) {
				hub := hubtest.New(t, hubtest.Options{Profile: profile})
				hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
				o := hubOptions(hub)
				if !anonymous {
					o = trusting(o, hub, "acme", "secret")
				}
				r := newRegistry(t, o)
				img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
				pullImage(t, hub, r, img)
				hub.ExpireTokens()
				pullImage(t, hub, r, img)
				// 401 of Hub, 403 or 401 of token servers, 404 of the rest: never a failure.
				_, _, err := r.Manifest(t.Context(), "acme/missing", "latest")
				if k := pull.KindOf(err); err == nil || (k != pull.Denied && k != pull.NotFound) {
					t.Errorf("Manifest of a missing repository: %v, want denied or not found", err)
				}
				_, _, err = r.Manifest(t.Context(), "acme/app", "missing")
				wantKind(t, "Manifest of a missing tag", err, pull.NotFound)
				_, err = r.StatBlob(t.Context(), "acme/app", digestOf("", []byte("missing")))
				wantKind(t, "StatBlob of a missing blob", err, pull.NotFound)
				hub.AssertClean(t)
			})
		}
	}
}

// pullImage reads everything of an image and compares it.
func pullImage(t *testing.T, hub *hubtest.Hub, r *Registry, img *hubtest.Image) {
	t.Helper()
	desc, err := r.Resolve(t.Context(), img.Repo, img.Tag)
	if err != nil || desc.Digest.String() != img.Digest || string(desc.MediaType) != img.MediaType || desc.Size != int64(len(img.Raw)) {
		t.Errorf("Resolve = %+v, %v; want %s", desc, err, img.Digest)
	}
	for _, m := range img.Manifests() {
		desc, raw, err := r.Manifest(t.Context(), img.Repo, m.Digest)
		if err != nil || desc.Digest.String() != m.Digest || !bytes.Equal(raw, hub.Bytes(m.Digest)) {
			t.Errorf("Manifest(%s) = %+v, %v", m.Digest, desc, err)
		}
	}
	for _, b := range img.Blobs() {
		d := digest(t, b.Digest)
		if size, err := r.StatBlob(t.Context(), img.Repo, d); err != nil || size != b.Size {
			t.Errorf("StatBlob(%s) = %d, %v; want %d", d, size, err, b.Size)
		}
		wantBlob(t, r, img.Repo, d, hub.Bytes(b.Digest))
		want := hub.Bytes(b.Digest)[1:]
		if body, got, err := readBlob(t.Context(), r, img.Repo, d, 1, -1); err != nil || !body.Ranged || !bytes.Equal(got, want) {
			t.Errorf("range of blob %s: %d bytes, %v; want %d", d, len(got), err, len(want))
		}
	}
	if tags, err := r.Tags(t.Context(), img.Repo); err != nil || len(tags) != 1 || tags[0] != img.Tag {
		t.Errorf("Tags = %q, %v; want [%s]", tags, err, img.Tag)
	}
	if list, err := r.Referrers(t.Context(), img.Repo, desc.Digest); err != nil || len(list) != 0 {
		t.Errorf("Referrers = %s, %v; want none", list, err)
	}
}
