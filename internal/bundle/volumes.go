package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/sums"
	"forebay/internal/wire"
)

// volumesFormat names the form of the record of volumes.
const volumesFormat = "forebay-volumes/1"

// RecordSuffix is what follows the name of a bundle in that of the record of its volumes.
const RecordSuffix = ".volumes"

// Volumes is the record of a bundle that is cut into several files. It grows while they
// are written, so that the writing can go on where it was cut.
type Volumes struct {
	Format     string      `json:"format"`
	Name       string      `json:"name"`        // of the bundle, without a folder
	Manifest   wire.Digest `json:"manifest"`    // digest of the bundle's manifest
	Compressed bool        `json:"compressed"`  // by zstd, before it was cut
	VolumeSize int64       `json:"volume_size"` // bytes of each but the last
	Complete   bool        `json:"complete"`
	Volumes    []Volume    `json:"volumes"`
}

// Volume is one file of a bundle.
type Volume struct {
	Name   string      `json:"name"`
	Size   int64       `json:"size"`
	Digest wire.Digest `json:"digest"`
}

// Bounds of volumes.
const (
	VolumeLeast = 1 << 20
	volumesMost = 9999
	recordMost  = 4 << 20
)

// volumeName returns the name of the volume n of a bundle, counted from 1.
func volumeName(name string, n int) string { return fmt.Sprintf("%s.%03d", name, n) }

// ReadVolumes reads the record of the volumes of the bundle at base.
func ReadVolumes(base string) (*Volumes, error) {
	f, err := os.Open(base + RecordSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readMost(f, recordMost)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", f.Name(), err)
	}
	v, err := parseVolumes(text)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", f.Name(), err)
	}
	return v, nil
}

func parseVolumes(text []byte) (*Volumes, error) {
	var v Volumes
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, faultf("it is no JSON: %w", err)
	}
	if v.Format != volumesFormat {
		return nil, faultf("it does not say that it is %s", volumesFormat)
	}
	if v.VolumeSize < VolumeLeast || len(v.Volumes) > volumesMost || filepath.Base(v.Name) != v.Name {
		return nil, faultf("%d volumes of %d bytes of %.80q", len(v.Volumes), v.VolumeSize, v.Name)
	}
	for i, one := range v.Volumes {
		// Names come from outside, and must not lead elsewhere.
		if one.Name != volumeName(v.Name, i+1) {
			return nil, faultf("volume %d is called %.80q", i+1, one.Name)
		}
		if _, err := wire.ParseDigest(one.Digest.String()); err != nil {
			return nil, faultf("volume %d: %w", i+1, err)
		}
		last := v.Complete && i == len(v.Volumes)-1
		if one.Size != v.VolumeSize && !last || one.Size < 0 || one.Size > v.VolumeSize {
			return nil, faultf("volume %d has %d bytes", i+1, one.Size)
		}
	}
	return &v, nil
}

// Begun is a bundle whose volumes were written in part, or as a whole.
type Begun struct {
	Manifest  *Manifest
	Digest    v1.Hash // of the manifest
	Signature []byte  // nil without one
}

// ReadBegun returns what was begun at base; nil when there is nothing to go on with.
func ReadBegun(base string) *Begun {
	record, err := ReadVolumes(base)
	if err != nil || record.Compressed {
		return nil
	}
	var names []string
	for _, v := range record.Volumes {
		names = append(names, filepath.Join(filepath.Dir(base), v.Name))
	}
	f, err := OpenFiles(names)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read from
	w, done, err := newTarWalk(f)
	if err != nil {
		return nil
	}
	defer done()
	b := &Begun{Digest: record.Manifest.Hash}
	for range 3 { // the layout, the manifest, its signature
		one, err := w.next()
		if err != nil {
			return nil
		}
		switch one.name {
		case ownName:
			b.Manifest, _, err = ReadManifest(one.r)
		case signatureName:
			b.Signature, err = readMost(one.r, signatureMost)
		}
		if err != nil {
			return nil
		}
	}
	if b.Manifest == nil {
		return nil
	}
	return b
}

// VolumeWriter cuts what is written into files of one size. Its owner calls Finish, or
// Abort.
type VolumeWriter struct {
	base   string
	record Volumes
	done   int // volumes that were there before
	n      int // of the volume that is written; 0 before the first
	file   *os.File
	at     int64
}

