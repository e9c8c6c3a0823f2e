//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// bundleName is the image of the figures of bundles.
const bundleName = "docker.io/library/bundle:1"

// measureBundle compares export and import with tar, which moves the same bytes and
// hashes none. Both sides wait until what they wrote is on the disk.
func measureBundle(ctx context.Context, b *bench) ([]row, error) {
	dir, err := os.MkdirTemp(b.dir, "bundle-")
	if err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	size := pick(b, int64(64*mib), 8*mib)
	layers := make([]int64, 16)
	for i := range layers {
		layers[i] = size
	}
	if err := writeLayout(at("layout"), layers); err != nil {
		return nil, err
	}
	total := float64(size*int64(len(layers))) / gib
	if _, err := b.bundle(ctx, "import", at("layout"), "--storage-dir", at("here")); err != nil {
		return nil, err
	}
	rate := func(into *sample, work func() error) func(int) error {
		return func(int) error {
			start := time.Now()
			if err := work(); err != nil {
				return err
			}
			*into = append(*into, total/time.Since(start).Seconds())
			return nil
		}
	}
	tar := func(args ...string) error { return runQuiet(command(ctx, "tar", args...)) }
	var ours, theirs, ourImport, theirImport sample
	err = b.takeTurns(ctx, "export",
		func(round int) error {
			if err := os.RemoveAll(at("theirs.tar")); err != nil {
				return err
			}
			return rate(&theirs, func() error {
				return errors.Join(tar("-C", at("here"), "-cf", at("theirs.tar"), "blobs"), runQuiet(command(ctx, "sync", at("theirs.tar"))))
			})(round)
		},
		func(round int) error {
			if err := os.RemoveAll(at("ours.tar")); err != nil {
				return err
			}
			return rate(&ours, func() error {
				_, err := b.bundle(ctx, "export", "-o", at("ours.tar"), bundleName, "--storage-dir", at("here"))
				return err
			})(round)
		})
	if err != nil {
		return nil, err
	}
	there := at("there")
	err = b.takeTurns(ctx, "import",
		func(round int) error {
			if err := errors.Join(os.RemoveAll(there), os.Mkdir(there, 0o755)); err != nil {
				return err
			}
			return rate(&theirImport, func() error {
				return errors.Join(tar("-C", there, "-xf", at("ours.tar")), runQuiet(command(ctx, "sync", "-f", there)))
			})(round)
		},
		func(round int) error {
			if err := os.RemoveAll(there); err != nil {
				return err
			}
			return rate(&ourImport, func() error {
				_, err := b.bundle(ctx, "import", at("ours.tar"), "--storage-dir", there)
				return err
			})(round)
		})
	if err != nil {
		return nil, err
	}
	return []row{
		{name: "bundle: export", form: "%.2f", unit: "GiB/s", ours: ours, theirs: theirs, against: "tar and sync", compare: ratio, target: atLeast(0.8)},
		{name: "bundle: import", form: "%.2f", unit: "GiB/s", ours: ourImport, theirs: theirImport, against: "tar and sync", compare: ratio, target: atLeast(0.8)},
	}, os.RemoveAll(dir)
}

// measureBundleMemory exports and imports one large layer. It is nothing but zeros, and
// takes no room where it is kept at first.
func measureBundleMemory(ctx context.Context, b *bench) ([]row, error) {
	dir, err := os.MkdirTemp(b.dir, "bundle-")
	if err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	size := pick(b, int64(10*gib), 256*mib)
	if err := writeLayout(at("layout"), []int64{-size}); err != nil {
		return nil, err
	}
	// The layer is put in place as a sparse file: an import would write its zeros.
	if err := moveSparse(at("layout"), at("here"), size); err != nil {
		return nil, err
	}
	if _, err := b.bundle(ctx, "rebuild-index", "--storage-dir", at("here")); err != nil {
		return nil, err
	}
	if _, err := b.bundle(ctx, "import", at("layout"), "--storage-dir", at("here")); err != nil {
		return nil, err
	}
	exported, err := b.bundle(ctx, "export", "-o", at("site.tar"), bundleName, "--storage-dir", at("here"))
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(at("here")); err != nil {
		return nil, err
	}
	imported, err := b.bundle(ctx, "import", at("site.tar"), "--storage-dir", at("there"))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("bundle of %d MiB: most memory of the ", size/mib)
	return []row{
		{name: name + "export", form: "%.0f", unit: "MiB", ours: sample{exported}, target: atMost(150)},
		{name: name + "import", form: "%.0f", unit: "MiB", ours: sample{imported}, target: atMost(150)},
	}, os.RemoveAll(dir)
}

// bundle runs a command of forebay and returns the most memory that it took, in MiB.
func (b *bench) bundle(ctx context.Context, args ...string) (float64, error) {
	cmd := command(ctx, b.forebay, args...)
	if err := runQuiet(cmd); err != nil {
		return 0, err
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, errors.New("the kernel does not say how much memory a process took")
	}
	return float64(usage.Maxrss) / kib, nil
}

// runQuiet runs a program; its error has what it wrote.
func runQuiet(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// writeLayout writes an OCI image layout of one image with layers of these sizes: noise,
// or if the size is negative a sparse file of as many zeros.
func writeLayout(dir string, layers []int64) error {
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(kind string, r io.Reader, sparse int64) (d descriptor, err error) {
		f, err := os.CreateTemp(blobs, "new")
		if err != nil {
			return d, err
		}
		defer f.Close()
		sum := sha256.New()
		to := io.MultiWriter(f, sum)
		if sparse > 0 {
			to = sum
			if err := f.Truncate(sparse); err != nil {
				return d, err
			}
		}
		n, err := io.Copy(to, r)
		if err != nil {
			return d, err
		}
		name := hex.EncodeToString(sum.Sum(nil))
		return descriptor{MediaType: kind, Digest: "sha256:" + name, Size: n}, os.Rename(f.Name(), filepath.Join(blobs, name))
	}
	manifest := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json"}
	var err error
	if manifest.Config, err = put("application/vnd.oci.image.config.v1+json", bytes.NewReader([]byte(`{"os":"linux","architecture":"amd64"}`)), 0); err != nil {
		return err
	}
	for n, size := range layers {
		r := io.LimitReader(rand.NewChaCha8([32]byte{byte(n)}), size)
		if size < 0 {
			r = io.LimitReader(zeros{}, -size)
		}
		d, err := put("application/vnd.oci.image.layer.v1.tar", r, -size)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, d)
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d, err := put(manifest.MediaType, bytes.NewReader(text), 0)
	if err != nil {
		return err
	}
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": bundleName}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{d}})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600))
}

// moveSparse moves the file of size bytes from a layout into a storage folder.
func moveSparse(layout, storage string, size int64) error {
	entries, err := os.ReadDir(filepath.Join(layout, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Size() != size {
			continue
		}
		to := filepath.Join(storage, "blobs", "sha256", e.Name()[:2])
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		return os.Rename(filepath.Join(layout, "blobs", "sha256", e.Name()), filepath.Join(to, e.Name()))
	}
	return fmt.Errorf("no layer of %d bytes in %q", size, layout)
}

// zeros is a reader of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
