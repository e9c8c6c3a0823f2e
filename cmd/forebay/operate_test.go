package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/statefile"
	"forebay/internal/wire"
	"forebay/test/hubtest"
)

// operated is a mirror in front of a test hub, and a way to run commands on it.
type operated struct {
	*started
	t   *testing.T
	hub *hubtest.Hub
	dir string
}

func newOperated(t *testing.T, more string) *operated {
	t.Helper()
	hub := hubtest.New(t, hubtest.Options{})
	o := &operated{t: t, hub: hub, dir: t.TempDir()}
	o.started = start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n%s", o.dir, hub.RegistryURL(), more))
	return o
}

// run runs a command on the server and checks its exit code.
func (o *operated) run(code int, args ...string) (stdout, stderr string) {
	o.t.Helper()
	got, stdout, stderr := execute(o.t, o.asked(), args...)
	if got != code {
		o.t.Errorf("forebay %s = %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout, stderr
}

// asked are the variables by which a command finds the server.
func (o *operated) asked() []string {
	return []string{"FOREBAY_ADMIN=" + o.admin} // on this machine it says where its token is
}

// asks gets a page of the admin listener with the token that the server made for itself.
func (o *operated) asks(path string) (int, string) {
	o.t.Helper()
	token, err := statefile.ReadToken(filepath.Join(o.dir, admin.OwnToken))
	if err != nil {
		o.t.Fatal(err)
	}
	return get(o.t, o.admin+path, "Authorization", "Bearer "+token)
}

// shows runs a command that must succeed and show all of the texts.
func (o *operated) shows(args string, texts ...string) {
	o.t.Helper()
	out, _ := o.run(0, strings.Fields(args)...)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			o.t.Errorf("forebay %s lacks %q:\n%s", args, text, out)
		}
	}
}

