package page

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forebay/internal/admin"
	"forebay/test/hubtest"
	"forebay/test/s3test"
)

// within is how soon a trouble must be told, and how soon it must be gone after its end. The
// slack is for a machine that does other work beside.
const (
	within = 10 * time.Second
	slack  = 90 * time.Second
)

// incident is a mirror with something that goes wrong, and who looks at it.
type incident struct {
	*server
	t      *testing.T
	hub    *hubtest.Hub
	client *http.Client
	ask    io.Writer // to the browser
	answer *bufio.Scanner
}

// seen is what the browser shows.
type seen struct {
	Title, State string
	Badges       []string
	Troubles     []struct {
		What, Severity string
		Details, Links []string
	}
}

func newIncident(t *testing.T, program, root, dir string, hub *hubtest.Hub, more string) *incident {
	t.Helper()
	node, chromium := programs(t, root)
	i := &incident{server: newServer(t, program, dir, "m", more+"\nupstreams:\n"+upstreamOf("docker.io", hub)), t: t, hub: hub}
	client, done := clientAt("9")
	i.client = client
	t.Cleanup(done)
	settings, err := json.Marshal(map[string]string{"admin": i.admin, "token": i.token, "chromium": chromium, "screenshots": os.Getenv("PAGE_SCREENSHOTS")})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, filepath.Join(root, "tools", "page", "read.mjs"))
	cmd.Env = append(os.Environ(), "PAGE_WORLD="+string(settings))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		_ = cmd.Wait() // it ends with its input
	})
	i.ask, i.answer = in, bufio.NewScanner(out)
	if !i.answer.Scan() || i.answer.Text() != "ready" {
		t.Fatalf("the browser does not come up: %s", i.answer.Text())
	}
	return i
}

// page returns what the browser shows now.
func (i *incident) page() (s seen) {
	i.t.Helper()
	fmt.Fprintln(i.ask, "read")
	if !i.answer.Scan() || json.Unmarshal(i.answer.Bytes(), &s) != nil {
		i.t.Fatalf("the browser answers %q", i.answer.Text())
	}
	return s
}

// shot takes a picture, if pictures are wanted.
func (i *incident) shot(name string) {
	if os.Getenv("PAGE_SCREENSHOTS") != "" {
		fmt.Fprintln(i.ask, "shot "+name)
		i.answer.Scan()
	}
}

// get asks the mirror for something, as a client does.
func (i *incident) get(path string) error {
	return get(i.client, i.registry+"/v2/"+path+"?ns=docker.io", "containerd/v2.0.0")
}

// status returns what forebay status prints.
func (i *incident) status() string {
	i.t.Helper()
	out, err := exec.Command(i.program, "status", "--config", i.config).CombinedOutput()
	if err != nil {
		i.t.Logf("forebay status: %v", err)
	}
	return string(out)
}

// told waits until page, command line, API and readiness tell of one trouble of that kind, in the
// same words. keep is called meanwhile: clients go on asking.
func (i *incident) told(kind, what string, keep func()) admin.Trouble {
	i.t.Helper()
	var found admin.Trouble
	began := time.Now()
	err := eventually(within+slack, func() error {
		keep()
		var s admin.Status
		i.fetch(i.t, "/api/v1/status", &s)
		at := slices.IndexFunc(s.Troubles, func(t admin.Trouble) bool { return string(t.Kind) == kind })
		if at < 0 || !strings.Contains(s.Troubles[at].What, what) {
			return fmt.Errorf("the API tells %+v, want %s: %s", s.Troubles, kind, what)
		}
		found = s.Troubles[at]
		page := i.page()
		for _, t := range page.Troubles {
			if t.What != found.What || t.Severity != string(found.Severity) {
				continue
			}
			if !slices.Contains(t.Details, found.Served) || !slices.Contains(t.Details, found.Do) || !slices.Contains(t.Links, found.View) {
				return fmt.Errorf("the page tells %+v, want all of %+v", t, found)
			}
			if !strings.HasPrefix(page.Title, "(") || len(page.Badges) == 0 {
				return fmt.Errorf("title %q and badges %v do not tell of it", page.Title, page.Badges)
			}
			return nil
		}
		return fmt.Errorf("the page tells %+v, want %q", page.Troubles, found.What)
	})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Logf("%s: told after %s: %s", kind, time.Since(began).Round(100*time.Millisecond), found.What)
	out := i.status()
	for _, text := range []string{found.What, found.Served, found.Do} {
		if !strings.Contains(out, text) {
			i.t.Errorf("forebay status lacks %q:\n%s", text, out)
		}
	}
	if at, upstreams := strings.Index(out, found.What), strings.Index(out, "UPSTREAM"); at > upstreams {
		i.t.Errorf("forebay status does not tell it first:\n%s", out)
	}
	if text := i.readyz(); !strings.Contains(text, found.What) {
		i.t.Errorf("/readyz says %q, want %q", text, found.What)
	}
	metric := fmt.Sprintf("forebay_trouble{kind=%q,severity=%q,upstream=%q} 1", found.Kind, found.Severity, found.Upstream)
	if text := i.text("/metrics"); !strings.Contains(text, metric) {
		i.t.Errorf("/metrics lacks %s", metric)
	}
	i.shot("trouble-" + kind)
	return found
}

