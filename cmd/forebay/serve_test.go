package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/config"
	"forebay/internal/command"
	"forebay/test/hubtest"
)

// started is a forebay that runs in the test's process.
type started struct {
	registry, admin string // base URLs
	stderr          *output
	stop            func() int // ends it and returns its exit code
}

// start runs "forebay serve" and waits until it is ready.
func start(t *testing.T, yaml string, args ...string) *started {
	t.Helper()
	return startFile(t, write(t, "forebay.yaml", yaml), args...)
}

// startFile runs it with a configuration that is there.
func startFile(t *testing.T, file string, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &started{stderr: &output{}}
	done := make(chan int, 1)
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
		"--config", file}, args...)
	go func() {
		done <- run(ctx, args, command.Process{Env: os.Environ(), Stdout: io.Discard, Stderr: s.stderr})
	}()
	stopped, code := false, 0
	s.stop = func() int {
		if !stopped {
			stopped = true
			cancel()
			code = <-done
		}
		return code
	}
	t.Cleanup(func() { s.stop() })
	deadline := time.Now().Add(30 * time.Second)
	for s.registry == "" || s.admin == "" {
		if time.Now().After(deadline) || len(done) > 0 {
			t.Fatalf("serve does not start:\n%s", s.stderr)
		}
		s.findAddresses()
		<-time.After(5 * time.Millisecond)
	}
	return s
}

// findAddresses reads where it listens from the log.
func (s *started) findAddresses() {
	for line := range strings.Lines(s.stderr.String()) {
		var event struct{ Msg, Part, Addr string }
		if json.Unmarshal([]byte(line), &event) != nil || event.Msg != "listening" {
			continue
		}
		switch event.Part {
		case "server":
			s.registry = "http://" + event.Addr
		case "admin":
			s.admin = "http://" + event.Addr
		}
	}
}

// get asks for url; headers come in pairs.
func get(t *testing.T, url string, headers ...string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if request.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			request.Host = headers[i+1]
		}
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestStartAndCheckWarnOfWhatGivesSecretsAway(t *testing.T) {
	password := write(t, "password", "hunter2\n")
	if err := os.Chmod(password, 0o644); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: ['http://192.0.2.1:5000'], username: u, password_file: %q}}\n", t.TempDir(), password)
	wants := []string{"http://192.0.2.1:5000 gets the password unencrypted", "can be read by every user of this machine", "whoever reaches :5000 can pull"}
	code, stdout, stderr := execute(t, nil, "config", "check", write(t, "forebay.yaml", yaml))
	if code != 0 || !strings.Contains(stdout, ": right;") || strings.Count(stderr, "warning: ") != len(wants) {
		t.Errorf("config check = %d\n%s%s\nwant 0 and %d warnings", code, stdout, stderr, len(wants))
	}
	s := start(t, yaml)
	for _, want := range wants {
		if !strings.Contains(stderr, want) {
			t.Errorf("config check does not warn that %s:\n%s", want, stderr)
		}
		// The test's own flags have it listen on loopback.
		if log := s.stderr.String(); !strings.Contains(log, want) && !strings.HasPrefix(want, "whoever") || strings.Contains(log, "hunter2") {
			t.Errorf("the start does not warn that %s, or tells the password:\n%s", want, log)
		}
	}
}