// pull gets an image's manifest and blobs through the mirror.
func (o *operated) pull(repo, ref string, blobs ...hubtest.Descriptor) {
	o.t.Helper()
	if status, body := get(o.t, o.registry+"/v2/"+repo+"/manifests/"+ref); status != 200 {
		o.t.Fatalf("pull %s:%s = %d %s", repo, ref, status, body)
	}
	for _, b := range blobs {
		if status, _ := get(o.t, o.registry+"/v2/"+repo+"/blobs/"+b.Digest); status != 200 {
			o.t.Fatalf("pull %s@%s = %d", repo, b.Digest, status)
		}
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to this: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestStatusTellsWhatIsLeftAndWhoSpentIt(t *testing.T) {
	o := newOperated(t, "")
	for i, repo := range []string{"library/alpine", "library/busybox", "library/a", "library/b", "library/c", "library/d", "library/e"} {
		image := o.hub.PushImage(repo, "1", hubtest.ImageSpec{Seed: uint64(i + 1)})
		o.pull(repo, "1", image.Blobs()...)
	}
	o.shows("status", "Budget of docker.io (anonymous at ", "93 of 100 pulls left per 1h", "SPENT BY", "127.0.0.1", "library/alpine", "all others", "more ")
	if out, _ := o.run(0, "status"); !strings.Contains(out, "All is well.") || strings.Contains(out, "library/e") {
		t.Errorf("status shows trouble without any, or more than five who spent:\n%s", out)
	}
	o.hub.SpendAll("127.0.0.1")
	o.hub.PushImage("library/new", "1", hubtest.ImageSpec{Seed: 99})
	if status, _ := get(t, o.registry+"/v2/library/new/manifests/1"); status != 429 {
		t.Errorf("manifest at the limit = %d, want 429", status)
	}
	eventually(t, "status says first that the limit is spent", func() bool {
		out, _ := o.run(0, "status")
		return strings.Contains(out, "CRITICAL  Docker Hub: 0 of 100 pulls left")
	})
	o.shows("status", "0 of 100 pulls left", "below the reserve", "no pulls until ", "not through this mirror", "429 SINCE THE START", "pulls 1")
	o.hub.Close()
	n := 0
	eventually(t, "most requests fail, and status says so first", func() bool {
		n++
		get(t, o.registry+"/v2/library/new/blobs/"+hubtest.Digest(fmt.Append(nil, n)))
		out, _ := o.run(0, "status")
		return strings.Contains(out, "CRITICAL  Docker Hub refuses connections")
	})
	o.shows("status", "fails", "Served:", "Do:")
}

func TestOperatorLooksAtWhatIsKept(t *testing.T) {
	o := newOperated(t, "")
	_, stderr := o.run(0, "ls")
	if !strings.Contains(stderr, "Nothing is kept yet.") {
		t.Errorf("ls of nothing: %s", stderr)
	}
	image := o.hub.PushImage("library/alpine", "3.20", hubtest.ImageSpec{})
	o.hub.PushImage("library/busybox", "1", hubtest.ImageSpec{})
	o.pull("library/alpine", "3.20", image.Blobs()...)
	o.pull("library/busybox", "1")

	o.shows("ls", "REPOSITORY", "docker.io/library/alpine", "3.20", image.Digest[:19], "docker.io/library/busybox")
	o.shows("ls alpine", "3.20")
	if out, _ := o.run(0, "ls", "alpine:*"); strings.Contains(out, "busybox") {
		t.Errorf("ls of a pattern shows others:\n%s", out)
	}
	if _, stderr := o.run(0, "ls", "none"); !strings.Contains(stderr, "Nothing that is kept matches none.") {
		t.Errorf("ls of nothing that matches: %s", stderr)
	}
	o.shows("images", "docker.io/library/alpine:3.20", "linux/amd64", "complete", "incomplete")
	if out, _ := o.run(0, "images", "--missing"); strings.Contains(out, "alpine") || !strings.Contains(out, "busybox") {
		t.Errorf("images --missing:\n%s", out)
	}
	o.shows("inspect alpine:3.20", "State:", "complete", image.Digest, image.Blobs()[0].Digest, "config", "layer", "kept")
	o.shows("tag history alpine:3.20", image.Digest, "yes")
	o.shows("images -o yaml", "- upstream: docker.io\n  repository: library/alpine\n  tag: \"3.20\"\n")
	o.shows("ls -o name", "docker.io/library/alpine:3.20\n")
	if out, _ := o.run(0, "images", "-o", "name"); !strings.HasPrefix(out, "docker.io/library/alpine:3.20\n") || strings.Contains(out, "IMAGE") || strings.Contains(out, "complete") {
		t.Errorf("images -o name:\n%s", out)
	}
	if out, _ := o.run(0, "__complete", "pin", ""); !strings.Contains(out, "docker.io/library/alpine:3.20\n") {
		t.Errorf("completion of an image:\n%s", out)
	}
	o.shows("__complete inspect docker.io/library/b", "docker.io/library/busybox:1\n")
	if _, stderr := o.run(1, "ls", "--token-file", write(t, "wrong", "not-the-token-0123456789")); !strings.Contains(stderr, "that is not the token of http://") {
		t.Errorf("ls with a wrong token: %s", stderr)
	}
	o.shows("stats", "Kept:", "Known:", "2 tags in 2 repositories", "Scrub:")
	o.shows("status", "docker.io", "answers", "Kept:")
	o.shows("refresh alpine:3.20", "has not moved: "+image.Digest)
	moved := o.hub.PushImage("library/alpine", "3.20", hubtest.ImageSpec{Seed: 7})
	o.shows("refresh docker.io/library/alpine:3.20", "moved", image.Digest, moved.Digest)
	o.shows("tag history alpine:3.20", moved.Digest, image.Digest)

	if _, stderr := o.run(1, "inspect", "alpine:none"); !strings.Contains(stderr, "forebay: docker.io/library/alpine:none: nothing is kept under this name") {
		t.Errorf("inspect of nothing: %s", stderr)
	}
	if _, stderr := o.run(2, "inspect", "quay.io/x/y"); !strings.Contains(stderr, `registry "quay.io" is not configured here`) {
		t.Errorf("inspect of another registry: %s", stderr)
	}
	if _, stderr := o.run(1, "refresh", "alpine:none"); !strings.Contains(stderr, "not found") {
		t.Errorf("refresh of nothing: %s", stderr)
	}
}

func TestOperatorsCommandsSpeakJSON(t *testing.T) {
	o := newOperated(t, "")
	pushed := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	o.pull("library/alpine", "1", pushed.Blobs()...)
	for _, tt := range []struct {
		args string
		to   any
	}{
		{"ls", &[]admin.Image{}}, {"images", &[]admin.Image{}}, {"ls none*", &[]admin.Image{}}, {"inspect alpine:1", &admin.Image{}},
		{"tag history alpine:1", &admin.History{}}, {"stats", &admin.Stats{}}, {"status", &admin.Status{}}, {"pins", &admin.PinList{}},
		{"jobs", &admin.JobList{}}, {"refresh alpine:1", &admin.RefreshAnswer{}}, {"repair alpine:1", &admin.Job{}}, {"verify", &admin.Job{}},
		{"gc --dry-run", &admin.Job{}}, {"pin alpine:1", &admin.PinAnswer{}}, {"pins", &admin.PinList{}},
		{"purge --force alpine:1", &admin.PurgeAnswer{}},
	} {
		args, to := tt.args, tt.to
		out, stderr := o.run(0, append(strings.Fields(args), "--json")...)
		d := json.NewDecoder(strings.NewReader(out))
		d.DisallowUnknownFields()
		if err := d.Decode(to); err != nil {
			t.Errorf("forebay %s --json: %v in %s", args, err, out)
		}
		if _, err := d.Token(); err != io.EOF || stderr != "" {
			t.Errorf("forebay %s --json writes more: %v, %s", args, err, stderr)
		}
	}
}

func TestOperatorRepairsPurgesAndPins(t *testing.T) {
	o := newOperated(t, "")
	image := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{Layers: 3})
	o.pull("library/alpine", "1")
	o.shows("repair alpine:1", "fetched 4 blobs", "the image is complete")
	o.shows("repair alpine:1", "fetched 0 blobs")
	o.shows("pin alpine:1", "pinned docker.io/library/alpine:1 (platforms that are pulled)")
	o.shows("pins", "docker.io/library/alpine:1", "complete", "pinned,")
	o.shows("ls", "1 (pinned)")
	if _, stderr := o.run(1, "purge", "alpine"); !strings.Contains(stderr, "is pinned: unpin it first, or force it") {
		t.Errorf("purge of what is pinned: %s", stderr)
	}
	o.run(0, "unpin", "alpine:1")
	if _, stderr := o.run(1, "unpin", "alpine:1"); !strings.Contains(stderr, "is not pinned") {
		t.Errorf("unpin twice: %s", stderr)
	}
	o.shows("purge alpine:1", "purged image docker.io/library/alpine:1: 1 tag,", "5 files")
	if _, stderr := o.run(1, "purge", "alpine:1"); !strings.Contains(stderr, "nothing is kept") {
		t.Errorf("purge twice: %s", stderr)
	}
	o.shows("pin alpine:1 --platform linux/amd64", "fetched 4 blobs", "the image is complete")
	o.hub.SwitchOff()
	o.pull("library/alpine", "1", image.Blobs()...)
	o.shows("purge --force "+image.Blobs()[1].Digest, "purged digest")
	if _, stderr := o.run(1, "repair", "alpine:1"); !strings.Contains(stderr, image.Blobs()[1].Digest) || !strings.Contains(stderr, "1 blob could not be fetched") {
		t.Errorf("repair while the registry is off: %s", stderr)
	}
	o.shows("images --missing", "alpine:1", "incomplete")
	o.shows("jobs", "repair", "done")
}

func TestOperatorPurgesUnderLoad(t *testing.T) {
	o := newOperated(t, "")
	image := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{Layers: 3})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		// Whoever pulls meanwhile gets whole blobs, from the store or from the hub.
		for ctx.Err() == nil {
			for _, b := range image.Blobs() {
				status, body := get(t, o.registry+"/v2/library/alpine/blobs/"+b.Digest)
				if status != 200 || hubtest.Digest([]byte(body)) != b.Digest {
					done <- fmt.Errorf("blob %s = %d and %d bytes", b.Digest, status, len(body))
					return
				}
			}
		}
		done <- nil
	}()
	for range 15 {
		o.pull("library/alpine", "1")
		o.run(0, "purge", "alpine")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOperatorVerifies(t *testing.T) {
	o := newOperated(t, "")
	image := o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	o.pull("library/alpine", "1", image.Blobs()...)
	o.shows("verify", "0 are damaged")
	rot := func() {
		hex := strings.TrimPrefix(image.Blobs()[1].Digest, "sha256:")
		name := filepath.Join(o.dir, "blobs", "sha256", hex[:2], hex)
		var b []byte
		eventually(t, "the blob has settled", func() bool {
			var err error
			b, err = os.ReadFile(name)
			return err == nil
		})
		b[0] ^= 1
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rot()
	if _, stderr := o.run(1, "verify"); !strings.Contains(stderr, image.Blobs()[1].Digest) || !strings.Contains(stderr, "1 file is damaged and not fetched again") {
		t.Errorf("verify of what rotted: %s", stderr)
	}
	o.pull("library/alpine", "1", image.Blobs()...)
	o.shows("verify", "0 are damaged")
	rot()
	o.shows("verify --repair", "1 is damaged, 1 fetched again")
	o.shows("stats", "Damaged:", "2 since the start; in quarantine 1 file")
	o.shows("gc --dry-run", "would remove 0 files")
	o.shows("gc", "removed 0 files")
	o.shows("verify --detach", "runs in the background")
	eventually(t, "all jobs are done", func() bool {
		out, _ := o.run(0, "jobs")
		return !strings.Contains(out, "running")
	})
	if _, stderr := o.run(2, "jobs", "--cancel", "x"); !strings.Contains(stderr, "not the ID of a job") {
		t.Errorf("jobs --cancel x: %s", stderr)
	}
	if _, stderr := o.run(1, "jobs", "--cancel", "999"); !strings.Contains(stderr, "no job") {
		t.Errorf("jobs --cancel 999: %s", stderr)
	}
}

func TestOperatorIsToldWhatIsWrongWithTheServer(t *testing.T) {
	o := newOperated(t, "")
	bad := write(t, "empty", "\n")
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		want string
	}{
		{"nobody there", nil, []string{"--server", "127.0.0.1:1"}, 1, "no answer from http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused\nNo server runs there. Start it with forebay serve"},
		{"nobody at the configured address", []string{"FOREBAY_ADMIN_LISTEN=127.0.0.1:1"}, nil, 1, "No server runs with these settings."},
		{"nobody at the variable's", []string{"FOREBAY_ADMIN=127.0.0.1:1"}, nil, 1, "No server runs there."},
		{"listener off", []string{"FOREBAY_ADMIN_LISTEN=off"}, nil, 2, "admin_listen is off"},
		{"no address", nil, []string{"--server", "ftp://x"}, 2, "is not the address of a server"},
		{"address with a password", nil, []string{"--server", "http://u:hunter2@127.0.0.1:1"}, 2, `"http://u:xxxxx@127.0.0.1:1" is not the address of a server`},
		{"address with a path", nil, []string{"--server", "http://127.0.0.1:1/x"}, 2, "is not the address of a server"},
		{"another server", nil, []string{"--server", o.registry}, 1, "and so is no admin API of this version"},
		{"token file that is not there", nil, []string{"--server", o.admin, "--token-file", bad + "x"}, 2, "--token-file: open"},
		{"empty token file", nil, []string{"--server", o.admin, "--token-file", bad}, 2, "holds no token"},
		{"bad CA file", nil, []string{"--server", o.admin, "--ca-file", bad}, 2, "holds no PEM certificate"},
		{"faults of the configuration", []string{"FOREBAY_LISTEN=x"}, nil, 2, "FOREBAY_LISTEN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := execute(t, tt.env, append([]string{"stats"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("stats %v = %d\n%s\nwant %d with %q", tt.args, code, stderr, tt.code, tt.want)
			}
		})
	}
	listen := "FOREBAY_ADMIN_LISTEN=" + strings.TrimPrefix(o.admin, "http://")
	for _, one := range []struct{ env, args []string }{
		{[]string{"FOREBAY_ADMIN=" + o.admin}, nil},
		{[]string{"FOREBAY_ADMIN=" + o.admin, "FOREBAY_STORAGE_DIR=" + t.TempDir()}, nil},
		{[]string{listen, "FOREBAY_STORAGE_DIR=" + o.dir}, nil},
		{nil, []string{"--server", o.admin, "--token-file", filepath.Join(o.dir, "admin.token")}},
		{[]string{"FOREBAY_STORAGE_DIR=" + o.dir}, []string{"--server", strings.Replace(o.admin, "127.0.0.1", "localhost", 1)}},
	} {
		if code, _, stderr := execute(t, one.env, append([]string{"stats"}, one.args...)...); code != 0 {
			t.Errorf("stats %v with %v = %d %s", one.args, one.env, code, stderr)
		}
	}
	// The server says where its token is, to whoever may read it.
	if err := os.Remove(filepath.Join(o.dir, admin.OwnToken)); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := execute(t, []string{"FOREBAY_ADMIN=" + o.admin}, "stats")
	if code != 1 || !strings.Contains(stderr, "--token-file") || !strings.Contains(stderr, o.dir) {
		t.Errorf("stats without the token = %d %s, want how to give it and where it was looked for", code, stderr)
	}
}

