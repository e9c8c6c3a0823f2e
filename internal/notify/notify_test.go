package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"forebay/cache/event"
	"forebay/upstream/dial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a real server that is told, and what it was told.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []*http.Request
	body []string
	more chan struct{}
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	rec := &receiver{more: make(chan struct{}, 100)}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		rec.mu.Lock()
		rec.got, rec.body = append(rec.got, r), append(rec.body, string(b))
		n := len(rec.got)
		rec.mu.Unlock()
		answer(n, w, r)
		rec.more <- struct{}{}
	}))
	t.Cleanup(rec.Close)
	return rec
}

func (r *receiver) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-r.more:
		case <-time.After(time.Minute):
			t.Fatal("nothing came")
		}
	}
}

// running runs a notifier for as long as the test lasts, and returns what it logs.
func running(t *testing.T, o Options) (*Notifier, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	o.Log, o.Mirror, o.UserAgent = zap.New(core), "mirror.lan", "forebay/test"
	n, err := newNotifier(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return n, logs
}

func digest(c string) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(c, 64)} }

func moved(tag string) event.Event {
	return event.Event{Kind: event.ReleaseMoved, Upstream: "docker.io", Repository: "library/nginx", Tag: tag, Was: digest("a"), Digest: digest("b")}
}

func TestAnEventArrivesSigned(t *testing.T) {
	rec := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	n, logs := running(t, Options{Targets: []Target{{
		Name: "ops", URL: rec.URL + "/hooks/s3cr3t-path?token=s3cr3t-query", Secret: "s3cr3t-key", Headers: map[string]string{"Authorization": "Bearer s3cr3t-header"},
	}}})
	n.Tell(moved("1.27.3"))
	rec.wait(t, 1)
	r, body := rec.got[0], rec.body[0]
	var m Message
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	if m.Kind != event.ReleaseMoved || m.Image != "docker.io/library/nginx:1.27.3" || m.Was != digest("a").String() || m.Digest != digest("b").String() ||
		m.Mirror != "mirror.lan" || !strings.HasPrefix(m.Text, "forebay mirror.lan: docker.io/library/nginx:1.27.3: release moved from sha256:aaa") {
		t.Errorf("it was told %s", body)
	}
	mac := hmac.New(sha256.New, []byte("s3cr3t-key"))
	mac.Write([]byte(body))
	if got, want := r.Header.Get("X-Hub-Signature-256"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("X-Hub-Signature-256: %s, want %s", got, want)
	}
	mac = hmac.New(sha256.New, []byte("s3cr3t-key"))
	mac.Write([]byte(r.Header.Get("Webhook-Id") + "." + r.Header.Get("Webhook-Timestamp") + "." + body))
	if got, want := r.Header.Get("Webhook-Signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("Webhook-Signature: %s, want %s", got, want)
	}
	if r.Header.Get("Webhook-Id") != m.ID || r.Header.Get("Authorization") != "Bearer s3cr3t-header" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", r.Header)
	}
	assertNoSecret(t, logs)
}

// A secret as Standard Webhooks write it signs as their example says (spec 1.0.0, "Signature scheme").
func TestSignatureOfStandardWebhooks(t *testing.T) {
	key, err := Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	(&way{key: key}).sign(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", []byte(`{"test": 2432232314}`), time.Unix(1614265330, 0))
	if got, want := h.Get("Webhook-Signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	if _, err := Key("whsec_short"); err == nil {
		t.Error("a secret that is no base64 was taken")
	}
}

// assertNoSecret fails if anything of s3cr3t was logged.
func assertNoSecret(t *testing.T, logs *observer.ObservedLogs) {
	t.Helper()
	for _, e := range logs.All() {
		b, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "s3cr3t") {
			t.Errorf("logged %s", b)
		}
	}
}

func TestATargetIsToldWhatItWants(t *testing.T) {
	for name, tt := range map[string]struct {
		target Target
		event  event.Event
		want   bool
	}{
		"urgent by default":              {Target{}, moved("1.2.3"), true},
		"not urgent":                     {Target{}, event.Event{Kind: event.Evicted}, false},
		"a kind that is asked for":       {Target{Kinds: []event.Kind{event.Evicted}}, event.Event{Kind: event.Evicted}, true},
		"another kind":                   {Target{Kinds: []event.Kind{event.Evicted}}, moved("1.2.3"), false},
		"an image":                       {Target{Images: []string{"docker.io/library/nginx:1.*"}}, moved("1.2.3"), true},
		"by its short name":              {Target{Images: []string{"nginx:*"}}, moved("1.2.3"), true},
		"another image":                  {Target{Images: []string{"redis:*", "nginx:2.*"}}, moved("1.2.3"), false},
		"a whole repository":             {Target{Images: []string{"nginx:1.*"}}, event.Event{Kind: event.Vanished, Upstream: "docker.io", Repository: "library/nginx"}, true},
		"another repository":             {Target{Images: []string{"redis:*"}}, event.Event{Kind: event.Vanished, Upstream: "docker.io", Repository: "library/nginx"}, false},
		"what is about no image, though": {Target{Images: []string{"redis:*"}}, event.Event{Kind: event.TroubleBegan}, true},
	} {
		t.Run(name, func(t *testing.T) {
			tt.target.Name, tt.target.URL = "t", "http://127.0.0.1:1/"
			n, err := newNotifier(Options{Targets: []Target{tt.target}})
			if err != nil {
				t.Fatal(err)
			}
			n.Tell(tt.event)
			if got := n.Figures()[0].Waiting == 1; got != tt.want {
				t.Errorf("told %t, want %t", got, tt.want)
			}
		})
	}
}