// Whoever waits for systemd's READY finds it listening, and hears when it stops.
func TestServeTellsSystemd(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	told := func() string {
		b := make([]byte, 64)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	t.Setenv("NOTIFY_SOCKET", name)
	s := start(t, fmt.Sprintf("storage: {dir: %q}\n", t.TempDir()))
	if got := told(); got != "READY=1" {
		t.Errorf("told %q, want that it is ready", got)
	}
	if code, _ := get(t, s.registry+"/v2/"); code != http.StatusOK {
		t.Errorf("GET /v2/ = %d", code)
	}
	s.stop()
	if got := told(); got != "STOPPING=1" {
		t.Errorf("told %q, want that it stops", got)
	}
}

func TestServeMirrorsAndKeeps(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	image := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	dir := t.TempDir()
	yaml := fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n", dir, hub.RegistryURL())
	s := start(t, yaml)

	pull := func(s *started) {
		t.Helper()
		status, body := get(t, s.registry+"/v2/docker.io/library/alpine/manifests/latest")
		if status != 200 || body != string(image.Raw) {
			t.Fatalf("manifest = %d %s, want the bytes of the hub", status, body)
		}
		for _, blob := range image.Blobs() {
			status, body := get(t, s.registry+"/v2/library/alpine/blobs/"+blob.Digest)
			if status != 200 || hubtest.Digest([]byte(body)) != blob.Digest {
				t.Errorf("blob %s = %d and %d bytes of another digest", blob.Digest, status, len(body))
			}
		}
	}
	pull(s)
	if status, body := get(t, s.admin+"/readyz"); status != 200 {
		t.Errorf("/readyz = %d %s", status, body)
	}
	if _, body := get(t, s.admin+"/metrics"); !strings.Contains(body, "forebay_build_info") {
		t.Error("/metrics lacks forebay_build_info")
	}
	admin := strings.TrimPrefix(s.admin, "http://")
	if code, _, stderr := execute(t, nil, "healthcheck", "--ready", "--admin-listen", admin); code != 0 {
		t.Errorf("healthcheck = %d %s, want 0", code, stderr)
	}
	if code, _, stderr := execute(t, nil, "healthcheck", "--admin-listen", "off", "--listen", strings.TrimPrefix(s.registry, "http://")); code != 0 {
		t.Errorf("healthcheck of the registry API = %d %s, want 0", code, stderr)
	}
	if code, _, stderr := execute(t, nil, "rebuild-index", "--storage-dir", dir); code != 1 || !strings.Contains(stderr, "Another forebay uses the folder") {
		t.Errorf("rebuild-index of a folder in use = %d %s, want 1 and who is to blame", code, stderr)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("serve ended with %d, want 0:\n%s", code, s.stderr)
	}

	hub.SwitchOff()
	for _, again := range []string{"after a restart", "after rebuild-index"} {
		if again == "after rebuild-index" {
			code, stdout, stderr := execute(t, nil, "rebuild-index", "--storage-dir", dir)
			if code != 0 || !strings.Contains(stdout, "rebuilt the index") {
				t.Fatalf("rebuild-index = %d %s %s", code, stdout, stderr)
			}
		}
		s := start(t, yaml)
		t.Log(again)
		pull(s)
		if code := s.stop(); code != 0 {
			t.Errorf("serve ended with %d %s, want 0:\n%s", code, again, s.stderr)
		}
	}
	hub.AssertClean(t)
}

func TestServeSaysHowToPointClientsAtIt(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	yaml := fmt.Sprintf("storage: {dir: %q}\nupstreams: {docker.io: {endpoints: [%q]}}\n", t.TempDir(), hub.RegistryURL())
	s := start(t, yaml)
	if want := `"registry-mirrors":"` + s.registry + `"`; !strings.Contains(s.stderr.String(), want) {
		t.Errorf("JSON log lacks %s:\n%s", want, s.stderr)
	}
	s.stop()

	// For people, in words. The mirror ends at once, since its context is done.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr output
	run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--log-format", "console", "--config", write(t, "forebay.yaml", yaml)},
		command.Process{Stdout: io.Discard, Stderr: &stderr})
	if want := `{ "registry-mirrors": ["http://127.0.0.1:`; !strings.Contains(stderr.String(), want) {
		t.Errorf("console log lacks %s:\n%s", want, &stderr)
	}
}

func TestAccessLogCanBeTurnedOff(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	for _, access := range []bool{true, false} {
		yaml := fmt.Sprintf("storage: {dir: %q}\nlog: {access: %t}\nupstreams: {docker.io: {endpoints: [%q]}}\n", t.TempDir(), access, hub.RegistryURL())
		s := start(t, yaml)
		get(t, s.registry+"/v2/")
		s.stop()
		if got := strings.Contains(s.stderr.String(), `"part":"access"`); got != access {
			t.Errorf("log.access %t: access line %t\n%s", access, got, s.stderr)
		}
	}
}

