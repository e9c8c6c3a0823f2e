package bundle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/wire"
)

// dockerEntry is one image of manifest.json, as docker save writes it
// (github.com/moby/moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerLayers bounds the layers of an image; docker itself takes 127.
const dockerLayers = 1024

// other reads a file of an archive of docker save, whose name does not tell its digest.
func (s *unpacking) other(f *file) error {
	base := path.Base(f.name)
	switch {
	case f.link != "":
		s.files[f.name] = stored{link: f.link}
		return nil
	case base == "json" || strings.EqualFold(base, "version") || base == "repositories" || f.size == 0 && !layerName(base):
		return nil // of docker before 1.10
	}
	if f.size <= docMost {
		text, err := s.small(f, docMost)
		if err != nil {
			return err
		}
		b := blobOf(text)
		if bytes.HasPrefix(text, []byte("{")) && s.held+b.Size <= heldMost {
			s.docs[b.Digest.Hash] = text
			s.held += b.Size
		}
		kind := kindOf(text)
		if err := s.store(f, stored{blob: b, kind: kind, plain: plainOf(kind, bytes.NewReader(text))}); err != nil {
			return err
		}
		return s.take(f, b, bytes.NewReader(text))
	}
	return s.layer(f)
}

// layerName reports whether a file is called as a layer, as those below blobs/ are by Bazel's
// rules_oci: blobs/sha256/<hex>.tar.gz. A layer may be empty.
func layerName(name string) bool {
	return strings.HasSuffix(name, ".tar") || strings.HasSuffix(name, ".tar.gz")
}

// store notes what a file of the archive is.
func (s *unpacking) store(f *file, is stored) error {
	if before, twice := s.files[f.name]; twice && before != is {
		return errTwice(f)
	}
	s.files[f.name] = is
	return nil
}

// layer takes in a file whose digest is found out on the way: neither this side nor the
// target holds more of it than a piece, but where it will stay.
func (s *unpacking) layer(f *file) error {
	head := make([]byte, min(f.size, headLen))
	if _, err := io.ReadFull(f.r, head); err != nil {
		return readError(f, err)
	}
	kind := kindOf(head)
	return s.brought(f, f.size, io.MultiReader(bytes.NewReader(head), f.r), func(r io.Reader) (bool, error) {
		r, plain := plainBeside(kind, r)
		d, had, err := s.Target.TakeUnnamed(s.ctx, f.size, r)
		is := stored{blob: Blob{wire.Digest{Hash: d}, f.size}, kind: kind, plain: plain()}
		if err == nil {
			err = s.store(f, is)
		}
		return had, err
	})
}

// plainBeside is plainOf of what is read from the reader that it returns. plain must be called when
// no more is read.
func plainBeside(kind compression, r io.Reader) (_ io.Reader, plain func() string) {
	if kind != gzipKind && kind != zstdKind {
		return r, func() string { return "" }
	}
	beside, w := io.Pipe()
	digest := make(chan string, 1)
	go func() { // ends when w is closed, and never holds up who writes
		digest <- plainOf(kind, beside)
		_, _ = io.Copy(io.Discard, beside)
	}()
	return io.TeeReader(r, w), func() string {
		_ = w.Close() // never fails
		return <-digest
	}
}

// plainOf returns the digest of what a layer is when it is decompressed, which its configuration says.
// Of one that is as it is, or as no image is, it returns nothing.
func plainOf(kind compression, r io.Reader) string {
	if kind != gzipKind && kind != zstdKind {
		return ""
	}
	plain, done, err := unpacked(bufio.NewReader(r))
	if err != nil {
		return damagedLayer
	}
	defer done()
	d, _, err := v1.SHA256(plain)
	if err != nil {
		return damagedLayer
	}
	return d.String()
}

// damagedLayer stands for the digest of what cannot be decompressed. It may be a file that nobody asks for.
const damagedLayer = "damaged content"

// dockerImages makes a manifest for each image of manifest.json. An archive of docker save
// has none, and that of the registry cannot be known, since its layers were compressed.
func (s *unpacking) dockerImages() ([]Image, error) {
	var entries []dockerEntry
	if err := json.Unmarshal(s.docker, &entries); err != nil {
		return nil, faultf("%s: %w", dockerName, err)
	}
	var images []Image
	for _, e := range entries {
		text, err := s.dockerManifest(e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dockerName, err)
		}
		b := blobOf(text)
		if err := s.take(&file{name: "made manifest", size: b.Size}, b, bytes.NewReader(text)); err != nil {
			return nil, err
		}
		one := Image{Digest: b.Digest, MediaType: string(types.OCIManifestSchema1), Size: b.Size}
		if len(e.RepoTags) == 0 {
			images = append(images, one)
		}
		for _, name := range e.RepoTags {
			one.Name = name
			images = append(images, one)
		}
	}
	if len(images) > 0 {
		s.out.Notes = append(s.out.Notes, "the archive has no manifest as the registry gave it: the digests of its images are others than there")
	}
	return images, nil
}