// over waits until nobody tells of a trouble any more.
func (i *incident) over(keep func()) {
	i.t.Helper()
	began := time.Now()
	err := eventually(within+slack, func() error {
		keep()
		var s admin.Status
		i.fetch(i.t, "/api/v1/status", &s)
		if len(s.Troubles) > 0 {
			return fmt.Errorf("the API still tells %+v", s.Troubles)
		}
		if page := i.page(); len(page.Troubles) > 0 || strings.HasPrefix(page.Title, "(") || len(page.Badges) > 0 {
			return fmt.Errorf("the page still tells %+v", page)
		}
		return nil
	})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Logf("over after %s", time.Since(began).Round(100*time.Millisecond))
	if out := i.status(); !strings.Contains(out, "All is well.") {
		i.t.Errorf("forebay status after the end:\n%s", out)
	}
	if text := i.readyz(); text != "ready\n" {
		i.t.Errorf("/readyz after the end says %q", text)
	}
}

func (i *incident) readyz() string { return i.text("/readyz") }

func (i *incident) text(path string) string {
	i.t.Helper()
	res, err := http.Get(i.admin + path)
	if err != nil {
		i.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return string(b)
}

func nothing() {}

// What is wrong is told by all in the same words, and is gone when it is over.
func TestTroublesAreToldEverywhere(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program := build(t, root)

	t.Run("limit", func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 50, Window: time.Hour}})
		image := hub.PushImage("library/app", "v1", hubtest.ImageSpec{})
		i := newIncident(t, program, root, t.TempDir(), hub, "")
		if err := i.get("library/app/manifests/" + image.Tag); err != nil {
			t.Fatal(err)
		}
		i.over(nothing)
		for principal := range hub.Counters().Charged {
			hub.SpendAll(principal)
		}
		asked := 0
		pull := func() { // what is not there is not asked for again at once, so that each wants something else
			asked++
			_ = i.get(fmt.Sprint("library/app/manifests/new", asked))
		}
		found := i.told("limit", "Docker Hub: 0 of 50 pulls left", pull)
		if found.Until.IsZero() || found.Severity != "critical" {
			t.Errorf("trouble %+v, want when pulls return", found)
		}
		var s admin.Status
		i.fetch(t, "/api/v1/status", &s)
		if s.Upstreams[0].State != "limited" {
			t.Errorf("docker.io is %q, want limited: it answers", s.Upstreams[0].State)
		}
		hub.Set(func(o *hubtest.Options) { o.Anonymous = hubtest.Plan{Limit: 5000, Window: time.Hour} }) // a larger plan was bought
		i.over(pull)
	})
	t.Run("repository", func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		image, bad := hub.PushImage("library/app", "v1", hubtest.ImageSpec{}), hub.PushImage("team/bad", "v1", hubtest.ImageSpec{Seed: 9})
		i := newIncident(t, program, root, t.TempDir(), hub, "")
		rule := hub.AddRule(hubtest.Rule{Repo: "team/bad", Route: hubtest.RouteBlob, Do: hubtest.Status(500)})
		keep := func() {
			_ = i.get("team/bad/manifests/v1")
			_ = i.get("team/bad/blobs/" + bad.Children[0].Layers[0].Digest)
			_ = i.get("library/app/manifests/" + image.Tag)
		}
		found := i.told("repository", "Some requests to Docker Hub fail", keep)
		if !strings.Contains(found.Cause, "team/bad: it answers 500 Internal Server Error") {
			t.Errorf("cause %q, want the repository and what it answers", found.Cause)
		}
		var s admin.Status
		i.fetch(t, "/api/v1/status", &s)
		if s.Upstreams[0].State != "degraded" || len(s.Troubles) != 1 {
			t.Errorf("docker.io is %q with %+v, want degraded and no more", s.Upstreams[0].State, s.Troubles)
		}
		if strings.Contains(i.readyz(), "team/bad") {
			t.Error("/readyz names a repository to everybody")
		}
		rule.Remove()
		i.over(keep)
	})
	t.Run("upstream", func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		hub.PushImage("library/app", "v1", hubtest.ImageSpec{})
		i := newIncident(t, program, root, t.TempDir(), hub, "")
		n := 0
		keep := func() {
			n++
			_ = i.get(fmt.Sprintf("library/app/manifests/t%d", n))
		}
		keep()
		hub.SwitchOff(hubtest.RoleRegistry)
		i.told("upstream", "Docker Hub refuses connections", keep)
		if err := hub.SwitchOn(hubtest.RoleRegistry); err != nil {
			t.Fatal(err)
		}
		i.over(keep)
	})
	t.Run("disk", func(t *testing.T) {
		top := t.TempDir()
		dir := filepath.Join(top, "m") // where the mirror keeps what it keeps
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
			t.Fatalf("mount a small file system, which needs root: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		i := newIncident(t, program, root, top, hub, "")
		// The whole disk but for a little, by somebody else.
		ballast := filepath.Join(dir, "ballast")
		fill := func() {
			var fs unix.Statfs_t
			if unix.Statfs(dir, &fs) == nil && fs.Bavail > 0 {
				if f, err := os.OpenFile(ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
					_, _ = f.Write(make([]byte, int64(fs.Bavail)*fs.Bsize)) // as much as there is room for
					f.Close()
				}
			}
		}
		n := 0
		keep := func() {
			fill()
			n++
			image := hub.PushImage("library/app", fmt.Sprint("v", n), hubtest.ImageSpec{Seed: uint64(n), LayerSize: 1 << 20})
			_ = i.get("library/app/manifests/" + image.Tag)
			_ = i.get("library/app/blobs/" + image.Children[0].Layers[0].Digest)
		}
		i.told("disk", "The disk is full", keep)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		i.over(nothing)
	})
	t.Run("bucket", func(t *testing.T) {
		bucket := s3test.New(t)
		for key, value := range map[string]string{
			"BUCKET": s3test.Bucket, "REGION": s3test.Region, "ENDPOINT": bucket.URL, "PATH_STYLE": "true",
			"ACCESS_KEY_ID": s3test.AccessKey, "SECRET_ACCESS_KEY": s3test.SecretKey,
		} {
			t.Setenv("FOREBAY_STORAGE_S3_"+key, value)
		}
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		image := hub.PushImage("library/app", "v1", hubtest.ImageSpec{})
		i := newIncident(t, program, root, t.TempDir(), hub, "")
		bucket.Stop()
		i.told("bucket", "The bucket takes no uploads", func() { _ = i.get("library/app/blobs/" + image.Children[0].Layers[0].Digest) })
		bucket.Start()
		i.over(nothing)
	})
	t.Run("clients", func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		hub.PushImage("library/app", "v1", hubtest.ImageSpec{})
		i := newIncident(t, program, root, t.TempDir(), hub, "limits: {new_per_minute: 5}")
		n := 0
		keep := func() {
			n++
			_ = i.get(fmt.Sprintf("library/app/manifests/t%d", n))
		}
		found := i.told("clients", "A client has reached its limit", keep)
		if !strings.Contains(found.Cause, "127.0.1.9") {
			t.Errorf("cause %q, want who it was", found.Cause)
		}
		if text := i.text("/metrics"); !strings.Contains(text, `forebay_refused_requests_total{limit="new",upstream="docker.io"}`) {
			t.Error("/metrics does not count who was refused")
		}
		i.over(nothing)
	})
	t.Run("drill", func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		kept := hub.PushImage("library/app", "v1", hubtest.ImageSpec{})
		hub.PushImage("library/app", "v2", hubtest.ImageSpec{Seed: 2})
		i := newIncident(t, program, root, t.TempDir(), hub, "")
		if err := i.get("library/app/manifests/" + kept.Tag); err != nil {
			t.Fatal(err)
		}
		rehearse := func() (*exec.Cmd, *bytes.Buffer) {
			var out bytes.Buffer
			cmd := exec.Command(program, "drill", "--minutes", "60", "--config", i.config)
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return cmd, &out
		}
		cmd, out := rehearse()
		i.told("drill", "An outage is rehearsed", nothing)
		if err := i.get("library/app/manifests/v1"); err != nil {
			t.Errorf("what is kept: %v", err)
		}
		if i.get("library/app/manifests/v2") == nil {
			t.Error("what is not kept was fetched while no registry is asked")
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 || !strings.Contains(out.String(), "127.0.1.9") || !strings.Contains(out.String(), "library/app") || !strings.Contains(out.String(), "v2") {
			t.Errorf("forebay drill, interrupted: %v\n%s", err, out)
		}
		i.over(nothing)
		if err := i.get("library/app/manifests/v2"); err != nil {
			t.Errorf("after Ctrl-C: %v", err)
		}
		// Whatever dies, upstreams come back.
		cmd, _ = rehearse()
		i.told("drill", "An outage is rehearsed", nothing)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if err := errors.Join(i.stop(), i.start()); err != nil {
			t.Fatal(err)
		}
		i.over(nothing)
	})
	t.Run("connection", func(t *testing.T) {
		hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
		i := newIncident(t, program, root, t.TempDir(), hub, "")
		if err := i.stop(); err != nil {
			t.Fatal(err)
		}
		err := eventually(within+slack, func() error {
			page := i.page()
			if len(page.Troubles) != 1 || page.Troubles[0].What != "No connection to the mirror" || !strings.HasPrefix(page.Title, "(1)") {
				return fmt.Errorf("the page tells %+v of a server that is gone", page)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		i.shot("trouble-connection")
		if out := i.status(); !strings.Contains(out, "No server runs") {
			t.Errorf("forebay status of a server that is gone:\n%s", out)
		}
		if err := i.start(); err != nil {
			t.Fatal(err)
		}
		i.over(nothing)
	})
}
