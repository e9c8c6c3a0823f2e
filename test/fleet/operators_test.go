//go:build linux

package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// answer is what the tests look at of answers of the admin API.
type answer struct {
	Mirrors []struct {
		ID, Name, Error string
		OK, Later       bool
	}
	Usage  struct{ Pulls int64 }
	Stats  struct{ Blobs int64 }
	Images []struct{ Repository, Tag, Digest, Mirror string }
	Events []struct {
		Kind, Mirror, Actor string
		At                  string
	}
	Before   int64
	Pins     []struct{ Ref, Mirror string }
	Jobs     []struct{ ID, Kind, State, Mirror string }
	ID       string
	Replicas []struct {
		ID, Name, State, Address string
		Followed, Led            int64
		EngineTook               float64 `json:"engine_seconds"`
	}
	Times    []int64
	Sum      struct{ Pulls int64 }
	Blobs    int64
	Tags     int64
	Status   int
	Troubles []struct{ What, Cause string }
}

// ask asks the admin API of a mirror, as the holder of its token.
func (w *world) ask(m *mirror, method, path string, body any) (a answer) {
	w.t.Helper()
	r := w.request(m, method, path, body)
	res, err := w.client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(got) > 0 {
		if err := json.Unmarshal(got, &a); err != nil {
			w.t.Fatalf("%s %s = %d, %s: %v", method, path, res.StatusCode, got, err)
		}
	}
	if a.Status = res.StatusCode; a.Status >= 500 {
		w.t.Logf("%s %s = %d, %s", method, path, a.Status, got)
	}
	return a
}

// request is one of the holder of a mirror's token.
func (w *world) request(m *mirror, method, path string, body any) *http.Request {
	w.t.Helper()
	token, err := os.ReadFile(filepath.Join(filepath.Dir(m.config), "storage"+strings.TrimSuffix(filepath.Base(m.config), ".yaml"), "admin.token"))
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := http.NewRequest(method, m.admin+"/api/v1"+path, bytes.NewReader(text))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Forebay-Request", "1")
	return r
}

// all reports whether all three mirrors answered.
func (a answer) all() bool {
	for _, m := range a.Mirrors {
		if !m.OK {
			return false
		}
	}
	return len(a.Mirrors) == 3
}

// What is asked of one mirror is answered for all of them; of one that is gone it is said that it is.
func TestOperatorsSeeTheFleet(t *testing.T) {
	w := newWorld(t)
	w.gather()
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1})
	want := w.hub.Bytes(img.Digest)
	for range 3 {
		for _, m := range w.mirrors[:2] {
			w.get(m, "v1", want)
		}
	}
	one := w.mirrors[2] // which nobody asked for anything
	var status answer
	w.await("all to answer", func() bool {
		status = w.ask(one, "GET", "/status", nil)
		return status.all() && status.Usage.Pulls == 6
	})
	if n := w.ask(one, "GET", "/status?scope=local", nil).Usage.Pulls; n != 0 {
		t.Errorf("the mirror itself counts %d pulls, want none", n)
	}
	images := w.ask(one, "GET", "/images", nil)
	if len(images.Images) != 1 || !strings.Contains(images.Images[0].Mirror, ", ") {
		t.Errorf("images of the fleet = %+v, want one, kept by two mirrors", images.Images)
	}
	if n := len(w.ask(one, "GET", "/images?scope=local", nil).Images); n != 0 {
		t.Errorf("the mirror itself keeps %d images, want none", n)
	}
	if s := w.ask(one, "GET", "/series?scope=fleet", nil); !s.all() || s.Sum.Pulls != 6 {
		t.Errorf("series = %d steps with %d pulls of %+v, want 6", len(s.Times), s.Sum.Pulls, s.Mirrors)
	}
	seen, last, before := map[string]int{}, "~", int64(0)
	for range 100 {
		path := "/events?kind=started&limit=1"
		if before > 0 {
			path += fmt.Sprint("&before=", before)
		}
		a := w.ask(one, "GET", path, nil)
		for _, e := range a.Events {
			seen[e.Mirror]++
			if e.At > last {
				t.Errorf("event of %s after one of %s", e.At, last)
			}
			last = e.At
		}
		if before = a.Before; before == 0 {
			break
		}
	}
	if len(seen) != 3 {
		t.Errorf("starts of %v, want one of each mirror", seen)
	}
	job := w.ask(w.mirrors[0], "POST", "/gc", map[string]any{"dry_run": true})
	jobs := w.ask(one, "GET", "/jobs", nil).Jobs
	if len(jobs) != 1 || !strings.HasPrefix(jobs[0].ID, job.ID+"@") {
		t.Fatalf("jobs of the fleet = %+v, want %s", jobs, job.ID)
	}
	if a := w.ask(one, "GET", "/jobs/"+strings.ReplaceAll(jobs[0].ID, " ", "%20"), nil); a.Status != http.StatusOK || a.ID != job.ID {
		t.Errorf("job %s by another mirror = %d, %s", jobs[0].ID, a.Status, a.ID)
	}
	if a := w.ask(one, "GET", "/status?scope=world", nil); a.Status != http.StatusBadRequest {
		t.Errorf("an unknown scope = %d, want 400", a.Status)
	}
	// A purge that can be taken back for a while is one job, at a mirror that has the image.
	begun := w.ask(one, "POST", "/purges", map[string]any{"targets": []string{"app:v1"}, "wait_seconds": 60})
	if a := w.ask(one, "DELETE", "/jobs/"+strings.ReplaceAll(begun.ID, " ", "%20"), nil); begun.Status != http.StatusAccepted || !strings.Contains(begun.ID, "@") || a.Status != http.StatusNoContent {
		t.Errorf("purge that waits = %d, %q, and taken back %d", begun.Status, begun.ID, a.Status)
	}
	if a := w.ask(one, "POST", "/purge", map[string]any{"target": "app:v1", "dry_run": true}); a.Tags != 2 || w.operations() != 0 {
		t.Errorf("a dry run would remove %d tags of %+v, want 2, and is written down", a.Tags, a.Mirrors)
	}
	w.ask(one, "POST", "/purges", map[string]any{"targets": []string{"app:v1"}})
	w.await("the image to be gone from all", func() bool { return len(w.ask(one, "GET", "/images", nil).Images) == 0 })
	if n := w.operations(); n != 1 {
		t.Errorf("%d operations written down, want the purge", n)
	}
	out, err := exec.Command(w.program, "status", "--config", one.config).CombinedOutput()
	if rows := strings.Count(string(out), " here "); err != nil || rows != 3 || !strings.Contains(string(out), "MIRROR") {
		t.Errorf("forebay status = %v, with %d mirrors, want 3:\n%s", err, rows, out)
	}
	w.followed(one, "v1", want)
	w.mirrors[0].kill()
	w.await("the dead one to be named", func() bool {
		a := w.ask(one, "GET", "/status", nil)
		good := 0
		for _, m := range a.Mirrors {
			if m.OK {
				good++
			}
		}
		return a.Status == http.StatusOK && good == 2 && len(a.Mirrors) == 3
	})
}