// dockerManifest returns the manifest of an image: the same for the same files.
func (s *unpacking) dockerManifest(e dockerEntry) ([]byte, error) {
	config, err := s.stored(e.Config)
	if err != nil {
		return nil, err
	}
	text, ok := s.docs[config.blob.Digest.Hash]
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if !ok || json.Unmarshal(text, &c) != nil {
		return nil, faultf("%.200q is no configuration of an image", e.Config)
	}
	if len(e.Layers) > dockerLayers || len(c.RootFS.DiffIDs) != len(e.Layers) {
		return nil, faultf("an image has %d layers, and its configuration says %d", len(e.Layers), len(c.RootFS.DiffIDs))
	}
	hex := strings.TrimPrefix(strings.TrimSuffix(path.Base(e.Config), ".json"), "sha256:")
	if d, err := wire.ParseDigest("sha256:" + hex); err == nil && d != config.blob.Digest.Hash {
		return nil, faultf("%.200q has the digest %s: it is damaged, or was changed after it was named", e.Config, config.blob.Digest)
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: descriptorOf(types.OCIConfigJSON, config.blob), Layers: []v1.Descriptor{}}
	for i, name := range e.Layers {
		layer, err := s.stored(name)
		if err != nil {
			return nil, err
		}
		kind := types.OCIUncompressedLayer
		switch layer.kind {
		case gzipKind:
			kind = types.OCILayer
		case zstdKind:
			kind = types.OCILayerZStd
		case bzip2Kind, xzKind: // docker load takes them, but no media type stands for them
			return nil, faultf("layer %.200q is compressed by bzip2 or xz, which no client pulls: load the archive by docker load, and save the image again", name)
		default:
			if got := layer.blob.Digest.String(); got != c.RootFS.DiffIDs[i] {
				return nil, faultf("layer %.200q has the digest %s, and the configuration says %.80s", name, got, c.RootFS.DiffIDs[i])
			}
		}
		if layer.plain != "" && layer.plain != c.RootFS.DiffIDs[i] {
			return nil, faultf("layer %.200q holds %s, and the configuration says %.80s", name, layer.plain, c.RootFS.DiffIDs[i])
		}
		m.Layers = append(m.Layers, descriptorOf(kind, layer.blob))
	}
	return json.Marshal(m)
}

func descriptorOf(kind types.MediaType, b Blob) v1.Descriptor {
	return v1.Descriptor{MediaType: kind, Digest: b.Digest.Hash, Size: b.Size}
}

// stored returns the file that a manifest.json names, following links within the archive.
func (s *unpacking) stored(name string) (stored, error) {
	clean, err := cleanName(name, false)
	if err != nil {
		return stored{}, err
	}
	for range 8 {
		f, ok := s.files[clean]
		if !ok {
			return stored{}, faultf("%.200q is not in the archive", name)
		}
		if f.link == "" {
			return f, nil
		}
		clean = f.link
	}
	return stored{}, faultf("%.200q is a link to a link without end", name)
}

// dockerManifest returns manifest.json for docker load, of images of one platform each:
// those whose manifests are named, by the name of the image.
func dockerManifest(ctx context.Context, src Source, images []Image, platform map[string]v1.Hash) ([]byte, error) {
	entries := []dockerEntry{}
	at := map[v1.Hash]int{} // the entry of a manifest
	for _, i := range images {
		d, ok := platform[i.Name]
		if !ok {
			continue
		}
		tag := i.Name
		if strings.Contains(tag, "@") {
			tag = "" // docker load takes no digests
		}
		if n, have := at[d]; have {
			entries[n].RepoTags = appendTag(entries[n].RepoTags, tag)
			continue
		}
		e, err := dockerEntryOf(ctx, src, d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.Name, err)
		}
		e.RepoTags = appendTag(nil, tag)
		at[d] = len(entries)
		entries = append(entries, e)
	}
	return json.Marshal(entries)
}

func appendTag(tags []string, tag string) []string {
	if tag == "" {
		return tags
	}
	return append(tags, tag)
}

func dockerEntryOf(ctx context.Context, src Source, d v1.Hash) (dockerEntry, error) {
	in, err := src.Open(ctx, d)
	if err != nil {
		return dockerEntry{}, err
	}
	defer func() { _ = in.Close() }()
	text, err := readMost(in, docMost)
	if err != nil {
		return dockerEntry{}, err
	}
	var m v1.Manifest
	if blobOf(text).Digest.Hash != d && d.Algorithm == "sha256" {
		return dockerEntry{}, fmt.Errorf("what is kept of %s is damaged", d)
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Config.Digest == (v1.Hash{}) {
		return dockerEntry{}, fmt.Errorf("manifest %s is none that docker can load", d)
	}
	e := dockerEntry{Config: blobName(m.Config.Digest)}
	for _, l := range m.Layers {
		e.Layers = append(e.Layers, blobName(l.Digest))
	}
	return e, nil
}