func TestStartErrorsSayWhatToChange(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	file, odd := write(t, "file", ""), t.TempDir()
	if err := os.WriteFile(filepath.Join(odd, "partial"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"file in the folder", nil, []string{"--storage-dir", odd}, "partial: file exists\n"},
		{"busy port", nil, []string{"--listen", busy.Addr().String()},
			"address already in use\nAnother program, perhaps another forebay, has this port. Stop it, or choose another address with --listen."},
		{"busy admin port", []string{"FOREBAY_ADMIN_LISTEN=" + busy.Addr().String()}, nil,
			"choose another address with FOREBAY_ADMIN_LISTEN."},
		{"foreign address", nil, []string{"--listen", "192.0.2.1:5000"},
			"This machine does not have that address. Choose another address with --listen."},
		{"file for a folder", nil, []string{"--storage-dir", file}, "is not a folder. Remove it, or choose another folder with --storage-dir."},
		{"file above the folder", nil, []string{"--storage-dir", filepath.Join(file, "x")}, "is not a folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var args []string
			for flag, value := range map[string]string{"--listen": "127.0.0.1:0", "--admin-listen": "127.0.0.1:0", "--storage-dir": t.TempDir()} {
				if !(flag == "--admin-listen" && tt.env != nil) {
					args = append(args, flag, value)
				}
			}
			code, _, stderr := execute(t, tt.env, append(append([]string{"serve"}, args...), tt.args...)...)
			if code != 1 || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, fmt.Sprintf("%q is not a folder", odd)) {
				t.Errorf("serve = %d\n%s\nwant 1 and %q", code, stderr, tt.want)
			}
		})
	}
}

// What root makes in the folder of another user keeps that user's server from starting.
func TestRootIsToldWhoseAFolderIs(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 { // else it is another user's already
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"rebuild-index"}, {"inventory", "-o", "-"}} {
		var stdout, stderr output
		if code := run(t.Context(), append(args, "--storage-dir", dir), command.Process{Env: []string{"HOME=" + dir}, Stdout: &stdout, Stderr: &stderr, Root: true}); code != 0 || !strings.Contains(stderr.String(), "who cannot read what root makes in it") {
			t.Errorf("%s = %d %s", args, code, stderr.String())
		}
	}
}

func TestClientHints(t *testing.T) {
	c, err := config.Load(config.Sources{Root: true, File: write(t, "f.yaml", "")})
	if err != nil {
		t.Fatal(err)
	}
	got := clientHints(c, &net.TCPAddr{IP: net.IPv6unspecified, Port: 5000}, "box")
	for _, want := range []string{
		"Forebay mirrors docker.io, gcr.io,",
		"(from other machines: http://box:5000)",
		`{ "registry-mirrors": ["http://127.0.0.1:5000"] }`,
		`[host."http://127.0.0.1:5000"]`,
		"127.0.0.1:5000/docker.io/library/busybox",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("hints lack %q:\n%s", want, got)
		}
	}
}

func TestSizesThatAreGivenStand(t *testing.T) {
	if most, free, err := bounds(config.Storage{Dir: t.TempDir(), MaxSize: 5, MinFree: 7}); most != 5 || free != 7 || err != nil {
		t.Errorf("bounds of sizes given = %d, %d, %v, want 5 and 7", most, free, err)
	}
}

func TestMemoryLimitFollowsTheContainer(t *testing.T) {
	for text, want := range map[string]int64{"max\n": 0, "": 0, "1000\n": 800, "-1": 0, "x": 0} {
		if got := command.MemoryLimit(text); got != want {
			t.Errorf("command.MemoryLimit(%q) = %d, want %d", text, got, want)
		}
	}
}