// followed fails the test unless the stream of a mirror tells what happens at another, with the figures of all,
// and what a client missed that comes back.
func (w *world) followed(m *mirror, tag string, want []byte) {
	w.t.Helper()
	last, events, pulls := "", 0, int64(0)
	follow := func(enough func() bool) {
		r := w.request(m, "GET", "/events", nil)
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		r = r.WithContext(ctx)
		r.Header.Set("Accept", "text/event-stream")
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		res, err := w.client.Do(r)
		if err != nil {
			w.t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() && !enough() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				last = value
			case "data":
				var data struct {
					Kind, Mirror string
					Usage        struct{ Pulls int64 }
				}
				if err := json.Unmarshal([]byte(value), &data); err != nil {
					w.t.Errorf("%s: %v", value, err)
				}
				if data.Kind == "pinned" && data.Mirror != "" {
					events++
				}
				pulls = max(pulls, data.Usage.Pulls)
			}
		}
		if !enough() {
			w.t.Errorf("the stream ended with %d events and %d pulls: %v", events, pulls, lines.Err())
		}
	}
	follow(func() bool { return pulls >= 6 })
	w.get(w.mirrors[0], tag, want)
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(func() bool { return events >= 1 && pulls >= 7 })
	}()
	w.ask(w.mirrors[0], "POST", "/pins", map[string]any{"ref": "app:" + tag})
	<-done
	was := events
	w.ask(w.mirrors[0], "DELETE", "/pins?ref=app:"+tag, nil)
	w.ask(w.mirrors[0], "POST", "/pins", map[string]any{"ref": "app:" + tag})
	follow(func() bool { return events > was })
}

