package disktest

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// digester computes the digest of what is written to it.
type digester struct{ sum hash.Hash }

func newDigester() *digester { return &digester{sha256.New()} }

func (d *digester) Write(b []byte) (int, error) { return d.sum.Write(b) }

func (d *digester) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(d.sum.Sum(nil))}
}

func digestOfFile(name string) (v1.Hash, error) {
	f, err := os.Open(name)
	if err != nil {
		return v1.Hash{}, err
	}
	defer f.Close()
	d := newDigester()
	if _, err := io.Copy(d, f); err != nil {
		return v1.Hash{}, err
	}
	return d.digest(), nil
}
