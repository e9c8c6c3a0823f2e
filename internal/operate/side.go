package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/admin"
	"forebay/internal/bundle"
)

// side is the mirror that a bundle is made of or taken into: one that runs, by its admin
// API, or a storage folder. It is a [bundle.Source] and a [bundle.Target].
type side struct{ *operator }

// Open returns kept content. Of a folder it is the file itself.
func (s side) Open(ctx context.Context, d v1.Hash) (io.ReadCloser, error) {
	if s.storage != nil {
		f, _, err := s.storage.Cache.Content(d)
		return f, err
	}
	request, err := s.request(ctx, http.MethodGet, "/content/"+d.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := s.server.http.Do(request)
	if err != nil {
		return nil, s.unreachable(ctx, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, s.refusedBody(response)
	}
	return response.Body, nil
}

// request makes a request whose body, if it has one, is content.
func (s side) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.server.base+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	request.Header.Set(admin.OwnHeader, "1")
	request.Header.Set("User-Agent", "forebay/"+s.p.Version)
	if !s.server.token.Empty() {
		request.Header.Set("Authorization", "Bearer "+s.server.token.Reveal())
	}
	return request, nil
}

func (s side) refusedBody(response *http.Response) error {
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", s.server.base, err)
	}
	return s.refused(response, text)
}

// askedAtOnce is how many digests one question has; the API takes 400.
const askedAtOnce = 400

// Lacks asks which blobs are not kept yet.
func (s side) Lacks(ctx context.Context, blobs []bundle.Blob) ([]bundle.Blob, error) {
	var lacking []bundle.Blob
	for some := range slices.Chunk(blobs, askedAtOnce) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		gone := map[string]bool{}
		var in, out admin.DigestList
		for _, b := range some {
			if s.storage != nil {
				gone[b.Digest.String()] = !s.storage.Cache.Expect(b.Digest)
			}
			in.Digests = append(in.Digests, b.Digest.String())
		}
		if s.storage == nil {
			if _, err := s.ask(ctx, http.MethodPost, "/lacking", nil, in, &out); err != nil {
				return nil, err
			}
		}
		for _, d := range out.Digests {
			gone[d] = true
		}
		for _, b := range some {
			if gone[b.Digest.String()] {
				lacking = append(lacking, b)
			}
		}
	}
	return lacking, nil
}

// TakeIn keeps content.
func (s side) TakeIn(ctx context.Context, b bundle.Blob, r io.Reader) error {
	if s.storage != nil {
		return s.storage.Cache.TakeIn(ctx, b.Digest, b.Size, r)
	}
	// A body of a known length that is empty must not be taken for one of unknown length.
	body := io.Reader(io.LimitReader(r, b.Size))
	if b.Size == 0 {
		body = bytes.NewReader(nil)
	}
	request, err := s.request(ctx, http.MethodPost, "/content/"+b.Digest.String(), body)
	if err != nil {
		return err
	}
	request.ContentLength = b.Size
	response, err := s.server.http.Do(request)
	if err != nil {
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			err = fmt.Errorf("the server ended the transfer: see its log: %w", err)
		}
		return s.unreachable(ctx, err)
	}
	if response.StatusCode >= 300 {
		return s.refusedBody(response)
	}
	return response.Body.Close()
}

// contents lists what belongs to an image.
func (s side) contents(ctx context.Context, ref string, platforms []string, referrers bool) (*cache.Contents, error) {
	q := url.Values{"ref": {ref}}
	if len(platforms) > 0 {
		q.Set("platforms", strings.Join(platforms, ","))
	}
	if referrers {
		q.Set("referrers", "true")
	}
	var out cache.Contents
	_, err := s.ask(ctx, http.MethodGet, "/contents", q, nil, &out)
	return &out, err
}

// stored calls fn with all that is kept, in pages.
func (s side) stored(ctx context.Context, fn func([]cache.Stored)) error {
	q := url.Values{"limit": {strconv.Itoa(5000)}}
	for {
		var page cache.StoredPage
		if _, err := s.ask(ctx, http.MethodGet, "/stored", q, nil, &page); err != nil {
			return err
		}
		fn(page.Blobs)
		if page.Next == "" {
			return nil
		}
		q.Set("after", page.Next)
	}
}

// admit links an image.
func (s side) admit(ctx context.Context, i bundle.Image, pin bool) (*admin.AdmitAnswer, error) {
	var out admin.AdmitAnswer
	in := admin.AdmitRequest{Ref: i.Name, Digest: i.Digest.String(), MediaType: i.MediaType, Size: i.Size, Pin: pin}
	_, err := s.ask(ctx, http.MethodPost, "/admit", nil, in, &out)
	return &out, err
}

// complete fetches what is missing of an image and waits for it.
func (s side) complete(ctx context.Context, ref string, platforms []string) error {
	job, err := s.start(ctx, "/repair", admin.RepairRequest{Ref: ref, Platforms: platforms})
	if err != nil {
		return err
	}
	var done cache.Repaired
	if _, err := s.wait(ctx, job.ID, &done); err != nil {
		return err
	}
	for _, f := range done.Failed {
		return fmt.Errorf("%s: %s", f.Digest, printable(f.Error))
	}
	return nil
}

// isCode reports whether err is an answer of the admin API with that code.
func isCode(err error, code string) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == code
}

// writeResult writes v as JSON for programs.
func writeResult(o *operator, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.writeJSON(text)
}
