package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// file is one file of an archive or of a folder.
type file struct {
	name string
	size int64
	link string // of a link: the name of the file of the archive that it stands for
	odd  bool   // it is neither a file nor a name of one, and nothing that an image needs
	r    io.Reader
}

// walk goes through the files of an archive or of a folder. next returns io.EOF after the last.
type walk interface {
	next() (*file, error)
}

// tarWalk goes through a tar archive. It hands out nothing but plain files, and links to them,
// with harmless names.
type tarWalk struct {
	r     *tar.Reader
	in    io.Reader // what r reads
	files int
}

// newTarWalk begins to read an archive, which may be compressed: see unpacked. done must
// be called at the end.
func newTarWalk(r io.Reader) (w *tarWalk, done func(), err error) {
	w = &tarWalk{}
	if s, ok := r.(io.ReadSeeker); ok {
		head := make([]byte, headLen)
		n, err := io.ReadFull(s, head)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			return nil, nil, err
		}
		if n == 0 {
			return nil, nil, faultf("it is empty")
		}
		if err := unread(head[:n]); err != nil {
			return nil, nil, err
		}
		if kindOf(head[:n]) == noKind {
			w.r, w.in = tar.NewReader(s), s
			return w, func() {}, nil
		}
	}
	plain, done, err := unpacked(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return nil, nil, err
	}
	w.r, w.in = tar.NewReader(plain), plain
	return w, done, nil
}

// tailMost bounds how much is looked at of what follows an archive.
const tailMost = 64 << 20

// tail reads what follows the archive, so that who writes it to a pipe is not cut off, and reports
// whether that is more than the zeros of tapes: an archive that was put behind another, say.
func (w *tarWalk) tail() bool {
	for rest, p := io.LimitReader(w.in, tailMost), make([]byte, 64<<10); ; {
		n, err := rest.Read(p)
		if len(bytes.Trim(p[:n], "\x00")) > 0 {
			return true
		}
		if err != nil {
			return false // all that counts has come
		}
	}
}

func (w *tarWalk) next() (*file, error) {
	for {
		h, err := w.r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, tar.ErrInsecurePath):
			return nil, faultf("it is no tar archive, or is damaged: %w", err)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, faultf("it ends too early: %w", err)
		case err != nil:
			return nil, err
		}
		f, err := w.file(h)
		if err != nil {
			return nil, err
		}
		if f != nil {
			return f, nil
		}
	}
}

// file checks an entry. It returns nil for one that is passed over.
func (w *tarWalk) file(h *tar.Header) (*file, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil, nil // of git archive and others: comments
	}
	name, err := cleanName(h.Name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return nil, err
	}
	if h.Typeflag == tar.TypeDir {
		return nil, nil
	}
	if w.files++; w.files > entriesMost {
		return nil, faultf("it has more than %d files", entriesMost)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return nil, faultf("%q is sparse, which no tool makes of images", name)
		}
	}
	f := &file{name: name, size: h.Size}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeLink:
		// As tar writes files that have two names. It is a name for an earlier file, no more.
		f.link, err = cleanName(h.Linkname, false)
		return f, err
	case tar.TypeSymlink:
		// docker save wrote links from one layer.tar to another. Such a link is a name for
		// a file of the archive, and never a link on a disk.
		if path.Base(name) != "layer.tar" {
			if w.needed(name) {
				return nil, faultf("%q is a link", name)
			}
			return &file{name: name, odd: true}, nil
		}
		target := path.Join(path.Dir(name), h.Linkname)
		if f.link, err = cleanName(target, false); err != nil || path.IsAbs(h.Linkname) {
			return nil, faultf("%q is a link to %.100q", name, h.Linkname)
		}
		return f, nil
	default:
		if w.needed(name) {
			return nil, faultf("%q is of type %q, and no plain file", name, h.Typeflag)
		}
		return &file{name: name, odd: true}, nil
	}
	if h.Size < 0 || h.Size > blobMost {
		return nil, faultf("%q is said to have %d bytes", name, h.Size)
	}
	f.r = w.r
	return f, nil
}

