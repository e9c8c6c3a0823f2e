package hubapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Tag is what the API says of a tag. Nothing in it may be served: it lags.
type Tag struct {
	Name        string
	Digest      v1.Hash // what the tag points at; zero for old tags, of which it is not told
	MediaType   string
	Size        int64     // of the layers for one platform, compressed
	LastUpdated time.Time // zero when not told, as are the others
	LastPushed  time.Time
	LastPulled  time.Time
	Images      []Image
}

// Image is the part of a tag for one platform.
type Image struct {
	Platform string // "linux/arm64/v8"
	Digest   v1.Hash
	Size     int64
}

const (
	pageSize = 100 // the most that the API gives
	// pagesMax bounds a list: 50,000 tags, which is more than three minutes' budget.
	pagesMax = 500
)

// Tags returns the tags of a repository ("library/nginx"), the latest change first. most
// bounds their number and with it the requests, one for each 100; 0 means all of them.
func (c *Client) Tags(ctx context.Context, repo string, most int) ([]Tag, error) {
	op := "list tags of " + repo
	u, err := c.repositoryURL(op, repo, "/tags")
	if err != nil {
		return nil, err
	}
	u.RawQuery = "ordering=last_updated&page_size=" + pageOf(most)
	return list(ctx, c, op, u, most, parseTag)
}

// Tag returns one tag.
func (c *Client) Tag(ctx context.Context, repo, tag string) (Tag, error) {
	op := "get tag " + repo + ":" + tag
	if !wire.ValidTag(tag) {
		return Tag{}, fail(pull.Invalid, op, fmt.Errorf("%q is no tag", tag))
	}
	u, err := c.repositoryURL(op, repo, "/tags/"+tag)
	if err != nil {
		return Tag{}, err
	}
	body, err := c.get(ctx, op, u)
	if err != nil {
		return Tag{}, err
	}
	t, err := parseTag(body)
	if err == nil && t.Name != tag {
		err = fmt.Errorf("the answer is about tag %q", t.Name)
	}
	if err != nil {
		return Tag{}, fail(pull.Invalid, op, err)
	}
	return t, nil
}

// pageOf returns the size of pages for a list of most elements.
func pageOf(most int) string {
	if most <= 0 || most > pageSize {
		most = pageSize
	}
	return strconv.Itoa(most)
}

func (c *Client) repositoryURL(op, repo, rest string) (*url.URL, error) {
	namespace, short, ok := strings.Cut(repo, "/")
	if !ok || strings.Contains(short, "/") || !wire.ValidRepository(repo) {
		return nil, fail(pull.Invalid, op, fmt.Errorf("%q is no repository of Docker Hub, which are NAMESPACE/NAME", repo))
	}
	u := *c.base
	u.Path += "/v2/namespaces/" + namespace + "/repositories/" + short + rest
	return &u, nil
}

// list follows the pages of a list from u on. A link to another host, or to a page that
// was there already, is an error: what came so far would look like everything.
func list[T any](ctx context.Context, c *Client, op string, u *url.URL, most int, parse func([]byte) (T, error)) ([]T, error) {
	var all []T
	seen := map[string]bool{}
	for range pagesMax {
		seen[u.String()] = true
		body, err := c.get(ctx, op, u)
		if err != nil {
			return nil, err
		}
		p, err := parsePage(body)
		if err != nil {
			return nil, fail(pull.Invalid, op, err)
		}
		for _, raw := range p.Results {
			one, err := parse(raw)
			if err != nil {
				return nil, fail(pull.Invalid, op, err)
			}
			if all = append(all, one); most > 0 && len(all) == most {
				return all, nil
			}
		}
		if p.Next == "" {
			return all, nil
		}
		if u, err = c.nextPage(u, p.Next, seen); err != nil {
			return nil, fail(pull.Invalid, op, err)
		}
	}
	return nil, fail(pull.Invalid, op, fmt.Errorf("more than %d pages", pagesMax))
}

func (c *Client) nextPage(from *url.URL, next string, seen map[string]bool) (*url.URL, error) {
	u, err := from.Parse(next)
	if err != nil {
		return nil, errors.New("the link to the next page is no URL")
	}
	u.Fragment = ""
	if err := c.within(u); err != nil {
		return nil, fmt.Errorf("link to the next page: %w", err)
	}
	if seen[u.String()] {
		return nil, errors.New("the pages of the list run in a circle")
	}
	return u, nil
}

type page struct {
	Next    string            `json:"next"` // null on the last page
	Results []json.RawMessage `json:"results"`
}

// parsePage reads one page of a list. An answer without results is no empty list.
func parsePage(body []byte) (page, error) {
	var p page
	if err := json.Unmarshal(body, &p); err != nil || p.Results == nil {
		return page{}, errors.New("the answer is no page of a list")
	}
	return p, nil
}

// stamp is a time that may be null or nonsense, which is no reason to fail.
type stamp struct{ time.Time }

// UnmarshalJSON reads RFC 3339 and leaves the zero time for anything else.
func (s *stamp) UnmarshalJSON(b []byte) error {
	if t, err := time.Parse(time.RFC3339, string(bytes.Trim(b, `"`))); err == nil {
		s.Time = t.UTC()
	}
	return nil
}

// hash is a digest that may be missing or nonsense, which is no reason to fail.
type hash struct{ v1.Hash }

// UnmarshalJSON reads a digest and leaves the zero value for anything else.
func (h *hash) UnmarshalJSON(b []byte) error {
	if d, err := wire.ParseDigest(string(bytes.Trim(b, `"`))); err == nil {
		h.Hash = d
	}
	return nil
}

// parseTag reads a tag object.
func parseTag(body []byte) (Tag, error) {
	var o struct {
		Name        string `json:"name"`
		Digest      hash   `json:"digest"`
		MediaType   string `json:"media_type"`
		FullSize    int64  `json:"full_size"`
		LastUpdated stamp  `json:"last_updated"`
		LastPushed  stamp  `json:"tag_last_pushed"`
		LastPulled  stamp  `json:"tag_last_pulled"`
		Images      []struct {
			OS           string `json:"os"`
			Architecture string `json:"architecture"`
			Variant      string `json:"variant"`
			Digest       hash   `json:"digest"`
			Size         int64  `json:"size"`
		} `json:"images"`
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return Tag{}, errors.New("the answer is no tag object")
	}
	if !wire.ValidTag(o.Name) {
		return Tag{}, errors.New("the answer has a tag without a valid name")
	}
	t := Tag{
		Name: o.Name, Digest: o.Digest.Hash, MediaType: line(o.MediaType), Size: max(o.FullSize, 0),
		LastUpdated: o.LastUpdated.Time, LastPushed: o.LastPushed.Time, LastPulled: o.LastPulled.Time,
	}
	for _, i := range o.Images {
		platform := i.OS + "/" + i.Architecture
		if i.Variant != "" {
			platform += "/" + i.Variant
		}
		t.Images = append(t.Images, Image{Platform: line(platform), Digest: i.Digest.Hash, Size: max(i.Size, 0)})
	}
	return t, nil
}

// lineMax bounds a text that is shown to people.
const lineMax = 256

// line returns s without what would disturb a terminal.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
	return wire.Clip(s, lineMax)
}
