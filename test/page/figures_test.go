package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/admin"
	"forebay/test/hubtest"
)

// What is told of a scripted hour is what the hub and the clients counted, exactly.
func TestFiguresAreTrue(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	hub := hubtest.New(t, hubtest.Options{})
	image := hub.PushImage("library/app", "v1", hubtest.ImageSpec{Platforms: []string{"linux/amd64"}, Index: true, Layers: 2, LayerSize: 1 << 20})
	program := build(t, root)
	s := newServer(t, program, t.TempDir(), "figures", "cost: {per_gib: 2}\nupstreams:\n"+upstreamOf("docker.io", hub))
	w := &world{data: s}
	child := image.Children[0]
	size := int64(len(image.Raw)+len(child.Raw)) + child.Config.Size
	for _, l := range child.Layers {
		size += l.Size
	}
	for _, client := range []string{"21", "22", "22"} {
		if err := w.pull(client, "containerd/v2.0.0", image); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.missing("23"); err != nil {
		t.Fatal(err)
	}
	hub.Settle(t)

	var status admin.Status
	s.fetch(t, "/api/v1/status", &status)
	u := status.Usage
	const parts = 5 // index, manifest, configuration, two layers
	gets := int64(hub.ManifestGets(image.Digest) + hub.ManifestGets(child.Digest))
	want := admin.Traffic{
		Miss: parts, Hit: 2 * parts, Error: 1, Pulls: 6, SavedPulls: 6 - gets,
		ClientBytes: 3*size + u.ClientBytes%size, UpstreamBytes: size,
	}
	if diff := cmp.Diff(want, u.Traffic); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if refusal := u.ClientBytes - 3*size; refusal <= 0 || refusal > 200 {
		t.Errorf("clients got %d bytes beside their images, want one refusal", refusal)
	}
	if u.SavedBytes != u.ClientBytes-size || u.Saved != float64(u.SavedBytes)/(1<<30)*2 {
		t.Errorf("saved %d bytes worth %g, want %d at 2 a GiB", u.SavedBytes, u.Saved, u.ClientBytes-size)
	}
	checkClients(t, s, size, parts)

	var series admin.Series
	err = eventually(2*time.Minute, func() error { // what just happened is in it at once
		s.fetch(t, "/api/v1/series?span=hour", &series)
		if series.Sum != u.Traffic {
			return fmt.Errorf("the history has %+v, want %+v", series.Sum, u.Traffic)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	out, err := exec.Command(program, "status", "--config", s.config).Output()
	if err != nil {
		t.Fatalf("forebay status: %v", err)
	}
	for _, text := range []string{"16 since the start, 62.5 % answered without fetching; 1 error", "4 pulls of 6"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("forebay status lacks %q:\n%s", text, out)
		}
	}
}

func checkClients(t *testing.T, s *server, size, parts int64) {
	t.Helper()
	var list admin.ClientList
	s.fetch(t, "/api/v1/clients", &list)
	got := map[string]admin.Tally{}
	for _, c := range list.Clients {
		got[c.Address] = c.Tally
	}
	want := map[string]admin.Tally{
		"127.0.1.21": {Requests: parts, Pulls: 2, Bytes: size},
		"127.0.1.22": {Requests: 2 * parts, Hits: 2 * parts, Pulls: 4, SavedPulls: 4, Bytes: 2 * size},
		"127.0.1.23": {Requests: 1, Errors: 1, Bytes: got["127.0.1.23"].Bytes},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("clients (-want +got):\n%s", diff)
	}
}

func (s *server) fetch(t *testing.T, path string, to any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(to); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("get %s: %s, %v", path, res.Status, err)
	}
}
