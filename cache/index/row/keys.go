// Package row has what the index keeps, and how it is written into the database: a key and
// a record for each fact.
//
// It promises that no two facts have one key, and that a record is decoded whole or not at
// all. What is written here is on the disks of others: a change of form needs a migration.
package row

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
	PrefixVersion = 'v' // v                    → schema version
	PrefixTotals  = 'n' // n                    → totals
	PrefixBlob    = 'b' // b D                  → BlobInfo
	PrefixAccess  = 'a' // a D                  → minutes since 1970, and a hint
	PrefixLink    = 'l' // l U N kind D         → Link
	PrefixHolder  = 'd' // d D kind U N         → nothing; links by digest
	PrefixTag     = 't' // t U N tag            → Tag
	PrefixRepo    = 'r' // r upstream/name      → RepoRecord; sorts as a catalog does
	PrefixDoc     = 'o' // o kind U N key 0 i   → part i of a document
	PrefixPin     = 'p' // p U N ref            → Pin
	PrefixNote    = 'm' // m name               → bookkeeping of others
	PrefixRemote  = 's' // s D                  → Remote
	PrefixUpload  = 'u' // u D                  → Upload
	// PrefixDecision is of what an operator decided.
	PrefixDecision = 'k' // k name                → text
)

// The keys of the two records that are there once. They must not be changed.
var (
	VersionKey = []byte{PrefixVersion}
	TotalsKey  = []byte{PrefixTotals}
)

// MaxName bounds upstream names, repositories, tags and document keys. Badger takes keys
// of up to 65,000 bytes; no valid name comes near (OCI distribution: 255 and 128).
const MaxName = 1024

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

// Valid reports whether k is one of the kinds.
func (k Kind) Valid() bool { return k == Manifest || k == Blob }

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

// Check reports why a repository cannot be part of a key.
func (r Repo) Check() error {
	if err := CheckName("upstream", r.Upstream); err != nil {
		return err
	}
	if strings.IndexByte(r.Upstream, '/') >= 0 {
		return fmt.Errorf("upstream name %.80q has a slash", r.Upstream)
	}
	return CheckName("repository", r.Name)
}

// CheckName reports why a name cannot be part of a key; what says whose name it is.
func CheckName(what, s string) error {
	if s == "" || len(s) > MaxName || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%s name %.80q cannot be a key", what, s)
	}
	return nil
}

// Bytes for the algorithms in keys. They are on disk and never change.
const (
	algSHA256 = 1
	algSHA512 = 2
	algBLAKE3 = 3
)

// AppendDigest appends D. The digest is checked, since hostile ones must not become keys.
func AppendDigest(b []byte, d v1.Hash) ([]byte, error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return nil, err
	}
	switch d.Algorithm {
	case "sha256":
		b = append(b, algSHA256)
	case "sha512":
		b = append(b, algSHA512)
	case "blake3":
		b = append(b, algBLAKE3)
	default:
		return nil, fmt.Errorf("digest algorithm %q has no key", d.Algorithm)
	}
	return hex.AppendDecode(b, []byte(d.Hex))
}

// CutDigest reads D at the start of b and returns the rest.
func CutDigest(b []byte) (v1.Hash, []byte, error) {
	if len(b) > 0 {
		switch n := len(b) - 1; {
		case b[0] == algSHA256 && n >= 32:
			return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(b[1:33])}, b[33:], nil
		case b[0] == algSHA512 && n >= 64:
			return v1.Hash{Algorithm: "sha512", Hex: hex.EncodeToString(b[1:65])}, b[65:], nil
		case b[0] == algBLAKE3 && n >= 32:
			return v1.Hash{Algorithm: "blake3", Hex: hex.EncodeToString(b[1:33])}, b[33:], nil
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

// CutRepo reads U N at the start of b and returns the rest.
func CutRepo(b []byte) (Repo, []byte, error) {
	upstream, b, ok := bytes.Cut(b, []byte{0})
	if ok {
		var name []byte
		if name, b, ok = bytes.Cut(b, []byte{0}); ok {
			return Repo{Upstream: string(upstream), Name: string(name)}, b, nil
		}
	}
	return Repo{}, nil, errors.New("key has no repository")
}

// DigestKey returns the key of a record whose key is a prefix and D.
func DigestKey(prefix byte, d v1.Hash) ([]byte, error) {
	return AppendDigest([]byte{prefix}, d)
}

// RepoKey returns what the keys of a repository with a prefix begin with.
func RepoKey(prefix byte, r Repo) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return appendRepo([]byte{prefix}, r), nil
}

// RecordKey returns the key of the record that counts what a repository holds.
func RecordKey(r Repo) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return append([]byte{PrefixRepo}, r.String()...), nil
}

// LinkKey returns the key of a link.
func LinkKey(r Repo, k Kind, d v1.Hash) ([]byte, error) {
	b, err := RepoKey(PrefixLink, r)
	if err != nil {
		return nil, err
	}
	if !k.Valid() {
		return nil, fmt.Errorf("%s cannot be linked", k)
	}
	return AppendDigest(append(b, byte(k)), d)
}

// HolderKey returns the key of a link by its digest.
func HolderKey(r Repo, k Kind, d v1.Hash) ([]byte, error) {
	b, err := DigestKey(PrefixHolder, d)
	if err != nil {
		return nil, err
	}
	return appendRepo(append(b, byte(k)), r), nil
}

// TagKey returns the key of a tag.
func TagKey(r Repo, tag string) ([]byte, error) {
	b, err := RepoKey(PrefixTag, r)
	if err != nil {
		return nil, err
	}
	if err := CheckName("tag", tag); err != nil {
		return nil, err
	}
	return append(b, tag...), nil
}

// DocKey returns the key of the first part of a document; its last byte counts the parts.
func DocKey(kind DocKind, r Repo, key string) ([]byte, error) {
	b, err := DocPrefix(kind, r)
	if err != nil {
		return nil, err
	}
	if key != "" { // a repository has one tag list, which needs no key
		if err := CheckName("document", key); err != nil {
			return nil, err
		}
	}
	return append(append(b, key...), 0, 0), nil
}

// DocPrefix is what the keys of all documents of a kind in a repository begin with.
func DocPrefix(kind DocKind, r Repo) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return appendRepo([]byte{PrefixDoc, byte(kind)}, r), nil
}

// PinKey returns the key of a pin.
func PinKey(r Repo, ref string) ([]byte, error) {
	b, err := RepoKey(PrefixPin, r)
	if err != nil {
		return nil, err
	}
	if err := CheckName("pinned reference", ref); err != nil {
		return nil, err
	}
	return append(b, ref...), nil
}

// NoteKey returns the key of a note.
func NoteKey(name string) ([]byte, error) {
	if err := CheckName("note", name); err != nil {
		return nil, err
	}
	return append([]byte{PrefixNote}, name...), nil
}

// DocPartKey returns a key of its own, since a transaction keeps it.
func DocPartKey(first []byte, i int) []byte {
	k := append([]byte(nil), first...)
	k[len(k)-1] = byte(i)
	return k
}
