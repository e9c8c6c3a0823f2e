package index

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// The first byte of a key says what it is. D is a digest: one byte for the algorithm,
// then its 32 or 64 bytes. U and N are an upstream and a repository name, each followed
// by a zero byte, which names never contain, so that keys are unambiguous and sort by name.
const (
	prefixVersion = 'v' // v                    → schema version
	prefixTotals  = 'n' // n                    → totals
	prefixBlob    = 'b' // b D                  → BlobInfo
	prefixAccess  = 'a' // a D                  → minutes since 1970, and a hint
	prefixLink    = 'l' // l U N kind D         → Link
	prefixHolder  = 'd' // d D kind U N         → nothing; links by digest
	prefixTag     = 't' // t U N tag            → Tag
	prefixRepo    = 'r' // r upstream/name      → repoRecord; sorts as a catalog does
	prefixDoc     = 'o' // o kind U N key 0 i   → part i of a document
	prefixPin     = 'p' // p U N ref            → Pin
	prefixNote    = 'm' // m name               → bookkeeping of others
	prefixRemote  = 's' // s D                  → Remote
	prefixUpload  = 'u' // u D                  → Upload
)

var (
	versionKey = []byte{prefixVersion}
	totalsKey  = []byte{prefixTotals}
)

// maxName bounds upstream names, repositories, tags and document keys. Badger takes keys
// of up to 65,000 bytes; no valid name comes near (OCI distribution: 255 and 128).
const maxName = 1024

// Kind says what a repository holds a digest as.
type Kind byte

// The kinds of links.
const (
	Manifest Kind = 'm'
	Blob     Kind = 'b'
)

func (k Kind) String() string {
	switch k {
	case Manifest:
		return "manifest"
	case Blob:
		return "blob"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

func (k Kind) valid() bool { return k == Manifest || k == Blob }

// DocKind says what a document is. New kinds may be added, up to 255.
type DocKind byte

// The kinds of documents.
const (
	TagList      DocKind = 1
	ReferrerList DocKind = 2
)

// Repo names a repository of an upstream: the scope of links, tags and documents.
type Repo struct {
	Upstream string // public name, "docker.io"
	Name     string // canonical, "library/nginx"
}

func (r Repo) String() string { return r.Upstream + "/" + r.Name }

func (r Repo) check() error {
	if err := checkName("upstream", r.Upstream); err != nil {
		return err
	}
	if strings.IndexByte(r.Upstream, '/') >= 0 {
		return fmt.Errorf("upstream name %.80q has a slash", r.Upstream)
	}
	return checkName("repository", r.Name)
}

func checkName(what, s string) error {
	if s == "" || len(s) > maxName || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%s name %.80q cannot be a key", what, s)
	}
	return nil
}

// Bytes for the algorithms in keys. They are on disk and never change.
const (
	algSHA256 = 1
	algSHA512 = 2
)

// appendDigest appends D. The digest is checked, since hostile ones must not become keys.
func appendDigest(b []byte, d v1.Hash) ([]byte, error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return nil, err
	}
	switch d.Algorithm {
	case "sha256":
		b = append(b, algSHA256)
	case "sha512":
		b = append(b, algSHA512)
	default:
		return nil, fmt.Errorf("digest algorithm %q has no key", d.Algorithm)
	}
	return hex.AppendDecode(b, []byte(d.Hex))
}

// cutDigest reads D at the start of b and returns the rest.
func cutDigest(b []byte) (v1.Hash, []byte, error) {
	if len(b) > 0 {
		switch n := len(b) - 1; {
		case b[0] == algSHA256 && n >= 32:
			return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(b[1:33])}, b[33:], nil
		case b[0] == algSHA512 && n >= 64:
			return v1.Hash{Algorithm: "sha512", Hex: hex.EncodeToString(b[1:65])}, b[65:], nil
		}
	}
	return v1.Hash{}, nil, errors.New("key has no digest")
}

func appendRepo(b []byte, r Repo) []byte {
	b = append(b, r.Upstream...)
	b = append(b, 0)
	b = append(b, r.Name...)
	return append(b, 0)
}

// cutRepo reads U N at the start of b and returns the rest.
func cutRepo(b []byte) (Repo, []byte, error) {
	upstream, b, ok := bytes.Cut(b, []byte{0})
	if ok {
		var name []byte
		if name, b, ok = bytes.Cut(b, []byte{0}); ok {
			return Repo{Upstream: string(upstream), Name: string(name)}, b, nil
		}
	}
	return Repo{}, nil, errors.New("key has no repository")
}

func digestKey(prefix byte, d v1.Hash) ([]byte, error) {
	return appendDigest([]byte{prefix}, d)
}

func repoKey(prefix byte, r Repo) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return appendRepo([]byte{prefix}, r), nil
}

// recordKey returns the key of the record that counts what a repository holds.
func recordKey(r Repo) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return append([]byte{prefixRepo}, r.String()...), nil
}

func linkKey(r Repo, k Kind, d v1.Hash) ([]byte, error) {
	b, err := repoKey(prefixLink, r)
	if err != nil {
		return nil, err
	}
	if !k.valid() {
		return nil, fmt.Errorf("%s cannot be linked", k)
	}
	return appendDigest(append(b, byte(k)), d)
}

func holderKey(r Repo, k Kind, d v1.Hash) ([]byte, error) {
	b, err := digestKey(prefixHolder, d)
	if err != nil {
		return nil, err
	}
	return appendRepo(append(b, byte(k)), r), nil
}

func tagKey(r Repo, tag string) ([]byte, error) {
	b, err := repoKey(prefixTag, r)
	if err != nil {
		return nil, err
	}
	if err := checkName("tag", tag); err != nil {
		return nil, err
	}
	return append(b, tag...), nil
}

// docKey returns the key of the first part of a document; its last byte counts the parts.
func docKey(kind DocKind, r Repo, key string) ([]byte, error) {
	b, err := docPrefix(kind, r)
	if err != nil {
		return nil, err
	}
	if key != "" { // a repository has one tag list, which needs no key
		if err := checkName("document", key); err != nil {
			return nil, err
		}
	}
	return append(append(b, key...), 0, 0), nil
}

// docPrefix is what the keys of all documents of a kind in a repository begin with.
func docPrefix(kind DocKind, r Repo) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return appendRepo([]byte{prefixDoc, byte(kind)}, r), nil
}