// NewVolumes begins to write the bundle base of an archive in volumes of size bytes. What
// an earlier run for the same archive has left whole is kept: from is where to go on.
// A compressed archive, of which nobody knows how long its parts are, is written anew.
func NewVolumes(ctx context.Context, base string, manifest v1.Hash, size int64, compressed bool) (w *VolumeWriter, from int64, err error) {
	if size < VolumeLeast {
		return nil, 0, fmt.Errorf("volumes of %d bytes are smaller than %d", size, VolumeLeast)
	}
	w = &VolumeWriter{base: base, record: Volumes{
		Format: volumesFormat, Name: filepath.Base(base), Manifest: wire.Digest{Hash: manifest}, Compressed: compressed, VolumeSize: size, Volumes: []Volume{},
	}}
	old, err := ReadVolumes(base)
	if err != nil || compressed || old.Manifest.Hash != manifest || old.VolumeSize != size || old.Compressed {
		return w, 0, w.save() // nothing to go on with
	}
	for _, v := range old.Volumes {
		if v.Size != size || CheckVolume(ctx, filepath.Dir(base), v) != nil {
			break // the last one of a bundle that was whole is written anew
		}
		w.record.Volumes = append(w.record.Volumes, v)
	}
	w.done = len(w.record.Volumes)
	w.n = w.done
	return w, int64(w.done) * size, ctx.Err()
}

// Kept returns how many volumes of an earlier run are kept.
func (w *VolumeWriter) Kept() int { return w.done }