// A mirror that asks another endpoint of an upstream, and one that was killed, are troubles.
func TestMirrorsThatAilAreTold(t *testing.T) {
	w := newWorld(t)
	w.gather()
	text, err := os.ReadFile(w.mirrors[2].config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("endpoints: ["), []byte(`endpoints: ["http://127.0.0.1:1", `), 1)
	if err := os.WriteFile(w.mirrors[2].config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	told := func(what string) bool {
		for _, one := range w.ask(w.mirrors[0], "GET", "/status?scope=local", nil).Troubles {
			if one.What == what {
				return true
			}
		}
		return false
	}
	if told("A mirror of the fleet is gone") || told("A mirror of the fleet has other settings") {
		t.Error("troubles without a reason")
	}
	w.mirrors[2].kill()
	w.start(w.mirrors[2])
	w.await("other settings to be told", func() bool { return told("A mirror of the fleet has other settings") })
	w.mirrors[2].kill()
	w.await("the dead one to be told", func() bool { return told("A mirror of the fleet is gone") })
}

// Without the secret nobody is an operator, and the token of a mirror is needed all the same.
func TestStrangersAreNoOperators(t *testing.T) {
	w := newWorld(t)
	w.gather()
	var at string
	for _, r := range w.ask(w.mirrors[0], "GET", "/replicas", nil).Replicas {
		at = r.Address
	}
	r, err := http.NewRequest("GET", "https://"+at+"/api/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Forebay-Role", "admin")
	if res, err := insecure().Do(r); err == nil {
		_ = res.Body.Close()
		t.Errorf("a stranger at the listener for mirrors got %s", res.Status)
	}
	r, err = http.NewRequest("GET", w.mirrors[0].admin+"/api/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Forebay-Role", "admin")
	r.Header.Set("Forebay-Operator", "somebody")
	res, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("who names himself an operator got %s, want 401", res.Status)
	}
}

// insecure returns a client that believes any server, and shows nothing itself.
func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true}}
}

// operations counts what the engine has of them.
func (w *world) operations() int {
	w.t.Helper()
	_, port, _ := net.SplitHostPort(w.engine)
	out, err := exec.Command("redis-cli", "-p", port, "-a", "hunter2", "--no-auth-warning", "EVAL",
		"local n = 0 for _, k in ipairs(redis.call('KEYS', 'fb1:{operations:*')) do n = n + redis.call('ZCARD', k) end return n", "0").Output()
	n := -1
	if err == nil {
		_, err = fmt.Sscan(string(out), &n)
	}
	if err != nil {
		w.t.Logf("operations in the engine: %s, %v", out, err)
	}
	return n
}

// didFirst fails the test unless a mirror did what operators had the others do before it answered anybody.
func (w *world) didFirst(m *mirror) {
	w.t.Helper()
	text, err := os.ReadFile(m.log)
	if err != nil {
		w.t.Fatal(err)
	}
	last := string(text[bytes.LastIndex(text, []byte(`"msg":"starting"`)):])
	did, listening := strings.Index(last, "did what an operator had"), strings.Index(last, `"msg":"listening"`)
	if did < 0 || listening < 0 || did > listening {
		w.t.Errorf("it did what was to be done at %d of its log, and listened at %d", did, listening)
	}
}

// What an operator purges on one mirror is gone on all: on those that are there at once, and on one that was
// away before it answers anybody, although the engine was emptied meanwhile. What he pins is pinned there, too.
func TestWhoWasAwayDoesWhatOperatorsDid(t *testing.T) {
	w := newWorld(t)
	w.gather()
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1})
	other := w.hub.PushImage("library/app", "v2", hubtest.ImageSpec{Layers: 1, Seed: 2})
	for _, m := range w.mirrors {
		w.get(m, "v1", w.hub.Bytes(img.Digest))
		w.get(m, "v2", w.hub.Bytes(other.Digest))
	}
	away := w.mirrors[2]
	away.kill()
	a := w.ask(w.mirrors[0], "POST", "/purge", map[string]any{"target": "app:v1"})
	later := 0
	for _, m := range a.Mirrors {
		if m.Later {
			later++
		}
	}
	if a.Status != http.StatusOK || a.Tags != 2 || later != 1 || len(a.Mirrors) != 3 {
		t.Errorf("purge = %+v, want a tag of two mirrors, and one that does it later", a)
	}
	if a := w.ask(w.mirrors[1], "POST", "/pins", map[string]any{"ref": "app:v2"}); a.Status != http.StatusCreated {
		t.Errorf("pin = %+v", a)
	}
	kept := func(m *mirror) (tags []string) {
		for _, i := range w.ask(m, "GET", "/images?scope=local", nil).Images {
			tags = append(tags, i.Tag)
		}
		return tags
	}
	for _, m := range w.mirrors[:2] {
		if got := fmt.Sprint(kept(m)); got != "[v2]" {
			t.Errorf("%s keeps %s after the purge, want [v2]", m.url, got)
		}
	}
	w.killEngine()
	w.startEngine()
	w.await("the engine to be told again", func() bool {
		return w.operations() == 2
	})
	w.hub.SwitchOff() // so that nothing comes from there
	w.start(away)
	if got := fmt.Sprint(kept(away)); got != "[v2]" {
		t.Errorf("who was away keeps %s, want [v2]", got)
	}
	w.didFirst(away)
	res, err := w.client.Get(away.url + "/v2/library/app/manifests/" + img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode == http.StatusOK {
		t.Error("what was purged is served by who was away")
	}
	w.await("the pin to be set", func() bool { return len(w.ask(away, "GET", "/pins?scope=local", nil).Pins) == 1 })
	// Without an engine, too: the others know.
	w.await("the others to be remembered", func() bool {
		var s struct{ Others []string }
		text, err := os.ReadFile(filepath.Join(filepath.Dir(away.config), "storage2", "operations.json"))
		return err == nil && json.Unmarshal(text, &s) == nil && len(s.Others) == 2
	})
	away.kill()
	w.killEngine()
	if a := w.ask(w.mirrors[0], "POST", "/purge", map[string]any{"target": "app:v2", "force": true}); a.Status != http.StatusOK {
		t.Errorf("purge without an engine = %+v", a)
	}
	w.start(away)
	if got := kept(away); len(got) != 0 {
		t.Errorf("who was away keeps %v, want nothing", got)
	}
	w.didFirst(away)
}