func TestOperatorNeedsTheToken(t *testing.T) {
	const token = "a-token-of-some-length"
	file := write(t, "token", token+"\n")
	o := newOperated(t, fmt.Sprintf("admin_token_file: %q\n", file))
	if _, stderr := o.run(1, "stats"); !strings.Contains(stderr, "Give the token of the server with --token-file") {
		t.Errorf("without the token: %s", stderr)
	}
	o.run(0, "stats", "--token-file", file)
	for _, env := range [][]string{{"FOREBAY_ADMIN_TOKEN=" + token}, {"FOREBAY_ADMIN_TOKEN_FILE=" + file}} {
		env = append(env, "FOREBAY_ADMIN="+o.admin)
		if code, _, stderr := execute(t, env, "stats"); code != 0 {
			t.Errorf("with %s = %d %s", env[0], code, stderr)
		}
	}
	if strings.Contains(o.stderr.String(), token) {
		t.Error("the token was logged")
	}
}

func TestServerOnLoopbackMakesItselfAToken(t *testing.T) {
	o := newOperated(t, "")
	file := filepath.Join(o.dir, "admin.token")
	token, err := statefile.ReadToken(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the token has mode %v, %v; want 0600", info.Mode(), err)
	}
	o.hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	o.pull("library/alpine", "1")
	for _, path := range []string{"/api/v1/status", "/api/v1/images", "/api/v1/content/" + hubtest.Digest(nil), "/debug/pprof/"} {
		if status, body := get(t, o.admin+path); status != 401 && path != "/debug/pprof/" || strings.Contains(body, "alpine") {
			t.Errorf("GET %s without the token = %d %s, want 401", path, status, body)
		}
	}
	if status, _ := o.asks("/api/v1/status"); status != 200 {
		t.Errorf("status with the token = %d", status)
	}
	o.shows("images", "docker.io/library/alpine:1")
	if status, body := get(t, o.admin+"/metrics", "Host", "evil.example"); status != 403 {
		t.Errorf("/metrics by another name = %d %.100s, want 403", status, body)
	}
	if log := o.stderr.String(); strings.Contains(log, token) || !strings.Contains(log, file) {
		t.Errorf("the log must name the file and not the token:\n%s", log)
	}
	o.stop()
	o.started = start(t, fmt.Sprintf("storage: {dir: %q}\noffline: true\n", o.dir))
	if again, err := statefile.ReadToken(file); again != token || err != nil {
		t.Errorf("after a restart the token is another, %v", err)
	}
	o.shows("images", "docker.io/library/alpine:1")
}

