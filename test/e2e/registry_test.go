package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"testing"
)

// registry is Debian's docker-registry: what lies behind the test hub.
type registry struct {
	url string
	dir string // its storage
}

// startRegistry starts one on a folder, which may be new.
func startRegistry(t testing.TB, dir string) *registry {
	t.Helper()
	addr := freeAddr(t)
	config := writeFile(t, stateDir(t), "config.yml", fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: %s}
`, dir, addr))
	r := &registry{url: "http://" + addr, dir: dir}
	startProcess(t, "docker-registry", exec.Command(debianProgram("docker-registry"), "serve", config), func() error {
		return answersOK(r.url + "/v2/")
	})
	return r
}

// push stores an image under every tag; none leaves it to be had by digest.
func (r *registry) push(t testing.TB, repo string, img image, tags ...string) {
	t.Helper()
	if err := r.pushImage(repo, img, tags); err != nil {
		t.Fatalf("push %s: %v", repo, err)
	}
}

func (r *registry) pushImage(repo string, img image, tags []string) error {
	for _, b := range img.blobs {
		if err := r.pushBlob(repo, b); err != nil {
			return fmt.Errorf("blob %s: %w", b.digest, err)
		}
	}
	for _, c := range img.children {
		if err := r.pushManifest(repo, c, c.digest.String()); err != nil {
			return err
		}
	}
	for _, ref := range slices.Concat([]string{img.digest.String()}, tags) {
		if err := r.pushManifest(repo, img, ref); err != nil {
			return err
		}
	}
	return nil
}

func (r *registry) pushManifest(repo string, img image, ref string) error {
	_, err := send(http.MethodPut, r.url+"/v2/"+repo+"/manifests/"+ref, string(img.mediaType), img.bytes, http.StatusCreated)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", ref, err)
	}
	return nil
}

// pushBlob is a monolithic upload, left out if the repository has the blob.
func (r *registry) pushBlob(repo string, b blob) error {
	if _, err := send(http.MethodHead, r.url+"/v2/"+repo+"/blobs/"+b.digest.String(), "", nil, http.StatusOK); err == nil {
		return nil
	}
	where, err := send(http.MethodPost, r.url+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	q := where.Query()
	q.Set("digest", b.digest.String())
	where.RawQuery = q.Encode()
	_, err = send(http.MethodPut, where.String(), "application/octet-stream", b.bytes, http.StatusCreated)
	return err
}

// send makes one request, wants the status and returns the answer's Location.
func send(method, to, contentType string, body []byte, want int) (*url.URL, error) {
	req, err := http.NewRequest(method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, said)
	}
	if resp.Header.Get("Location") == "" {
		return nil, nil
	}
	return resp.Location()
}
