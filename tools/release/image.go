package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is that of the image: nobody that a machine has.
const user = 65532

// image writes the image of all platforms of Linux, as an OCI layout in one archive. The Dockerfile
// of the repository makes the same, which a test of the end-to-end tests compares.
func (r *release) image(programs []program) error {
	var parts []mutate.IndexAddendum
	for _, p := range programs {
		if p.os != "linux" {
			continue
		}
		img, err := r.platformImage(p)
		if err != nil {
			return fmt.Errorf("image for %s: %w", p, err)
		}
		parts = append(parts, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: p.os, Architecture: p.arch, Variant: p.variant},
		}})
	}
	if len(parts) == 0 {
		return nil
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), parts...)
	index = mutate.Annotations(index, r.annotations()).(v1.ImageIndex)
	dir := filepath.Join(r.work, "image")
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.plain()})
	if err := p.AppendIndex(index, named); err != nil {
		return err
	}
	return create(r.file("image.oci.tar"), func(w io.Writer) error { return r.pack(w, dir) })
}

func (r *release) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "forebay",
		"org.opencontainers.image.description": "A pull-through caching mirror for container registries",
		"org.opencontainers.image.version":     r.plain(),
		"org.opencontainers.image.revision":    r.revision,
		"org.opencontainers.image.created":     r.made.Format("2006-01-02T15:04:05Z"),
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
}

func (r *release) platformImage(p program) (v1.Image, error) {
	binary, err := os.ReadFile(p.path)
	if err != nil {
		return nil, err
	}
	files, err := r.layer(
		file{name: "forebay", mode: 0o755, text: binary},
		file{name: "etc/", mode: 0o755}, file{name: "etc/ssl/", mode: 0o755}, file{name: "etc/ssl/certs/", mode: 0o755},
		file{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, text: certificates()},
		file{name: "var/", mode: 0o755}, file{name: "var/lib/", mode: 0o755},
		file{name: "var/lib/forebay/", mode: 0o755, owner: user},
	)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: files, MediaType: types.OCILayer, History: v1.History{
		Created: v1.Time{Time: r.made}, CreatedBy: "forebay " + r.version,
	}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: r.made}
	config.OS, config.Architecture, config.Variant = p.os, p.arch, p.variant
	config.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", user, user),
		ExposedPorts: map[string]struct{}{"5000/tcp": {}},
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"FOREBAY_STORAGE_DIR=/var/lib/forebay", "FOREBAY_LOG_FORMAT=json", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
		},
		Entrypoint:  []string{"/forebay"},
		Cmd:         []string{"serve"},
		Volumes:     map[string]struct{}{"/var/lib/forebay": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/forebay", "healthcheck"}, Interval: 30e9, Timeout: 5e9, StartPeriod: 30e9},
		Labels:      r.annotations(),
	}
	return mutate.ConfigFile(img, config)
}

// file is one of a layer; a folder's name ends with a slash.
type file struct {
	name  string
	mode  int64
	owner int
	text  []byte
}

func (r *release) layer(files ...file) (v1.Layer, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.text)), Uid: f.owner, Gid: f.owner, ModTime: r.made, Format: tar.FormatPAX}
		if f.text == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.text); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
}

// certificates are those of Mozilla's list as a Go module has it, so that they do not depend on
// the machine.
func certificates() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
	}
	return b.Bytes()
}

// pack writes a folder as an archive.
func (r *release) pack(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(rel), Mode: 0o644, Size: int64(len(b)), ModTime: r.made, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err = t.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}