func TestAdminAPIOffLoopbackNeedsAToken(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "127.8.9.10:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false, "mirror.lan:1": false, "": false,
	} {
		if got := config.OnLoopback(listen); got != want {
			t.Errorf("OnLoopback(%q) = %t, want %t", listen, got, want)
		}
	}
	hub := hubtest.New(t, hubtest.Options{})
	s := start(t, fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n", t.TempDir(), hub.RegistryURL()),
		"--admin-listen", "0.0.0.0:0")
	_, port, _ := strings.Cut(strings.TrimPrefix(s.admin, "http://[::]"), ":")
	if port == "" {
		_, port, _ = strings.Cut(strings.TrimPrefix(s.admin, "http://0.0.0.0"), ":")
	}
	server := "127.0.0.1:" + port
	code, _, stderr := execute(t, nil, "stats", "--server", server)
	if code != 1 || !strings.Contains(stderr, "set admin_token_file") {
		t.Errorf("stats of a server off loopback = %d %s, want what to set", code, stderr)
	}
	if status, _ := get(t, "http://"+server+"/readyz"); status != 200 {
		t.Errorf("/readyz off loopback = %d, want 200", status)
	}
}

func TestServerCannotAskForAnyFile(t *testing.T) {
	dir := t.TempDir()
	secret := write(t, "id_rsa", "a-secret-of-somebody\n")
	sent := make(chan string, 10)
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Authorization")
		w.Header().Set(admin.TokenFileHeader, secret)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer fake.Close()
	if code, _, _ := execute(t, []string{"FOREBAY_ADMIN=" + fake.URL, "FOREBAY_STORAGE_DIR=" + dir}, "stats"); code == 0 {
		t.Error("stats of a server that refuses ends well")
	}
	close(sent)
	for header := range sent {
		if header != "" {
			t.Errorf("a file that the server named was sent to it: %s", header)
		}
	}
}

