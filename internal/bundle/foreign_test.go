package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
)

func TestArchiveOfDockerSave(t *testing.T) {
	layer, second := "layer one", strings.Repeat("layer two ", 1<<20) // more than is kept in memory
	var zipped bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(g, "third")
	_ = g.Close()
	config := fmt.Sprintf(`{"architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%s","%s","%s","%s"]}}`,
		blobOf([]byte(layer)).Digest, blobOf([]byte(second)).Digest, blobOf([]byte(layer)).Digest, blobOf([]byte("third")).Digest)
	text := tarOf(t,
		plain("aa/VERSION", "1.0"), plain("aa/json", "{}"), plain("aa/layer.tar", layer), plain("bb/layer.tar", second),
		entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "cc/layer.tar", Linkname: "../aa/layer.tar"}, ""},
		plain("dd.tar.gz", zipped.String()), plain("conf.json", config), plain("repositories", "{}"),
		plain("manifest.json", `[{"Config":"conf.json","RepoTags":["app:1","example.com/app:2"],"Layers":["aa/layer.tar","bb/layer.tar","cc/layer.tar","dd.tar.gz"]}]`))
	var first []Image
	for name, r := range map[string]io.Reader{"file": bytes.NewReader(text), "stream": struct{ io.Reader }{bytes.NewReader(text)}} {
		there := memory{}
		got, err := Unpack(t.Context(), r, Unpacking{Target: there})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Images) != 2 || got.Images[0].Name != "app:1" || got.Images[1].Name != "example.com/app:2" || len(got.Notes) == 0 {
			t.Errorf("%s: %+v", name, got)
		}
		if first == nil {
			first = got.Images
		}
		if diff := cmp.Diff(first, got.Images); diff != "" {
			t.Errorf("the same archive makes other images:\n%s", diff)
		}
		var m v1.Manifest
		if err := json.Unmarshal(there[got.Images[0].Digest.Hash], &m); err != nil || len(m.Layers) != 4 || m.Layers[0].Digest != m.Layers[2].Digest {
			t.Errorf("%s: manifest %+v, %v", name, m, err)
			continue
		}
		if string(m.Layers[0].MediaType) != "application/vnd.oci.image.layer.v1.tar" || string(m.Layers[3].MediaType) != "application/vnd.oci.image.layer.v1.tar+gzip" {
			t.Errorf("%s: media types %s, %s", name, m.Layers[0].MediaType, m.Layers[3].MediaType)
		}
		for _, l := range m.Layers {
			if int64(len(there[l.Digest])) != l.Size {
				t.Errorf("%s: layer %s is not there", name, l.Digest)
			}
		}
	}
	twice := tarOf(t, plain("l.tar", layer), plain("c.json", fmt.Sprintf(`{"rootfs":{"diff_ids":["%s"]}}`, blobOf([]byte(layer)).Digest)),
		plain("manifest.json", `[{"Config":"c.json","RepoTags":["a:1","a:1"],"Layers":["l.tar"]},{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]`))
	if got, err := Unpack(t.Context(), bytes.NewReader(twice), Unpacking{Target: memory{}}); err != nil || len(got.Images) != 1 {
		t.Errorf("one image twice = %+v, %v", got, err)
	}
	for name, manifest := range map[string]string{
		"lacks a layer":     `[{"Config":"conf.json","Layers":["aa/layer.tar"]}]`,
		"names nothing":     `[{"Config":"conf.json","Layers":["aa/layer.tar","bb/layer.tar","cc/layer.tar","gone"]}]`,
		"climbs":            `[{"Config":"../conf.json","Layers":[]}]`,
		"swaps layers":      `[{"Config":"conf.json","RepoTags":["a:1"],"Layers":["bb/layer.tar","aa/layer.tar","cc/layer.tar","dd.tar.gz"]}]`,
		"config is a layer": `[{"Config":"aa/layer.tar","Layers":[]}]`,
		"no JSON":           `[`,
		"nothing in it":     `[]`,
	} {
		bad := tarOf(t, plain("aa/layer.tar", layer), plain("bb/layer.tar", second), plain("cc/layer.tar", layer), plain("dd.tar.gz", zipped.String()),
			plain("conf.json", config), plain("manifest.json", manifest))
		if got, err := Unpack(t.Context(), bytes.NewReader(bad), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Unpack = %+v, %v, want ErrFormat", name, got, err)
		}
	}
	packed := tarOf(t, plain("layer.tar.xz", "\xfd7zXZ\x00"+strings.Repeat("x", 600)), plain("conf.json", fmt.Sprintf(`{"rootfs":{"diff_ids":["%s"]}}`, blobOf([]byte(layer)).Digest)),
		plain("manifest.json", `[{"Config":"conf.json","RepoTags":["a:1"],"Layers":["layer.tar.xz"]}]`))
	if _, err := Unpack(t.Context(), bytes.NewReader(packed), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "load the archive by docker load") {
		t.Errorf("a layer that is compressed by xz = %v", err)
	}
	loop := tarOf(t, entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "a/layer.tar", Linkname: "../b/layer.tar"}, ""},
		entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "b/layer.tar", Linkname: "../a/layer.tar"}, ""}, plain("manifest.json", `[{"Config":"a/layer.tar"}]`))
	if _, err := Unpack(t.Context(), bytes.NewReader(loop), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("a loop of links = %v", err)
	}
}

