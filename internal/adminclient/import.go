package adminclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/upkeep"
	"forebay/internal/admin"
	"forebay/internal/bundle"
)

// Import is one import into the mirror, which remembers there what it has brought. It is a
// [bundle.Target]; its owner calls End.
type Import struct {
	// AllowOlder takes in what is older than what is there, and moves tags back.
	AllowOlder bool

	c    *Client
	id   string
	refs []string // see [admin.LackingRequest]
}

var _ bundle.Target = (*Import)(nil)

// NewImport returns an import that has not begun.
func (c *Client) NewImport() *Import { return &Import{c: c} }

// refsMost bounds the repositories of one question. No layer is that of so many.
const refsMost = 16

// Begin begins the import. images may be nil; their names are in full.
func (i *Import) Begin(ctx context.Context, images []bundle.Image, proof *bundle.Proof) error {
	in := admin.ImportRequest{AllowOlder: i.AllowOlder}
	if proof != nil {
		in.Signed = &admin.SignedManifest{Manifest: string(proof.Text), Signature: string(proof.Signature), Key: bundle.PublicKeyText(proof.Keys[0])}
	}
	var out admin.Import
	if _, err := i.c.Ask(ctx, http.MethodPost, "/imports", nil, in, &out); err != nil {
		return err
	}
	i.id, i.refs = out.ID, nil
	for _, image := range images {
		if repo := bundle.RepositoryOf(image.Name); !slices.Contains(i.refs, repo) {
			i.refs = append(i.refs, repo)
		}
		if len(i.refs) > refsMost {
			i.refs = nil
			break
		}
	}
	return nil
}

// End ends the import, if it has begun.
func (i *Import) End() {
	if i.id != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // also of one that was interrupted
		defer cancel()
		// The mirror forgets it by itself otherwise.
		_, _ = i.c.Ask(ctx, http.MethodDelete, i.path(""), nil, nil, nil)
	}
}

func (i *Import) path(what string) string { return "/imports/" + i.id + what }

// askedAtOnce is how many digests one question has; the API takes 400.
const askedAtOnce = 400

// Lacks asks which blobs have to be brought for the images that the import began with.
func (i *Import) Lacks(ctx context.Context, blobs []bundle.Blob) ([]bundle.Blob, error) {
	if len(i.refs) == 0 {
		return blobs, nil
	}
	return i.LacksFor(ctx, i.refs, blobs)
}

// LacksFor asks which blobs have to be brought for images of some repositories.
func (i *Import) LacksFor(ctx context.Context, refs []string, blobs []bundle.Blob) (lacking []bundle.Blob, err error) {
	for some := range slices.Chunk(blobs, askedAtOnce) {
		in := admin.LackingRequest{Refs: refs}
		for _, b := range some {
			in.Digests = append(in.Digests, b.Digest.String())
		}
		var out admin.DigestList
		if _, err := i.c.Ask(ctx, http.MethodPost, i.path("/lacking"), nil, in, &out); err != nil {
			return nil, err
		}
		for _, b := range some {
			if slices.Contains(out.Digests, b.Digest.String()) {
				lacking = append(lacking, b)
			}
		}
	}
	return lacking, nil
}

// TakeIn brings content.
func (i *Import) TakeIn(ctx context.Context, b bundle.Blob, r io.Reader) (had bool, err error) {
	out, err := i.send(ctx, "/content/"+b.Digest.String(), b.Size, r)
	return out.Had, err
}

// TakeUnnamed brings content whose digest the mirror finds out.
func (i *Import) TakeUnnamed(ctx context.Context, size int64, r io.Reader) (d v1.Hash, had bool, err error) {
	out, err := i.send(ctx, "/content", size, r)
	return out.Digest.Hash, out.Had, err
}

func (i *Import) send(ctx context.Context, what string, size int64, r io.Reader) (out admin.TakenIn, err error) {
	// A body of a known length that is empty must not be taken for one of unknown length.
	body := io.Reader(io.LimitReader(r, size))
	if size == 0 {
		body = bytes.NewReader(nil)
	}
	request, err := i.c.request(ctx, http.MethodPost, i.path(what), body)
	if err != nil {
		return out, err
	}
	request.ContentLength = size
	response, err := i.c.server.http.Do(request)
	if err != nil {
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			err = fmt.Errorf("the server ended the transfer: see its log: %w", err)
		}
		return out, i.c.unreachable(ctx, err)
	}
	if response.StatusCode >= 300 {
		return out, i.c.refusedBody(response)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, answerMost)).Decode(&out); err != nil {
		return out, fmt.Errorf("%s gives no answer of the admin API: %w", i.c.server.base, err)
	}
	return out, nil
}

// Adopt brings the content of a file, into a folder by a hard link if it may.
func (i *Import) Adopt(ctx context.Context, b bundle.Blob, f *os.File, duplicate bool) (upkeep.Adopted, error) {
	if i.c.Storage == nil {
		had, err := i.TakeIn(ctx, b, f)
		if had {
			return upkeep.Had, err
		}
		return upkeep.Copied, err
	}
	here, err := i.c.Storage.Keeper.FindImport(i.id)
	if err != nil {
		return "", err
	}
	return here.Adopt(ctx, b.Digest.Hash, f, duplicate)
}

// Admit links an image.
func (i *Import) Admit(ctx context.Context, in admin.AdmitRequest) (*admin.AdmitAnswer, error) {
	var out admin.AdmitAnswer
	_, err := i.c.Ask(ctx, http.MethodPost, i.path("/admit"), nil, in, &out)
	return &out, err
}
