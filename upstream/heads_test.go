package upstream

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

// check asks what a tag points to as the cache does: by HEAD, by GET where that does not tell, and
// by GET of the tag where what the HEAD named is not to be had.
func check(ctx context.Context, r *Registry, repo, tag string) (v1.Hash, error) {
	desc, err := r.Resolve(ctx, repo, tag)
	if pull.KindOf(err) == pull.Unsupported || pull.DetailOf(err) == pull.HeadOnly {
		desc, _, err = r.Manifest(ctx, repo, tag)
	}
	return desc.Digest, err
}

// fetched is check by a client who has what it names already, or fetches it.
func fetched(t *testing.T, r *Registry, repo, tag string, kept map[string]bool) string {
	t.Helper()
	d, err := check(t.Context(), r, repo, tag)
	if err == nil && !kept[d.String()] {
		if _, _, err = r.Manifest(t.Context(), repo, d.String()); err != nil {
			var desc v1.Descriptor
			desc, _, err = r.Manifest(t.Context(), repo, tag)
			d = desc.Digest
		}
	}
	if err != nil {
		t.Fatalf("check of %s:%s: %v", repo, tag, err)
	}
	kept[d.String()] = true
	return d.String()
}

func TestHeadThatCannotBeTrusted(t *testing.T) {
	other := "sha256:" + strings.Repeat("0", 64)
	for name, fault := range map[string]hubtest.Fault{
		"403":                     hubtest.HeadStatus(http.StatusForbidden),
		"404":                     hubtest.HeadStatus(http.StatusNotFound),
		"405":                     hubtest.HeadNotAllowed(),
		"304":                     hubtest.HeadStatus(http.StatusNotModified),
		"301 to nowhere":          hubtest.HeadStatus(http.StatusMovedPermanently),
		"400":                     hubtest.HeadStatus(http.StatusBadRequest),
		"401":                     hubtest.HeadUnauthorized(),
		"500":                     hubtest.HeadStatus(http.StatusInternalServerError),
		"501":                     hubtest.HeadStatus(http.StatusNotImplemented),
		"no digest":               hubtest.NoDigestHeader(),
		"no digest, no validator": hubtest.Both(hubtest.NoDigestHeader(), hubtest.Header("Etag", "")),
		"no length":               hubtest.RawCL(),
		"another digest":          hubtest.DigestHeader(other),
	} {
		t.Run(name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{NoCharge304: true})
			img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
			hub.PushImage(repoAlpine, "other", hubtest.ImageSpec{Seed: 3})
			rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifestTag, Method: http.MethodHead, Do: fault})
			kept := map[string]bool{}
			if got := fetched(t, r, repoAlpine, "latest", kept); got != img.Digest {
				t.Fatalf("the tag points to %s, want %s", got, img.Digest)
			}
			charged := hub.ChargedTotal()
			for range 3 {
				if got := fetched(t, r, repoAlpine, "latest", kept); got != img.Digest {
					t.Errorf("the tag points to %s, want %s", got, img.Digest)
				}
			}
			if n := hub.ChargedTotal() - charged; n != 0 {
				t.Errorf("3 further checks were counted as %d pulls, want none", n)
			}
			if _, err := check(t.Context(), r, repoAlpine, "missing"); name != "another digest" {
				wantKind(t, "check of a missing tag", err, pull.NotFound)
			}
			if rule.Fired() > 8 {
				t.Errorf("%d HEADs were tried", rule.Fired())
			}
			if name == "another digest" {
				return // which the registry moves with the tag
			}
			moved := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{Seed: 2})
			if got := fetched(t, r, repoAlpine, "latest", kept); got != moved.Digest {
				t.Errorf("the moved tag points to %s, want %s", got, moved.Digest)
			}
			rule.Remove()
			hub.Advance(2 * time.Hour)
			heads := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead})
			if got := fetched(t, r, repoAlpine, "latest", kept); got != moved.Digest {
				t.Errorf("when HEADs work the tag points to %s, want %s", got, moved.Digest)
			}
			if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Method: http.MethodHead}); n == heads {
				t.Error("after two hours no HEAD is tried")
			}
			hub.AssertClean(t)
		})
	}
}

// A HEAD without a length still tells by its digest whether a tag moved, of a registry without ETags.
func TestHeadWithADigestAlone(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifestTag, Method: http.MethodHead, Do: hubtest.Both(hubtest.RawCL(), hubtest.Header("Etag", ""))})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Method: http.MethodGet, When: bearer, Do: hubtest.Header("Etag", "")})
	kept := map[string]bool{}
	charged := 0
	for i := range 4 {
		if got := fetched(t, r, repoAlpine, "latest", kept); got != img.Digest {
			t.Fatalf("the tag points to %s, want %s", got, img.Digest)
		}
		if i == 0 {
			charged = hub.ChargedTotal()
		}
	}
	if n := hub.ChargedTotal() - charged; n != 0 {
		t.Errorf("3 further checks were counted as %d pulls, want none", n)
	}
	moved := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{Seed: 2})
	if got := fetched(t, r, repoAlpine, "latest", kept); got != moved.Digest {
		t.Errorf("the moved tag points to %s, want %s", got, moved.Digest)
	}
}