// The configuration says what its layers are without compression, and its name what it is itself.
func TestArchiveOfDockerSaveIsComparedWithItsConfiguration(t *testing.T) {
	for name, layer := range map[string]string{"small": "a layer", "large": strings.Repeat("a layer of much ", 1<<19)} {
		noise := make([]byte, len(layer)) // which stays as long when it is compressed
		_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
		layer += string(noise)
		zip := func(s string) string {
			var b bytes.Buffer
			g := gzip.NewWriter(&b)
			_, _ = io.WriteString(g, s)
			_ = g.Close()
			return b.String()
		}
		zst := func(s string) string {
			var b bytes.Buffer
			w, _ := Packed(&b)
			_, _ = io.WriteString(w, s)
			_ = w.Close()
			return b.String()
		}
		turned := func(s string) string { return s[:len(s)/2] + string(s[len(s)/2]^4) + s[len(s)/2+1:] }
		config := fmt.Sprintf(`{"config":{"Env":["A=B"]},"rootfs":{"type":"layers","diff_ids":["%s"]}}`, blobOf([]byte(layer)).Digest)
		named := blobOf([]byte(config)).Digest.Hex
		for _, tt := range []struct{ name, configName, config, layer, want string }{
			{"gzip", named + ".json", config, zip(layer), ""},
			{"zstd", "sha256:" + named, config, zst(layer), ""},
			{"gzip in two members", "config.json", config, zip(layer[:3]) + zip(layer[3:]), ""},
			{"gzip, a bit turned", "config.json", config, turned(zip(layer)), "holds "},
			{"zstd, a bit turned", "config.json", config, turned(zst(layer)), "holds "},
			{"gzip, cut", "config.json", config, zip(layer)[:len(zip(layer))-9], "holds damaged content"},
			{"another layer", "config.json", config, zip(layer + "x"), "holds " + blobOf([]byte(layer+"x")).Digest.String()},
			{"nothing", "config.json", config, "", "has the digest "},
			{"configuration changed", named + ".json", strings.Replace(config, "A=B", "A=C", 1), zip(layer), "is damaged, or was changed"},
			{"configuration changed, by crane", "sha256:" + named, strings.Replace(config, "A=B", "A=C", 1), zip(layer), "is damaged, or was changed"},
		} {
			text := tarOf(t, plain(tt.configName, tt.config), plain("l.tar.gz", tt.layer), plain("stray.gz", zip(layer)[:20]),
				plain("manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":["a:1"],"Layers":["l.tar.gz"]}]`, tt.configName)))
			got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: memory{}})
			if tt.want == "" && (err != nil || len(got.Images) != 1) || tt.want != "" && (!errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s, %s: Unpack = %+v, %v, want %q", name, tt.name, got, err, tt.want)
			}
		}
	}
}

func TestLayersOfArchivesInOddPlaces(t *testing.T) {
	var zipped bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(g, "a layer")
	_ = g.Close()
	for name, tt := range map[string]struct{ file, text, diff string }{
		"rules_oci of Bazel": {blobName(blobOf(zipped.Bytes()).Digest.Hash) + ".tar.gz", zipped.String(), "a layer"},
		"an empty layer":     {"aa/layer.tar", "", ""},
	} {
		config := fmt.Sprintf(`{"rootfs":{"type":"layers","diff_ids":["%s"]}}`, blobOf([]byte(tt.diff)).Digest)
		configName := blobName(blobOf([]byte(config)).Digest.Hash)
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, plain("manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":["a:1"],"Layers":[%q]}]`, configName, tt.file)),
			plain(configName, config), plain(tt.file, tt.text))), Unpacking{Target: there})
		if err != nil || len(got.Images) != 1 || len(got.Notes) != 1 {
			t.Errorf("%s: Unpack = %+v, %v", name, got, err)
		} else if layer, ok := there[blobOf([]byte(tt.text)).Digest.Hash]; !ok || string(layer) != tt.text {
			t.Errorf("%s: the layer did not come", name)
		}
	}
}