// needed reports whether a name is of what an image is made of.
func (w *tarWalk) needed(name string) bool {
	return strings.HasPrefix(name, blobsDir+"/") || slices.Contains([]string{layoutName, ownName, signatureName, indexName, dockerName}, name)
}

// cleanName refuses names that lead out of the archive, or that no tool writes.
func cleanName(name string, dir bool) (string, error) {
	clean := strings.TrimPrefix(name, "./")
	if dir {
		clean = strings.TrimSuffix(clean, "/")
		if clean == "" || clean == "." {
			return ".", nil
		}
	}
	if !fs.ValidPath(clean) || clean == "." || len(clean) > 512 || strings.ContainsFunc(clean, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
		return "", faultf("a file is called %.100q", name)
	}
	return clean, nil
}

// dirWalk goes through the files of an OCI image layout in a folder.
type dirWalk struct {
	root  *os.Root
	names []string
	open  *os.File
}

// newDirWalk lists a folder. done must be called at the end.
func newDirWalk(ctx context.Context, dir string) (w *dirWalk, done func(), err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	w = &dirWalk{root: root}
	done = func() {
		w.closeFile()
		_ = root.Close() // only read from
	}
	if err := w.list(ctx); err != nil {
		done()
		return nil, nil, err
	}
	return w, done, nil
}

// list finds the files: those that say what is there before the content.
func (w *dirWalk) list(ctx context.Context) error {
	for _, name := range []string{layoutName, ownName, signatureName, indexName, dockerName} {
		if info, err := w.root.Lstat(name); err == nil && info.Mode().IsRegular() {
			w.names = append(w.names, name)
		}
	}
	if !slices.Contains(w.names, indexName) {
		if slices.Contains(w.names, dockerName) {
			return faultf("the folder has a %s and no %s: it is what skopeo writes as dir: (have it write oci:), or an archive of docker save that was unpacked (give the archive)", dockerName, indexName)
		}
		return faultf("the folder has no %s, and so is no OCI image layout", indexName)
	}
	for _, algorithm := range []string{"sha256", "sha512"} {
		err := fs.WalkDir(w.root.FS(), path.Join(blobsDir, algorithm), func(name string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.IsDir() {
				return errors.Join(err, ctx.Err())
			}
			if len(w.names) >= entriesMost {
				return faultf("it has more than %d files", entriesMost)
			}
			if _, ok := blobOfName(name); !ok {
				return nil
			}
			w.names = append(w.names, name)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *dirWalk) closeFile() {
	if w.open != nil {
		_ = w.open.Close() // only read from
		w.open = nil
	}
}

func (w *dirWalk) next() (*file, error) {
	w.closeFile()
	if len(w.names) == 0 {
		return nil, io.EOF
	}
	name := w.names[0]
	w.names = w.names[1:]
	before, err := w.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, faultf("%q is no plain file", name)
	}
	f, err := w.root.Open(name)
	if err != nil {
		return nil, err
	}
	w.open = f
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, info) {
		return nil, faultf("%q is no plain file", name)
	}
	return &file{name: name, size: info.Size(), r: f}, nil
}

// blobOfName returns the digest that the name of a blob says.
func blobOfName(name string) (v1.Hash, bool) {
	rest, ok := strings.CutPrefix(name, blobsDir+"/")
	if !ok {
		return v1.Hash{}, false
	}
	algorithm, hex, _ := strings.Cut(rest, "/")
	d, err := wire.ParseDigest(algorithm + ":" + hex)
	return d, err == nil
}

// leftBehind reports whether a file is one that tools leave behind wherever they have been.
func leftBehind(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, "._") || strings.HasPrefix(name, "__MACOSX/") ||
		slices.Contains([]string{".DS_Store", "Thumbs.db", "desktop.ini", ".directory"}, base)
}
