package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// blob is content by its digest, ready to be pushed.
type blob struct {
	digest v1.Hash
	bytes  []byte
}

func newBlob(b []byte) blob {
	return blob{digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(b))}, bytes: b}
}

// layer is one layer, compressed.
type layer struct {
	blob
	diffID v1.Hash
	codec  codec
	notes  map[string]string // annotations
}

// codec is how a layer is compressed.
type codec uint8

const (
	gzipped codec = iota
	zstandard
)

// dialect is a family of media types.
type dialect uint8

const (
	docker dialect = iota
	oci
)

func (d dialect) manifest() types.MediaType {
	return pick(d, types.DockerManifestSchema2, types.OCIManifestSchema1)
}
func (d dialect) index() types.MediaType {
	return pick(d, types.DockerManifestList, types.OCIImageIndex)
}
func (d dialect) config() types.MediaType {
	return pick(d, types.DockerConfigJSON, types.OCIConfigJSON)
}

func (d dialect) layer(c codec) types.MediaType {
	if c == zstandard {
		return types.OCILayerZStd // Docker's own family has none
	}
	return pick(d, types.DockerLayer, types.OCILayer)
}

func pick(d dialect, ifDocker, ifOCI types.MediaType) types.MediaType {
	if d == docker {
		return ifDocker
	}
	return ifOCI
}

// image is a manifest or an index with all that belongs to it.
type image struct {
	blob                      // the manifest's or the index's own bytes
	mediaType types.MediaType // of bytes
	blobs     []blob          // config and layers, of all platforms, each once
	children  []image         // of an index
	says      string          // what it writes when it is run
}

// platformImage makes one runnable image. Running it checks the files of all
// layers against their sums and then writes a line with its name into a file below saysDir,
// which the runner mounts: what a container prints is copied by processes that clients do
// not all wait for.
func platformImage(d dialect, p v1.Platform, says string, layers []layer) (image, error) {
	greeting := fmt.Sprintf("forebay e2e %s %s", says, p.String())
	cfg := v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		Created: v1.Time{Time: epoch},
		Config: v1.Config{
			Entrypoint: []string{"/bin/busybox", "sh", "-c", "cd / && busybox cat /sums/* | busybox sha256sum -c -s && exec busybox echo \"$GREETING\" >" + saysDir + "/text"},
			Env:        []string{"PATH=/bin", "GREETING=" + greeting},
		},
		RootFS: v1.RootFS{Type: "layers"},
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: d.manifest()}
	img := image{mediaType: m.MediaType, says: greeting + "\n"}
	for _, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.diffID)
		cfg.History = append(cfg.History, v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "forebay e2e"})
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: d.layer(l.codec), Digest: l.digest, Size: int64(len(l.bytes)), Annotations: l.notes})
		img.blobs = append(img.blobs, l.blob)
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return image{}, err
	}
	config := newBlob(raw)
	img.blobs = append(img.blobs, config)
	m.Config = v1.Descriptor{MediaType: d.config(), Digest: config.digest, Size: int64(len(raw))}
	// Indented, since a mirror that writes JSON anew would change the digest.
	if raw, err = json.MarshalIndent(m, "", "   "); err != nil {
		return image{}, err
	}
	img.blob = newBlob(raw)
	return img, nil
}

// attestation makes the manifest that BuildKit adds to an index for an image: its
// only layer is a statement, which no runtime can unpack.
func attestation(of image) (image, error) {
	statement := newBlob([]byte(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v0.2","subject":[{"name":"e2e","digest":{"sha256":"` + of.digest.Hex + `"}}],"predicate":{}}`))
	config := newBlob([]byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["` + statement.digest.String() + `"]}}`))
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: config.digest, Size: int64(len(config.bytes))},
		Layers: []v1.Descriptor{{MediaType: "application/vnd.in-toto+json", Digest: statement.digest, Size: int64(len(statement.bytes))}},
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	return image{blob: newBlob(raw), mediaType: m.MediaType, blobs: []blob{config, statement}}, err
}

// indexImage joins images of several platforms. It runs as its first one.
func indexImage(d dialect, platforms []v1.Platform, children []image) (image, error) {
	idx := v1.IndexManifest{SchemaVersion: 2, MediaType: d.index()}
	img := image{mediaType: idx.MediaType, children: children, says: children[0].says}
	for n, c := range children {
		idx.Manifests = append(idx.Manifests, v1.Descriptor{
			MediaType: c.mediaType, Digest: c.digest, Size: int64(len(c.bytes)), Platform: &platforms[n],
		})
		for _, b := range c.blobs {
			if !slices.ContainsFunc(img.blobs, func(o blob) bool { return o.digest == b.digest }) {
				img.blobs = append(img.blobs, b)
			}
		}
	}
	raw, err := json.MarshalIndent(idx, "", "  ")
	if err != nil {
		return image{}, err
	}
	img.blob = newBlob(raw)
	return img, nil
}

// epoch is the time of every file and image, so that digests stay the same.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// files is the content of a layer: path below / to bytes.
type files map[string][]byte

// newLayer packs files, with a list of their sums at /sums/NAME.
func newLayer(name string, c codec, content files) (layer, error) {
	return packLayer(c, name, content, nil)
}

// baseLayer has busybox and the little that a container needs around it.
func baseLayer(name string, c codec) (layer, error) {
	busybox, err := os.ReadFile(debianProgram("busybox"))
	if err != nil {
		return layer{}, err
	}
	return packLayer(c, name, files{
		"bin/busybox": busybox,
		"etc/passwd":  []byte("root:x:0:0:root:/root:/bin/sh\n"),
		"etc/group":   []byte("root:x:0:\n"),
	}, map[string]string{"bin/sh": "busybox", "bin/cat": "busybox"})
}

// machineFiles takes files of this machine, in the order of their names, until
// they are maxBytes together.
func machineFiles(dir string, maxBytes int) (files, error) {
	content := make(files)
	left := maxBytes
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) > left {
			return err
		}
		left -= len(b)
		content["machine"+path] = b
		return nil
	})
	if err == nil && len(content) == 0 {
		err = fmt.Errorf("no files in %q", dir)
	}
	return content, err
}

// noise is bytes that do not compress, the same for the same seed.
func noise(seed byte, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{seed})
	r.Read(b) // never fails
	return b
}

// packLayer writes the archive in the order of the names.
func packLayer(c codec, name string, content files, links map[string]string) (layer, error) {
	var sums strings.Builder
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, path := range sorted(content) {
		if path != "etc/passwd" && path != "etc/group" { // runtimes may write them
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content[path]), path)
		}
		if err := addFile(w, path, content[path]); err != nil {
			return layer{}, err
		}
	}
	if err := addFile(w, "sums/"+name, []byte(sums.String())); err != nil {
		return layer{}, err
	}
	for _, path := range sorted(links) {
		h := &tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: links[path], Mode: 0o777, ModTime: epoch}
		if err := w.WriteHeader(h); err != nil {
			return layer{}, err
		}
	}
	if err := w.Close(); err != nil {
		return layer{}, err
	}
	packed, err := compress(c, archive.Bytes())
	if err != nil {
		return layer{}, err
	}
	return layer{blob: newBlob(packed), diffID: newBlob(archive.Bytes()).digest, codec: c}, nil
}

func addFile(w *tar.Writer, path string, b []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Size: int64(len(b)), Mode: 0o755, ModTime: epoch}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

func compress(c codec, b []byte) ([]byte, error) {
	if c == zstandard {
		enc, err := zstd.NewWriter(nil)
		if err != nil {
			return nil, err
		}
		defer enc.Close()
		return enc.EncodeAll(b, nil), nil
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