func TestATemplateMakesTheBody(t *testing.T) {
	rec := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	n, _ := running(t, Options{Targets: []Target{{Name: "chat", URL: rec.URL, ContentType: "application/vnd.chat+json",
		Template: `{"text": {{json .Text}}, "image": {{json .Image}}}`}}})
	e := moved("1.2.3")
	e.Detail = "say \"hi\"\nand <more>"
	n.Tell(e)
	rec.wait(t, 1)
	var got map[string]string
	if err := json.Unmarshal([]byte(rec.body[0]), &got); err != nil || !strings.HasSuffix(got["text"], `: say "hi" and <more>`) {
		t.Errorf("it was told %s (%v)", rec.body[0], err)
	}
	if ct := rec.got[0].Header.Get("Content-Type"); ct != "application/vnd.chat+json" {
		t.Errorf("Content-Type %s", ct)
	}
	for _, bad := range []string{"{{.Nothing}}", "{{", "{{nosuch .Text}}"} {
		if _, err := NewTargets(Options{Targets: []Target{{Name: "x", URL: rec.URL, Template: bad}}}); err == nil {
			t.Errorf("the template %s was taken", bad)
		}
	}
}

// A server that fails is tried again with growing pauses, one that refuses is not.
func TestFailuresAreTriedAgainWithinBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		status   []int // of the answers, the last for all others
		attempts int
		sent     bool
		least    time.Duration // that it took, at least
	}{
		"at once":           {[]int{204}, 1, true, 0},
		"a restart":         {[]int{503, 502, 200}, 3, true, 3 * time.Second},
		"limited":           {[]int{429, 200}, 2, true, 30 * time.Second}, // by its Retry-After
		"gone for good":     {[]int{500}, attemptsMost, false, time.Minute},
		"not found":         {[]int{404}, 1, false, 0},
		"no longer allowed": {[]int{401}, 1, false, 0},
		"a redirect":        {[]int{307}, 1, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				n, err := newNotifier(Options{Targets: []Target{{Name: "x", URL: "http://hooks.example/s3cr3t"}}})
				if err != nil {
					t.Fatal(err)
				}
				(*n.targets.Load())[0].now.Load().client.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
					status := tt.status[min(attempts, len(tt.status)-1)]
					attempts++
					h := http.Header{"Location": {"http://127.0.0.1:1/"}}
					if status == 429 {
						h.Set("Retry-After", "30")
					}
					return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}, nil
				})
				ctx, cancel := context.WithCancel(t.Context())
				go func() { _ = n.Run(ctx) }()
				begun := time.Now()
				n.Tell(moved("1.2.3"))
				for f := n.Figures()[0]; f.Sent+f.Failed == 0; f = n.Figures()[0] {
					time.Sleep(time.Second)
				}
				if f := n.Figures()[0]; attempts != tt.attempts || f.Sent == 1 != tt.sent || time.Since(begun) < tt.least || time.Since(begun) > time.Hour {
					t.Errorf("%d attempts in %s, %+v; want %d in %s or more, sent %t", attempts, time.Since(begun), f, tt.attempts, tt.least, tt.sent)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newNotifier(o Options) (*Notifier, error) {
	targets, err := NewTargets(o)
	return New(o.Mirror, targets), err
}

// try sends a sample to a target.
func (n *Notifier) try(t *testing.T, name string) error {
	for _, one := range *n.targets.Load() {
		if one.name == name {
			return one.now.Load().Try(t.Context(), n.mirror)
		}
	}
	t.Fatalf("there is no target %s", name)
	return nil
}

// A target that is told otherwise keeps its place, what waits for it and its figures; one that is new is told, and one
// that is not there any more is not, from then on.
func TestTargetsAreExchangedWhileTheyAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		answer := map[string]int{"old": 503, "new": 200, "gone": 200, "more": 200}
		use := func(n *Notifier, hosts ...string) *Notifier {
			var o Options
			for _, h := range hosts {
				name, host, _ := strings.Cut(h, "@")
				o.Targets = append(o.Targets, Target{Name: name, URL: "http://" + host + "/"})
			}
			targets, err := NewTargets(o)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range targets {
				w.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, r.URL.Host)
					return &http.Response{StatusCode: answer[r.URL.Host], Header: http.Header{}, Body: http.NoBody}, nil
				})
			}
			if n == nil {
				return New("m", targets)
			}
			n.Use(targets)
			return n
		}
		n := use(nil, "a@old", "b@gone")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		synctest.Wait()
		n.Tell(moved("1"))
		n.Tell(moved("2"))
		synctest.Wait()
		use(n, "a@new", "c@more")
		n.Tell(moved("3"))
		time.Sleep(time.Hour)
		n.Tell(moved("4"))
		synctest.Wait()
		counts := map[string]int{}
		for _, host := range got {
			counts[host]++
		}
		if counts["old"] != 1 || counts["new"] != 4 || counts["gone"] != 2 || counts["more"] != 2 {
			t.Errorf("messages by place: %v; want all four at the new place of a, two each of b and c", counts)
		}
		figures := n.Figures()
		if len(figures) != 2 || figures[0].Target != "a" || figures[0].Sent != 4 || figures[1].Target != "c" || figures[1].Sent != 2 {
			t.Errorf("figures %+v, want four sent to a and two to c", figures)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
}