func TestDrillTellsWhatCouldNotBeServedAndCompletesIt(t *testing.T) {
	o := newOperated(t, "")
	image := o.hub.PushImage("library/alpine", "3.20", hubtest.ImageSpec{Platforms: []string{wire.MachinePlatform()}})
	part := o.hub.PushImage("library/busybox", "1", hubtest.ImageSpec{Platforms: []string{wire.MachinePlatform()}, Seed: 2})
	o.pull("library/alpine", "3.20", image.Blobs()...)
	o.pull("library/busybox", "1")
	out, stderr := o.run(3, "drill")
	if !strings.Contains(out, "docker.io/library/busybox:1") || strings.Contains(out, "alpine") || !strings.HasSuffix(out, "If the registries went away now, 1 of 2 images could be served whole.\n") {
		t.Errorf("drill:\n%s", out)
	}
	if !strings.Contains(stderr, "forebay drill --complete") {
		t.Errorf("drill says no way on: %s", stderr)
	}
	list := write(t, "images.txt", "alpine:3.20\nlibrary/none:1\n")
	out, stderr = o.run(3, "drill", "-f", list, "--ask")
	if !strings.Contains(out, "docker.io/library/none:1") || !strings.Contains(out, "absent") || !strings.Contains(stderr, "docker.io/library/none:1: ") {
		t.Errorf("drill of a list, with one that is gone:\n%s%s", out, stderr)
	}
	o.shows("drill --complete", "2 of 2 images could be served whole")
	o.shows("pins", "docker.io/library/busybox:1")
	o.hub.Close()
	o.pull("library/busybox", "1", part.Blobs()...)
}
