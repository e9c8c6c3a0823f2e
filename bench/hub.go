//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"forebay/test/hubtest"
)

// repository holds all that is measured.
const repository = "library/bench"

// blob is content that the hub has.
type blob struct {
	Digest string
	Size   int64
}

// speeds bound what the hub sends, in bytes a second; 0 means no bound.
type speeds struct {
	Connection int64 // each connection to a CDN
	Line       int64 // all together
}

// runHub is the child that is Docker Hub.
func runHub(in io.Reader, out io.Writer) error {
	h, err := hubtest.Start(hubtest.Options{
		CDN:       string(hubtest.RoleCF), // always the same, so that rounds are alike
		Anonymous: hubtest.Unlimited(),
		TokenTTL:  24 * time.Hour,
		SignedTTL: 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	defer h.Close()
	return answerCalls(in, out, methods{
		"describe": method(func(struct{}) (hubAddress, error) {
			return hubAddress{h.RegistryURL(), h.URL(hubtest.RoleAuth)}, nil
		}),
		"limit": method(func(s speeds) (struct{}, error) {
			h.Set(func(o *hubtest.Options) {
				o.CDNBytesPerSecond, o.LineBytesPerSecond = s.Connection, s.Line
			})
			return struct{}{}, nil
		}),
		"add": method(func(v virtualBlob) (blob, error) {
			return blob{h.PutVirtualBlob(repository, v.Seed, v.Size), v.Size}, nil
		}),
		"tag": method(func(tag string) (taggedImage, error) {
			img := h.PushImage(repository, tag, hubtest.ImageSpec{Layers: 8, LayerSize: kib})
			return taggedImage{tag, img.Digest}, nil
		}),
		"image": method(func(n newImage) (image, error) {
			img := h.PushImage(repository, n.Tag, hubtest.ImageSpec{Layers: n.Layers, LayerSize: n.LayerSize})
			made := image{Paths: []string{"/v2/" + repository + "/manifests/" + n.Tag}}
			for _, d := range img.Blobs() {
				made.Paths = append(made.Paths, "/v2/"+repository+"/blobs/"+d.Digest)
			}
			return made, nil
		}),
		"name": method(func(n named) (struct{}, error) {
			layers := make([]hubtest.Descriptor, len(n.Blobs))
			for i, d := range n.Blobs {
				layers[i] = hubtest.Descriptor{MediaType: hubtest.OCILayer, Digest: d.Digest, Size: d.Size}
			}
			raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": hubtest.OCIManifest, "config": layers[0], "layers": layers})
			if err == nil {
				h.PutManifest(repository, n.Tag, hubtest.OCIManifest, raw)
			}
			return struct{}{}, err
		}),
		"sent": method(func(digest string) (int64, error) { return h.BlobBytes(digest), nil }),
	})
}

type hubAddress struct{ Registry, Auth string }

type virtualBlob struct {
	Seed uint64
	Size int64
}

type newImage struct {
	Tag       string
	Layers    int
	LayerSize int64
}

// named are blobs that the manifest of a tag names.
type named struct {
	Tag   string
	Blobs []blob
}

type taggedImage struct{ Tag, Digest string }

// hub is the child, seen by its parent.
type hub struct {
	*child
	url   string // of the registry, without a slash at the end
	token string // pulls anything of repository for a day
}

func startHub(ctx context.Context, dir string) (*hub, error) {
	c, err := startChild(ctx, childHub, dir, anyCPU)
	if err != nil {
		return nil, err
	}
	h := &hub{child: c}
	at, err := ask[hubAddress](c, "describe", struct{}{})
	if err == nil {
		h.url = at.Registry
		_, err = h.addImage("warm") // the repository must exist before a token for it does
	}
	if err == nil {
		h.token, err = fetchToken(ctx, at.Auth)
	}
	if err != nil {
		_ = h.stop() // what went wrong first is told
		return nil, fmt.Errorf("start hub: %w", err)
	}
	return h, nil
}

// fetchToken gets a token as any client would.
func fetchToken(ctx context.Context, auth string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		auth+"/token?service=registry.docker.io&scope=repository:"+repository+":pull", nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: startWithin}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var body struct{ Token string }
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if response.StatusCode != http.StatusOK || body.Token == "" {
		return "", fmt.Errorf("token: %s", response.Status)
	}
	return body.Token, nil
}

func (h *hub) addBlob(seed uint64, size int64) (blob, error) {
	return ask[blob](h.child, "add", virtualBlob{seed, size})
}

func (h *hub) addImage(tag string) (taggedImage, error) {
	return ask[taggedImage](h.child, "tag", tag)
}

// limit bounds what the hub sends from now on.
func (h *hub) limit(s speeds) error {
	_, err := ask[struct{}](h.child, "limit", s)
	return err
}

// sent returns how many bytes of a blob the hub has sent to all.
func (h *hub) sent(d blob) (int64, error) { return ask[int64](h.child, "sent", d.Digest) }

// get is a download of the blob from the hub itself, as a client with a token does it:
// the registry redirects to a CDN.
func (h *hub) get(d blob) download {
	return download{URL: h.url + blobPath(d), Token: h.token, Size: d.Size}
}

func blobPath(d blob) string { return "/v2/" + repository + "/blobs/" + d.Digest }