func TestNamesOfOtherTools(t *testing.T) {
	doc := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`
	other := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"subject":{}}`
	entry := func(text, annotations string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"annotations":{%s}}`, blobOf([]byte(text)).Digest, len(text), annotations)
	}
	refName, imageName := `"org.opencontainers.image.ref.name":`, `"io.containerd.image.name":`
	for _, tt := range []struct {
		name, entries, as string
		want              string // names, or a part of the error
	}{
		{"skopeo with a name", entry(doc, refName+`"quay.io/team/app:1"`), "", "quay.io/team/app:1"},
		{"skopeo with a tag", entry(doc, refName+`"v1"`), "", "only that it is \"v1\""},
		{"a tag and --as", entry(doc, refName+`"v1"`), "team/app", "team/app:v1"},
		{"a tag and --as with a tag", entry(doc, refName+`"v1"`), "host:5000/team/app:2", "host:5000/team/app:2"},
		{"a port and --as", entry(doc, refName+`"v1"`), "host:5000/team/app", "host:5000/team/app:v1"},
		{"no name", entry(doc, ""), "", "does not say what its image"},
		{"no name and --as", entry(doc, ""), "app:3", "app:3"},
		{"containerd", entry(doc, `"io.containerd.image.name":"docker.io/library/app:9",`+refName+`"9"`), "", "docker.io/library/app:9"},
		{"with a referrer", entry(doc, refName+`"app:1"`) + "," + entry(other, ""), "", "app:1 app@" + blobOf([]byte(other)).Digest.String()},
		{"tags and --as", entry(doc, refName+`"v1"`) + "," + entry(other, refName+`"v2"`), "team/app", "team/app:v1 team/app:v2"},
		{"tags and --as with a tag", entry(doc, refName+`"v1"`) + "," + entry(other, refName+`"v2"`), "team/app:3", "it holds 2 images"},
		{"a tag, a referrer and --as", entry(doc, refName+`"v1"`) + "," + entry(other, ""), "team/app", "team/app:v1 team/app@" + blobOf([]byte(other)).Digest.String()},
		{"a tag and a referrer", entry(doc, refName+`"v1"`) + "," + entry(other, ""), "", "only that it is \"v1\""},
		{"containerd's CRI", entry(doc, imageName+`"quay.io/a:1"`) + "," + entry(doc, imageName+`"quay.io/a@`+blobOf([]byte(doc)).Digest.String()+`"`) + "," +
			entry(doc, imageName+`"`+blobOf([]byte("config")).Digest.String()+`"`), "", "quay.io/a:1 quay.io/a@" + blobOf([]byte(doc)).Digest.String()},
		{"the id of an image alone", entry(doc, imageName+`"`+blobOf([]byte("config")).Digest.String()+`"`), "", "does not say what its image"},
		{"Hauler", entry(doc, refName+`"a:1"`) + "," + entry(other, refName+`"b:1"`) + "," + entry(other, refName+`"b:1","kind":"dev.cosignproject.cosign/sigs"`), "",
			"a:1 b:1"},
		{"Hauler, signed", entry(doc, refName+`"a:1","kind":"dev.hauler/image"`) + "," + entry(other, refName+`"a:1","kind":"dev.hauler/sigs"`), "",
			"a:1 a:sha256-" + blobOf([]byte(doc)).Digest.Hex + ".sig"},
		{"cosign save", entry(doc, `"kind":"dev.cosignproject.cosign/image"`) + "," + entry(other, `"kind":"dev.cosignproject.cosign/atts"`), "x/a:1",
			"x/a:1 x/a:sha256-" + blobOf([]byte(doc)).Digest.Hex + ".att"},
		{"cosign save without a name", entry(doc, `"kind":"dev.cosignproject.cosign/image"`) + "," + entry(other, `"kind":"dev.cosignproject.cosign/sigs"`), "", "does not say what its image " + blobOf([]byte(doc)).Digest.String()},
		{"a signature of nobody's", entry(doc, refName+`"a:1"`) + "," + entry(other, refName+`"b:1"`) + "," + entry(other, refName+`"c:1","kind":"x/sigs"`), "", "a:1 b:1"},
		{"two and --as", entry(doc, refName+`"a:1"`) + "," + entry(other, refName+`"b:1"`), "c:1", "it holds 2 images"},
		{"the same twice", entry(doc, refName+`"a:1"`) + "," + entry(doc, refName+`"a:1"`), "", "a:1"},
		{"one name for two", entry(doc, refName+`"a:1"`) + "," + entry(other, refName+`"a:1"`), "", "it names a:1 twice"},
		{"bad digest", `{"digest":"md5:00","size":1}`, "", "index.json"},
	} {
		text := tarOf(t, plain(layoutName, layoutText), plain(indexName, `{"manifests":[`+tt.entries+`]}`),
			plain(blobName(blobOf([]byte(doc)).Digest.Hash), doc), plain(blobName(blobOf([]byte(other)).Digest.Hash), other))
		got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: memory{}, As: tt.as})
		var names []string
		if err != nil {
			names = []string{err.Error()}
		} else {
			for _, i := range got.Images {
				names = append(names, i.Name)
			}
		}
		if s := strings.Join(names, " "); s != tt.want && (err == nil || !strings.Contains(s, tt.want)) {
			t.Errorf("%s: %s, want %s", tt.name, s, tt.want)
		}
	}
}

// go-containerregistry writes an index of platforms as index.json.
func TestIndexOfALayoutMayBeTheImage(t *testing.T) {
	doc, other := `{"layers":[]}`, `{"layers":[],"annotations":{}}`
	entry := func(text, platform string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d%s}`, blobOf([]byte(text)).Digest, len(text), platform)
	}
	amd, arm := `,"platform":{"os":"linux","architecture":"amd64"}`, `,"platform":{"os":"linux","architecture":"arm64"}`
	for entries, ok := range map[string]bool{
		entry(doc, amd) + "," + entry(other, arm): true,
		entry(doc, amd) + "," + entry(other, amd): false,
		entry(doc, amd) + "," + entry(other, ""):  false,
	} {
		index := `{"schemaVersion":2,"manifests":[` + entries + `]}`
		text := tarOf(t, plain(layoutName, layoutText), plain(indexName, index),
			plain(blobName(blobOf([]byte(doc)).Digest.Hash), doc), plain(blobName(blobOf([]byte(other)).Digest.Hash), other))
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: there, As: "app:1"})
		if !ok {
			if err == nil || !strings.Contains(err.Error(), "it holds 2 images") {
				t.Errorf("%s: Unpack = %+v, %v", entries, got, err)
			}
			continue
		}
		if err != nil || len(got.Images) != 1 || got.Images[0].Name != "app:1" || string(there[got.Images[0].Digest.Hash]) != index {
			t.Errorf("%s: Unpack = %+v, %v", entries, got, err)
		}
	}
}

func TestFolderOfAnOCILayout(t *testing.T) {
	here := memory{}
	text := archiveOf(t, image(here, appName, "one", "two"), here)
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(text))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		name := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	there := memory{}
	if got, err := UnpackDir(t.Context(), dir, Unpacking{Target: there}); err != nil || len(got.Images) != 1 || !maps.EqualFunc(here, there, bytes.Equal) {
		t.Errorf("UnpackDir = %+v, %v", got, err)
	}
	one := filepath.Join(dir, blobName(blobOf([]byte("one")).Digest.Hash))
	if err := errors.Join(os.Remove(one), os.Symlink("/etc/passwd", one)); err != nil {
		t.Fatal(err)
	}
	if _, err := UnpackDir(t.Context(), dir, Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("UnpackDir with a link = %v", err)
	}
	if _, err := UnpackDir(t.Context(), t.TempDir(), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("UnpackDir of an empty folder = %v", err)
	}
}