// A redirect leads nowhere: whoever a message is for is said by the operator alone.
func TestARealRedirectIsNotFollowed(t *testing.T) {
	elsewhere := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	rec := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusPermanentRedirect)
	})
	n, logs := running(t, Options{Targets: []Target{{Name: "x", URL: rec.URL + "/s3cr3t", Secret: "s3cr3t-key"}}})
	if err := n.try(t, "x"); err == nil || !strings.Contains(err.Error(), "308: redirects are not followed") {
		t.Errorf("Try = %v, want that redirects are not followed", err)
	}
	if len(elsewhere.got) != 0 {
		t.Errorf("the place that it named got %d messages", len(elsewhere.got))
	}
	assertNoSecret(t, logs)
}

// A server that hangs holds up nobody: what is more than the queue holds is dropped, counted and logged.
func TestAHangingServerHoldsUpNobody(t *testing.T) {
	release := make(chan struct{})
	rec := newReceiver(t, func(int, http.ResponseWriter, *http.Request) { <-release })
	other := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	n, logs := running(t, Options{Targets: []Target{{Name: "hangs", URL: rec.URL + "/s3cr3t"}, {Name: "works", URL: other.URL}}})
	for range queueMost + 10 {
		n.Tell(moved("1.2.3"))
	}
	other.wait(t, 100)
	if f := n.Figures()[0]; f.Dropped < 9 || f.Dropped > 10 || f.Waiting < queueMost-1 {
		t.Errorf("of the one that hangs: %+v, want 9 or 10 dropped and the rest waiting", f)
	}
	if got := logs.FilterMessageSnippet("too many wait").Len(); got == 0 || got > 2 { // the other may be late, too
		t.Errorf("dropping was logged %d times", got)
	}
	assertNoSecret(t, logs)
	close(release)
}

// A server that is a little too slow finds room now and then: that is no news each time.
func TestDroppingIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		n, err := newNotifier(Options{Targets: []Target{{Name: "x", URL: "http://127.0.0.1:1/"}}, Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		for want := 1; want <= 2; want++ {
			for range queueMost + 5 {
				n.Tell(moved("1.2.3"))
			}
			for range 5 {
				<-(*n.targets.Load())[0].queue
				n.Tell(moved("1.2.3"))
				n.Tell(moved("1.2.3"))
			}
			if got := logs.FilterMessageSnippet("too many wait").Len(); got != want {
				t.Errorf("dropping was logged %d times, want %d", got, want)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestWhatWaitsAtTheEndIsCounted(t *testing.T) {
	n, err := newNotifier(Options{Targets: []Target{{Name: "x", URL: "http://127.0.0.1:1/"}}})
	if err != nil {
		t.Fatal(err)
	}
	n.Tell(moved("1.2.3"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if f := n.Figures()[0]; f.Dropped != 1 || f.Sent+f.Failed != 0 {
		t.Errorf("figures %+v, want one dropped", f)
	}
}

// What the operator wrote may be private; metadata services are for nobody, and errors hold no URL.
func TestAddressesAreThoseOfThePolicy(t *testing.T) {
	n, err := newNotifier(Options{Targets: []Target{{Name: "x", URL: "http://169.254.169.254/s3cr3t"}, {Name: "y", URL: "http://127.0.0.1:1/s3cr3t"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.try(t, "x"); !errors.Is(err, dial.ErrRefused) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("a metadata service: %v, want %v", err, dial.ErrRefused)
	}
	if err := n.try(t, "y"); err == nil || errors.Is(err, dial.ErrRefused) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("loopback: %v, want that nobody listens", err)
	}
	if _, err := NewTargets(Options{Targets: []Target{{Name: "x", URL: "ftp://s3cr3t/"}}}); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("NewTargets = %v", err)
	}
}
