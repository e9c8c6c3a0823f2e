package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func FuzzUnpack(f *testing.F) {
	here := memory{}
	p := image(here, appName, "one", "two")
	a, _ := New(p)
	var b bytes.Buffer
	if err := a.WriteTo(context.Background(), &b, here, 0, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	var z bytes.Buffer
	w, _ := Packed(&z)
	_, _ = w.Write(b.Bytes())
	_ = w.Close()
	f.Add(z.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: there})
		if err != nil {
			return
		}
		for _, i := range got.Images {
			if i.check() != nil {
				t.Errorf("an image that is none: %+v", i)
			}
		}
		for d, b := range there {
			if d.Algorithm == "sha256" && blobOf(b).Digest.Hash != d {
				t.Errorf("%s is not what its name says", d)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	a, _ := New(image(memory{}, appName, "one"))
	f.Add(a.Manifest)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		again, err := parseManifest(m.Encode())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if !bytes.Equal(again.Encode(), m.Encode()) {
			t.Error("it changes as it is written")
		}
	})
}

func FuzzInventory(f *testing.F) {
	f.Add([]byte(inventoryFormat + "\n" + blobOf(nil).Digest.String() + " 5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		blobs, err := ReadInventory(bytes.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Inventory(&b, blobs); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadInventory(&b); err != nil || !slices.Equal(again, blobs) {
			t.Errorf("it changes as it is written: %v", err)
		}
	})
}

func FuzzVolumes(f *testing.F) {
	f.Add([]byte(`{"format":"forebay-volumes/1","name":"a","volume_size":1048576,"complete":true,"volumes":[{"name":"a.001","size":1,"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseVolumes(text)
		if err != nil {
			return
		}
		for _, one := range v.Volumes {
			if filepath.Base(one.Name) != one.Name {
				t.Errorf("a volume is called %q", one.Name)
			}
		}
	})
}

func FuzzKeysAndSignatures(f *testing.F) {
	_, private, _ := ed25519.GenerateKey(nil)
	signature, _ := Sign(private, []byte("x"))
	f.Add(signature)
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8= x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := Proof{Text: []byte("x"), Signature: text, Keys: []ed25519.PublicKey{make([]byte, ed25519.PublicKeySize)}}
		if _, err := p.Check(); err == nil {
			t.Error("a signature by nobody is right")
		}
		_, _ = ParsePublicKeys(text)
		_, _ = ParsePrivateKey(text, nil)
	})
}
