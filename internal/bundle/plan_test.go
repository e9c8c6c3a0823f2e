package bundle

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func planned(t *testing.T, p *Plan, all ...Contents) *Packing {
	t.Helper()
	for _, c := range all {
		if err := p.Add(c); err != nil {
			t.Fatalf("Add(%s): %v", c.Name, err)
		}
	}
	out, err := p.Packing(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func some(text string) Blob { return blobOf([]byte(text)) }

func TestPlanHasEachThingOnceAndLeavesOutWhatTheOtherSideHas(t *testing.T) {
	base, config := some("base"), some("config")
	p := NewPlan(false)
	p.LeaveOut([]Blob{base, some("of no image")})
	out := planned(t, p,
		Contents{Image: Image{Name: "r/a:1", Digest: some("a").Digest}, Parts: []Part{{Blob: some("a"), Manifest: true}, {Blob: config}, {Blob: base}}},
		Contents{Image: Image{Name: "r/b:1", Digest: some("b").Digest}, Parts: []Part{{Blob: some("b"), Manifest: true}, {Blob: config}, {Blob: base}}},
	)
	want := Packing{
		Images:    []Image{{Name: "r/a:1", Digest: some("a").Digest}, {Name: "r/b:1", Digest: some("b").Digest}},
		Manifests: []Blob{some("a"), some("b")}, Blobs: []Blob{config}, Assumed: []Blob{base},
	}
	if diff := cmp.Diff(&want, out); diff != "" {
		t.Errorf("plan (-want +got)\n%s", diff)
	}
}

func TestPlanOfOneImageTwiceHasThePlatformsOfBoth(t *testing.T) {
	image := func(platform, left string) Contents {
		return Contents{Image: Image{Name: "r/a:1", Digest: some("a").Digest, Platforms: []string{platform}, Left: []string{left, "linux/arm"}}}
	}
	out := planned(t, NewPlan(false), image("linux/amd64", "linux/arm64"), image("linux/arm64", "linux/amd64"))
	want := []Image{{Name: "r/a:1", Digest: some("a").Digest, Platforms: []string{"linux/amd64", "linux/arm64"}, Left: []string{"linux/arm"}}}
	if diff := cmp.Diff(want, out.Images); diff != "" {
		t.Errorf("images (-want +got)\n%s", diff)
	}
}

func TestPlanNamesReferrersByTheRepositoryOfTheirImage(t *testing.T) {
	signature, sbom := some("signature"), some("sbom")
	out := planned(t, NewPlan(false), Contents{
		Image:     Image{Name: "localhost:5000/a@" + some("a").Digest.String()},
		Parts:     []Part{{Blob: signature, Manifest: true}},
		Referrers: []Referrer{{Blob: Blob{Digest: signature.Digest}}, {Blob: sbom, Tag: "sha256-00.sbom"}},
	})
	want := []Image{
		{Name: "localhost:5000/a@" + some("a").Digest.String()},
		{Name: "localhost:5000/a@" + signature.Digest.String(), Digest: signature.Digest, Size: signature.Size, Refers: true},
		{Name: "localhost:5000/a:sha256-00.sbom", Digest: sbom.Digest, Size: sbom.Size, Refers: true},
	}
	if diff := cmp.Diff(want, out.Images); diff != "" {
		t.Errorf("images (-want +got)\n%s", diff)
	}
}

func TestPlanForDockerLoadTakesOnePlatform(t *testing.T) {
	const index, manifest = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"
	parts := []Part{{Blob: some("index"), Manifest: true, MediaType: index}, {Blob: some("one"), Manifest: true, MediaType: manifest}}
	for name, c := range map[string]Contents{
		"none": {Image: Image{Name: "r/a:1"}, Parts: parts[:1]},
		"two":  {Image: Image{Name: "r/a:1", Platforms: []string{"linux/amd64", "linux/arm64"}}, Parts: parts},
	} {
		if err := NewPlan(true).Add(c); !errors.Is(err, ErrOnePlatform) {
			t.Errorf("Add of an image with %s = %v, want %v", name, err, ErrOnePlatform)
		}
	}
	p := NewPlan(true)
	if err := p.Add(Contents{Image: Image{Name: "r/a:1", Platforms: []string{"linux/amd64"}}, Parts: parts}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]v1.Hash{"r/a:1": some("one").Digest.Hash}, p.single); diff != "" {
		t.Errorf("manifests for docker load (-want +got)\n%s", diff)
	}
}