// Write writes p to the volumes.
func (w *VolumeWriter) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		if err := w.ready(); err != nil {
			return total, err
		}
		n, err := w.file.Write(p[:min(int64(len(p)), w.record.VolumeSize-w.at)])
		w.at += int64(n)
		total += n
		p = p[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// ReadFrom writes all of r to the volumes. A piece of a file, in an [io.LimitedReader], is
// copied by the kernel.
func (w *VolumeWriter) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	var total int64
	for l.N > 0 {
		if err := w.ready(); err != nil {
			return total, err
		}
		want := min(l.N, w.record.VolumeSize-w.at)
		n, err := w.file.ReadFrom(&io.LimitedReader{R: l.R, N: want})
		writeBack(w.file, w.at, n)
		w.at += n
		total += n
		l.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// ready makes sure that there is a volume with room.
func (w *VolumeWriter) ready() error {
	if w.file != nil && w.at < w.record.VolumeSize {
		return nil
	}
	if err := w.finishVolume(); err != nil {
		return err
	}
	if w.n == volumesMost {
		return fmt.Errorf("more than %d volumes: make them larger", volumesMost)
	}
	f, err := Create(volumeName(w.base, w.n+1))
	if err != nil {
		return err
	}
	w.n++
	w.file, w.at = f, 0
	return nil
}

// finishVolume makes the volume that is written last for good.
func (w *VolumeWriter) finishVolume() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	err := f.Sync()
	var v Volume
	if err == nil {
		v, err = measure(context.Background(), f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	w.record.Volumes = append(w.record.Volumes, v)
	return w.save()
}

// Finish ends the last volume and the record.
func (w *VolumeWriter) Finish() error {
	if err := w.finishVolume(); err != nil {
		return err
	}
	w.record.Complete = true
	if err := w.save(); err != nil {
		return err
	}
	// A bundle that was here before may have had more volumes.
	for n := w.n + 1; n <= volumesMost; n++ {
		err := os.Remove(volumeName(w.base, n))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Abort removes the volume that is not whole. Those that are stay, for a later run.
func (w *VolumeWriter) Abort() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Volumes returns what was written.
func (w *VolumeWriter) Volumes() []Volume { return slices.Clone(w.record.Volumes) }

// save writes the record in place of the one before.
func (w *VolumeWriter) save() error {
	text, err := json.MarshalIndent(w.record, "", " ")
	if err != nil {
		return err
	}
	name := w.base + RecordSuffix
	f, err := Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// measure returns what a volume's file holds.
func measure(ctx context.Context, f *os.File) (Volume, error) {
	info, err := f.Stat()
	if err != nil {
		return Volume{}, err
	}
	sum, err := sums.New("sha256")
	if err != nil {
		return Volume{}, err
	}
	defer sum.End()
	if err := readInto(ctx, sum, io.NewSectionReader(f, 0, info.Size()+1), info.Size()); err != nil {
		return Volume{}, fmt.Errorf("read %q: %w", f.Name(), err)
	}
	return Volume{Name: filepath.Base(f.Name()), Size: info.Size(), Digest: wire.Digest{Hash: sum.Sum()}}, nil
}

// CheckVolume compares the file of a volume in a folder with its record.
func CheckVolume(ctx context.Context, dir string, v Volume) error {
	f, err := os.Open(filepath.Join(dir, v.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := measure(ctx, f)
	if err != nil {
		return err
	}
	if got != v {
		return faultf("volume %s is damaged: it has %d bytes and the digest %s, want %d and %s", v.Name, got.Size, got.Digest, v.Size, v.Digest)
	}
	return nil
}

// Find returns the files that a bundle is in, in order, and the record of its volumes if
// there is one. names are as people give them: the bundle, its record, one of its volumes,
// or all of them.
func Find(names []string) (files []string, record *Volumes, err error) {
	if len(names) == 1 {
		name := strings.TrimSuffix(names[0], RecordSuffix)
		_, err := os.Stat(name)
		if base, _, ok := cutNumber(name); ok && isFile(base+RecordSuffix) {
			return findVolumes(base)
		}
		if errors.Is(err, fs.ErrNotExist) && isFile(name+RecordSuffix) {
			return findVolumes(name)
		}
		return []string{name}, nil, err
	}
	return orderVolumes(names)
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// cutNumber splits the name of a volume.
func cutNumber(name string) (base string, n int, ok bool) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 || len(name)-dot < 4 {
		return "", 0, false
	}
	n, err := strconv.Atoi(name[dot+1:])
	return name[:dot], n, err == nil && n > 0 && name == volumeName(name[:dot], n)
}

func findVolumes(base string) ([]string, *Volumes, error) {
	record, err := ReadVolumes(base)
	if err != nil {
		return nil, nil, err
	}
	if !record.Complete {
		return nil, nil, fmt.Errorf("%q: the bundle was not written to its end: run the export again", base+RecordSuffix)
	}
	var files []string
	for _, v := range record.Volumes {
		name := filepath.Join(filepath.Dir(base), v.Name)
		info, err := os.Stat(name)
		if err != nil {
			return nil, nil, fmt.Errorf("volume %d of %d: %w", len(files)+1, len(record.Volumes), err)
		}
		if info.Size() != v.Size {
			return nil, nil, faultf("volume %q has %d bytes, want %d", name, info.Size(), v.Size)
		}
		files = append(files, name)
	}
	return files, record, nil
}

// orderVolumes puts volumes in order that were named one by one.
func orderVolumes(names []string) ([]string, *Volumes, error) {
	type numbered struct {
		name string
		n    int
	}
	var all []numbered
	first := ""
	for _, name := range names {
		if strings.HasSuffix(name, RecordSuffix) || strings.HasSuffix(name, ".manifest") || strings.HasSuffix(name, ".sig") {
			continue // site.tar.* names them, too
		}
		base, n, ok := cutNumber(name)
		switch {
		case !ok:
			return nil, nil, fmt.Errorf("%q is no volume of a bundle: import one bundle at a time", name)
		case first == "":
			first = filepath.Base(base)
		case first != filepath.Base(base):
			return nil, nil, fmt.Errorf("%q and %q are of different bundles: import one at a time", names[0], name)
		}
		all = append(all, numbered{name, n})
	}
	slices.SortFunc(all, func(a, b numbered) int { return a.n - b.n })
	var files []string
	for i, v := range all {
		if v.n != i+1 {
			return nil, nil, fmt.Errorf("volume %d of %s is missing", i+1, first)
		}
		files = append(files, v.name)
	}
	if len(files) == 0 {
		return nil, nil, errors.New("no volume is named")
	}
	base, _, _ := cutNumber(files[0])
	record, err := ReadVolumes(base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return files, nil, nil
	case err != nil:
		return nil, nil, err
	case len(files) < len(record.Volumes):
		return nil, nil, fmt.Errorf("volume %d of %d of %s is missing", len(files)+1, len(record.Volumes), first)
	}
	return files, record, nil
}
