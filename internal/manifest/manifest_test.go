package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// digest returns a digest that begins with a letter, for tests to read.
func digest(name string) string { return "sha256:" + strings.Repeat(name, 64) }

// world is manifests by their digest.
type world map[string]string

func (w world) documents(n Node) (*Document, error) {
	doc, _ := Parse([]byte(w[n.Digest.String()]))
	return doc, nil
}

// image is a manifest with a configuration and layers.
func image(config string, layers ...string) string {
	var all []string
	for _, l := range layers {
		all = append(all, fmt.Sprintf(`{"digest":%q,"size":1}`, digest(l)))
	}
	return fmt.Sprintf(`{"config":{"digest":%q,"size":2},"layers":[%s]}`, digest(config), strings.Join(all, ","))
}

// trail is what a walk tells, in order.
func trail(w world, walk Walk, root string) (told []string, err error) {
	short := func(d v1.Hash) string { return d.Hex[:1] }
	if walk.Manifest == nil {
		walk.Manifest = func(n Node) (*Document, error) {
			told = append(told, fmt.Sprintf("%s at %d", short(n.Digest), n.Depth))
			return w.documents(n)
		}
	}
	walk.Blob = func(n Node, b Blob) error {
		told = append(told, fmt.Sprintf("%s %s of %s", b.Role, short(b.Digest), short(n.Digest)))
		return nil
	}
	err = walk.Run(Descriptor{Digest: digest(root)})
	return told, err
}

func TestWalkTellsOfEachThingOnce(t *testing.T) {
	w := world{
		digest("a"): fmt.Sprintf(`{"manifests":[
			{"digest":%q,"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":%q}},
			{"digest":%q,"platform":{"os":"linux","architecture":"amd64"}},
			{"digest":%q,"platform":{"os":"linux","architecture":"arm64"}},
			{"digest":"sha256:short"}]}`, digest("f"), digest("b"), digest("b"), digest("c")),
		digest("b"): image("1", "2", "3"),
		digest("c"): image("4", "2"),
		digest("f"): image("5"),
	}
	got, err := trail(w, Walk{}, "a")
	want := []string{
		"a at 0", "b at 1", "config 1 of b", "layer 2 of b", "layer 3 of b", "c at 1", "config 4 of c",
		"f at 1", "config 5 of f", // what attests comes last, whatever the index says
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Run = %v, told (-want +got):\n%s", err, diff)
	}
	got, _ = trail(w, Walk{Child: func(c Descriptor, _ bool) (bool, error) { return c.Name() == "linux/arm64", nil }}, "a")
	if diff := cmp.Diff([]string{"a at 0", "c at 1", "config 4 of c", "layer 2 of c"}, got); diff != "" {
		t.Errorf("one platform (-want +got):\n%s", diff)
	}
}

func TestWalkGoesOnToReferrers(t *testing.T) {
	w := world{digest("a"): image("1"), digest("b"): image("2"), digest("c"): image("3")}
	refers := map[string]string{"a": "b", "b": "c", "c": "a"}
	got, err := trail(w, Walk{Referrers: func(n Node) ([]Descriptor, error) {
		return []Descriptor{{Digest: digest(refers[n.Digest.Hex[:1]])}}, nil
	}}, "a")
	want := []string{"a at 0", "config 1 of a", "b at 1", "config 2 of b", "c at 2", "config 3 of c"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Run = %v, told (-want +got):\n%s", err, diff)
	}
}

func TestWalkHasABound(t *testing.T) {
	w := world{}
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		next := string("bcdef"[i])
		w[digest(name)] = fmt.Sprintf(`{"manifests":[{"digest":%q},{"digest":%q}]}`, digest(next), digest("a"))
	}
	got, err := trail(w, Walk{}, "a")
	if diff := cmp.Diff([]string{"a at 0", "b at 1", "c at 2", "d at 3"}, got); diff != "" || err != nil {
		t.Errorf("Run = %v, told (-want +got):\n%s", err, diff)
	}
	sentinel := errors.New("no good")
	if _, err := trail(w, Walk{TooDeep: sentinel}, "a"); !errors.Is(err, sentinel) {
		t.Errorf("Run = %v of what is nested too deep, want %v", err, sentinel)
	}
	if got, _ := trail(w, Walk{Repeats: true}, "a"); len(got) != 15 {
		t.Errorf("%d manifests told of with repeats, want the 15 of four levels: %q", len(got), got)
	}
}

func TestWalkEndsAtAnError(t *testing.T) {
	w := world{digest("a"): fmt.Sprintf(`{"manifests":[{"digest":%q},{"digest":%q}]}`, digest("b"), digest("c")), digest("b"): image("1")}
	stop := errors.New("stop")
	for name, walk := range map[string]Walk{
		"manifest":  {Manifest: func(Node) (*Document, error) { return nil, stop }},
		"child":     {Child: func(Descriptor, bool) (bool, error) { return false, stop }},
		"referrers": {Referrers: func(Node) ([]Descriptor, error) { return nil, stop }},
	} {
		if _, err := trail(w, walk, "a"); !errors.Is(err, stop) {
			t.Errorf("%s: Run = %v, want %v", name, err, stop)
		}
	}
	seen := map[v1.Hash]bool{}
	first, _ := trail(w, Walk{Seen: seen}, "b")
	second, _ := trail(w, Walk{Seen: seen}, "a")
	if len(first) != 2 || cmp.Diff([]string{"a at 0", "c at 1"}, second) != "" {
		t.Errorf("two walks told of %q and %q, want the second to pass over what the first told", first, second)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(image("a", "b")))
	f.Add([]byte(`{"manifests":[{"digest":"` + digest("a") + `","platform":{"os":"linux"}}],"subject":{"digest":"x"}}`))
	f.Add([]byte(`{"fsLayers":[{"blobSum":"` + digest("c") + `"}]}`))
	f.Add([]byte(`{"blobs":[{"digest":"` + digest("c") + `","urls":["x"]}],"layers":null}`))
	f.Add([]byte("\xef\xbb\xbf" + `{"mediaType":"application/vnd.oci.image.index.v1+json"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := Parse(b)
		if !ok {
			return
		}
		for _, blob := range m.Blobs() {
			if len(blob.Digest.Hex) < 64 {
				t.Errorf("digest %s is none", blob.Digest)
			}
		}
		if n := len(m.Refs()) + len(m.Invalid()); n > len(m.Manifests)*2+len(m.Layers)+len(m.Artifact)+len(m.FSLayers)+1 {
			t.Errorf("%d references out of %+v", n, m)
		}
		_ = m.Has([]string{"linux/amd64"})
	})
}

// Manifests come from registries, and from whoever pushed there.
func FuzzManifestParts(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:1"},"layers":[{"digest":"x","urls":["y"]}],"manifests":[{"platform":{"os":"linux"}}]}`))
	f.Add([]byte(`{"manifests":[{"platform":{"os":"\u001b[31m","architecture":"a,b"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}]}`))
	f.Add([]byte(`{"fsLayers":[{"blobSum":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}],"subject":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, ok := Parse(b)
		if !ok {
			return
		}
		for _, part := range doc.Blobs() {
			if _, err := wire.ParseDigest(part.Digest.String()); err != nil {
				t.Errorf("part %+v: %v", part, err)
			}
		}
		for _, name := range doc.platforms() {
			for _, r := range name {
				if r <= ' ' || r > '~' || r == ',' {
					t.Errorf("platform %q has %q", name, r)
				}
			}
		}
	})
}