// TestListDigestWithAnImage: a registry names the digest of the list and sends the image.
func TestListDigestWithAnImage(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	list := hub.PushImage(repoAlpine, "", hubtest.ImageSpec{Seed: 2, Platforms: []string{"linux/amd64", "linux/arm64"}})
	moved := hub.PushImage(repoAlpine, "", hubtest.ImageSpec{Seed: 4})
	wrong := hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifestTag, When: bearer, Do: hubtest.DigestHeader(list.Digest)})
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifestDigest, Ref: list.Digest, Method: http.MethodGet, When: bearer, Do: hubtest.WrongBytes(img.Raw)})
	kept := map[string]bool{}
	if got := fetched(t, r, repoAlpine, "latest", kept); got != img.Digest {
		t.Fatalf("the tag points to %s, want %s", got, img.Digest)
	}
	gets := hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: http.MethodGet})
	if gets > 5 { // two of them without a token
		t.Errorf("the first pull took %d GETs", gets)
	}
	for range 3 {
		if got := fetched(t, r, repoAlpine, "latest", kept); got != img.Digest {
			t.Errorf("the tag points to %s, want %s", got, img.Digest)
		}
	}
	if n := hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Method: http.MethodGet}) - gets; n != 0 {
		t.Errorf("3 further checks took %d GETs, want none", n)
	}
	wrong.Remove()
	hub.MoveTag(repoAlpine, "latest", moved.Digest)
	if got := fetched(t, r, repoAlpine, "latest", kept); got != moved.Digest {
		t.Errorf("the moved tag points to %s, want %s", got, moved.Digest)
	}
}

// TestRegistryThatLagsIsNotHeldToIt: the HEAD knows of a tag's new digest before the GETs do.
func TestRegistryThatLagsIsNotHeldToIt(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	old := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	fresh := hub.PushImage(repoAlpine, "", hubtest.ImageSpec{Seed: 2})
	ahead := hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifestTag, Method: http.MethodHead, When: bearer, Do: hubtest.DigestHeader(fresh.Digest)})
	behind := hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifestDigest, Ref: fresh.Digest, When: bearer, Do: hubtest.Status(http.StatusNotFound)})
	kept := map[string]bool{}
	if got := fetched(t, r, repoAlpine, "latest", kept); got != old.Digest {
		t.Fatalf("the tag points to %s, want %s", got, old.Digest)
	}
	ahead.Remove()
	behind.Remove()
	hub.MoveTag(repoAlpine, "latest", fresh.Digest)
	hub.Advance(11 * time.Minute)
	if got := fetched(t, r, repoAlpine, "latest", kept); got != fresh.Digest {
		t.Errorf("11 minutes later the tag points to %s, want %s", got, fresh.Digest)
	}
}

// TestHeadOfAWorkingRepositoryIsBelieved: a missing tag costs one request where HEADs work.
func TestHeadOfAWorkingRepositoryIsBelieved(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	for _, ref := range []string{"latest", img.Digest} {
		if _, err := r.Resolve(t.Context(), repoAlpine, ref); err != nil {
			t.Fatal(err)
		}
	}
	for i, ref := range []string{"missing", digestOf("", []byte("missing")).String()} {
		_, err := r.Resolve(t.Context(), repoAlpine, ref)
		if e := wantKind(t, fmt.Sprintf("Resolve of missing reference %d", i), err, pull.NotFound); e.Detail != pull.NoDetail {
			t.Errorf("%v is not to be believed", e)
		}
	}
	if _, err := r.Resolve(t.Context(), "library/other", "latest"); pull.DetailOf(err) == pull.HeadOnly {
		t.Errorf("the refusal of a token is no word of a HEAD: %v", err)
	}
}

// TestHeadOfABlobThatLies: its size or digest cannot be that of the blob.
func TestHeadOfABlobThatLies(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{
		"length 0":       hubtest.RawCL("0"),
		"another digest": hubtest.DigestHeader("sha256:" + strings.Repeat("0", 64)),
	} {
		hub, r := newHub(t, hubtest.Options{Profile: hubtest.Plain})
		d, want := aBlob(t, hub)
		hub.AddRule(hubtest.Rule{Route: hubtest.RouteBlob, Method: http.MethodHead, Do: fault})
		if size, err := r.StatBlob(t.Context(), "library/alpine", d); err != nil || size != int64(len(want)) {
			t.Errorf("%s: StatBlob = %d, %v; want %d", name, size, err, len(want))
		}
	}
}