// With a bucket who was away learns from there what was purged, although the engine and the mirrors that did it
// are gone by then.
func TestTheBucketKnowsWhatOperatorsDid(t *testing.T) {
	w := newWorld(t)
	w.fillBucket()
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1})
	other := w.hub.PushImage("library/app", "v2", hubtest.ImageSpec{Layers: 1, Seed: 2})
	for _, m := range w.mirrors {
		w.get(m, "v1", w.hub.Bytes(img.Digest))
		w.get(m, "v2", w.hub.Bytes(other.Digest))
	}
	away := w.mirrors[2]
	if n := len(w.ask(away, "GET", "/images?scope=local", nil).Images); n != 2 {
		t.Fatalf("%d images before, want 2", n)
	}
	away.kill()
	w.killEngine()
	// Two mirrors write at the same time: neither takes the other's away.
	var both sync.WaitGroup
	for i, ref := range []string{"app:v1", "app:v2"} {
		both.Go(func() {
			if a := w.ask(w.mirrors[i], "POST", "/purge", map[string]any{"target": ref}); a.Status != http.StatusOK {
				t.Errorf("purge of %s = %+v", ref, a)
			}
		})
	}
	both.Wait()
	w.mirrors[0].kill()
	w.mirrors[1].kill()
	w.hub.SwitchOff()
	w.start(away)
	if a := w.ask(away, "GET", "/images?scope=local", nil); len(a.Images) != 0 {
		t.Errorf("who was away keeps %+v, want nothing", a.Images)
	}
	w.didFirst(away)
}

// Operators of two mirrors pin and unpin the same image at the same moment, again and again: all mirrors are of one
// mind about it. Each has written down in its audit log who asked for what, where it was asked and where not.
func TestMirrorsAgreeWhatIsPinned(t *testing.T) {
	w := newWorld(t)
	logs := make([]string, len(w.mirrors))
	for i, m := range w.mirrors {
		logs[i] = filepath.Join(t.TempDir(), "audit")
		w.change(m, "log: {", fmt.Sprintf("audit: %q\nlog: {", logs[i]))
	}
	for _, m := range w.mirrors { // who started again is somewhere else
		w.await("all to answer", func() bool { return w.ask(m, "GET", "/status", nil).all() })
	}
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 1})
	for _, m := range w.mirrors {
		w.get(m, "v1", w.hub.Bytes(img.Digest))
	}
	for round := range 20 {
		var both sync.WaitGroup
		both.Go(func() { w.ask(w.mirrors[round%3], "POST", "/pins", map[string]any{"ref": "app:v1"}) })
		both.Go(func() { w.ask(w.mirrors[(round+1)%3], "DELETE", "/pins?ref=app:v1", nil) })
		both.Wait()
		var pins [3]int
		for i, m := range w.mirrors {
			pins[i] = len(w.ask(m, "GET", "/pins?scope=local", nil).Pins)
		}
		if pins[0] != pins[1] || pins[1] != pins[2] {
			t.Errorf("round %d: %v pins at the mirrors, want as many at each", round, pins)
		}
	}
	for i, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pins := 0
		for line := range bytes.Lines(text) {
			var a struct{ Event, Who, Addr, Method, Path string }
			if err := json.Unmarshal(line, &a); err != nil {
				t.Errorf("%s: %v", line, err)
			}
			if a.Event == "action" && a.Who == "admin_token" && a.Addr != "" && a.Path == "/api/v1/pins" && a.Method == "POST" {
				pins++
			}
		}
		if pins < 20 {
			t.Errorf("the audit log of mirror %d names who pinned %d times, want 20:\n%s", i, pins, text)
		}
	}
}
