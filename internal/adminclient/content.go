package adminclient

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/admin"
	"forebay/internal/bundle"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// A Client is a [bundle.Source]: content goes by the admin API of a mirror that runs, and
// straight from a storage folder.
var _ bundle.Source = (*Client)(nil)

// Open returns kept content. Of a folder it is the file itself.
func (c *Client) Open(ctx context.Context, d v1.Hash) (io.ReadCloser, error) {
	if c.Storage != nil {
		f, _, err := c.Storage.Keeper.Content(d)
		return f, err
	}
	request, err := c.request(ctx, http.MethodGet, "/content/"+d.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := c.server.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, c.refusedBody(response)
	}
	return response.Body, nil
}

// request makes a request whose body, if it has one, is content.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.server.base+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/octet-stream")
	request.Header.Set(admin.OwnHeader, "1")
	request.Header.Set("User-Agent", "forebay/"+c.Version)
	if !c.server.token.Empty() {
		request.Header.Set("Authorization", "Bearer "+c.server.token.Reveal())
	}
	return request, nil
}

func (c *Client) refusedBody(response *http.Response) error {
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.server.base, err)
	}
	return c.refused(response, text)
}

// Contents lists what belongs to an image: of a tag what it answers with, or, with the name of a
// snapshot, what that says.
func (c *Client) Contents(ctx context.Context, ref, snapshot string, platforms []string, referrers bool) (*admin.Contents, error) {
	q := url.Values{"ref": {ref}, "hold": {"true"}}
	if snapshot != "" {
		q.Set("as_of", snapshot)
	}
	if len(platforms) > 0 {
		q.Set("platforms", strings.Join(platforms, ","))
	}
	if referrers {
		q.Set("referrers", "true")
	}
	var out admin.Contents
	_, err := c.Ask(ctx, http.MethodGet, "/contents", q, nil, &out)
	return &out, err
}

// Stored calls fn with all that is kept, in pages.
func (c *Client) Stored(ctx context.Context, fn func([]admin.Stored)) error {
	q := url.Values{"limit": {strconv.Itoa(5000)}}
	for {
		var page admin.StoredPage
		if _, err := c.Ask(ctx, http.MethodGet, "/stored", q, nil, &page); err != nil {
			return err
		}
		fn(page.Blobs)
		if page.Next == "" {
			return nil
		}
		q.Set("after", page.Next)
	}
}

// Complete fetches what is missing of an image and waits for it.
func (c *Client) Complete(ctx context.Context, ref string, platforms []string) error {
	job, err := c.Start(ctx, "/repair", admin.RepairRequest{Ref: ref, Platforms: platforms})
	if err != nil {
		return err
	}
	var done admin.Repaired
	if _, err := c.Wait(ctx, job.ID, &done); err != nil {
		return err
	}
	for _, f := range done.Failed {
		return fmt.Errorf("%s: %s", f.Digest, terminal.Printable(f.Error))
	}
	return nil
}

// Names asks the server what names of images mean.
func (c *Client) Names(ctx context.Context) (*wire.Registries, error) {
	var r admin.Registries
	if _, err := c.Ask(ctx, http.MethodGet, "/registries", nil, nil, &r); err != nil {
		return nil, err
	}
	return &wire.Registries{Default: r.Default, Names: r.Names, Hosts: r.Hosts}, nil
}
