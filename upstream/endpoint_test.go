package upstream

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
)

// standIn returns an endpoint that stands in under names of its own.
func standIn(tags bool) Endpoint {
	return Endpoint{URL: "http://ecr.test", StandIn: &StandIn{From: "library/", To: "docker/library/", Tags: tags}}
}

// withStandIn returns a hub, a registry that carries its library under another name, and
// an image that both have.
func withStandIn(t *testing.T, tags bool, change func(*Options)) (w *world, other *hubtest.Hub, r *Registry, img *hubtest.Image) {
	t.Helper()
	w = newWorld(t, hubtest.Options{}, "ecr.test")
	r = w.registry(func(o *Options) {
		o.Endpoints = append(o.Endpoints, standIn(tags))
		o.Retry.Attempts = 1
		if change != nil {
			change(o)
		}
	})
	other = w.others["ecr.test"]
	img = w.hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{Seed: 7})
	other.PushImage("docker/"+repoAlpine, "latest", hubtest.ImageSpec{Seed: 7})
	return w, other, r, img
}

// troubles are how the registry itself may fail.
func troubles() map[string]func(*hubtest.Hub) {
	rule := func(f hubtest.Fault) func(*hubtest.Hub) {
		return func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Do: f}) }
	}
	return map[string]func(*hubtest.Hub){
		"pull limit": func(h *hubtest.Hub) { h.SpendAll("127.0.0.1") },
		"abuse":      func(h *hubtest.Hub) { h.TripAbuse(time.Hour) },
		"503":        rule(hubtest.Status(503)), "reset": rule(hubtest.NoReply(hubtest.RST)), "hangs": rule(hubtest.Hang()),
		"tokens 500": func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.Status(500)}) },
		"tokens 429": func(h *hubtest.Hub) { h.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.Abuse429()}) },
		"off":        func(h *hubtest.Hub) { h.FailDial(hubtest.RoleRegistry, hubtest.DialRefused) },
		"no name":    func(h *hubtest.Hub) { h.FailDial(hubtest.RoleRegistry, hubtest.DialNXDomain) },
	}
}

func TestStandInGivesDigests(t *testing.T) {
	for name, strike := range troubles() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, other, r, img := withStandIn(t, false, nil)
				strike(w.hub)
				desc, raw, err := r.Manifest(t.Context(), repoAlpine, img.Digest)
				wantManifest(t, desc, raw, err, img)
				for _, b := range img.Blobs() {
					wantBlob(t, r, repoAlpine, digest(t, b.Digest), w.hub.Bytes(b.Digest))
				}
				if n := other.ManifestGets(img.Digest); n != 1 {
					t.Errorf("stand-in gave the manifest %d times, want once", n)
				}
				if _, _, err := r.Manifest(t.Context(), repoAlpine, "latest"); err == nil {
					t.Error("tag was taken from a stand-in that is not trusted with it")
				}
				if n := other.Count(hubtest.Query{Route: hubtest.RouteManifestTag}); n != 0 {
					t.Errorf("stand-in was asked for a tag %d times, want never", n)
				}
				if s := r.Status(); s.Failovers == 0 {
					t.Errorf("Status = %+v, want failovers", s)
				}
			})
		})
	}
}

func TestStandInGivesTagsWhereTrusted(t *testing.T) {
	for name, strike := range troubles() {
		if name == "pull limit" { // then HEADs go on
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _, r, img := withStandIn(t, true, nil)
				strike(w.hub)
				if desc, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil || desc.Digest.String() != img.Digest {
					t.Errorf("Resolve = %v, %v", desc.Digest, err)
				}
				if tags, err := r.Tags(t.Context(), repoAlpine); err != nil || len(tags) != 1 {
					t.Errorf("Tags = %v, %v", tags, err)
				}
			})
		})
	}
}

func TestStandInIsNotAskedWhatTheRegistryKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other, r, img := withStandIn(t, true, nil)
		other.PushImage("docker/library/only-here", "latest", hubtest.ImageSpec{Seed: 9})
		_, err := r.Resolve(t.Context(), repoAlpine, "missing")
		wantKind(t, "Resolve of a missing tag", err, pull.NotFound)
		_, err = r.Resolve(t.Context(), "library/only-here", "latest")
		wantKind(t, "Resolve of a missing repository", err, pull.Denied)
		if _, err := r.Resolve(t.Context(), repoAlpine, img.Digest); err != nil {
			t.Error(err)
		}
		if n := other.Requests(); n != 0 {
			t.Errorf("stand-in saw %d requests, want 0", n)
		}
		w.hub.AssertClean(t)
	})
}

func TestStandInIsAskedOnlyForWhatItCarries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other, r, _ := withStandIn(t, true, nil)
		img := w.hub.PushImage("acme/app", "latest", hubtest.ImageSpec{Seed: 8})
		other.PushImage("acme/app", "latest", hubtest.ImageSpec{Seed: 8})
		w.hub.AddRule(hubtest.Rule{Do: hubtest.Status(503)})
		_, _, err := r.Manifest(t.Context(), "acme/app", img.Digest)
		if e := wantKind(t, "Manifest", err, pull.Unavailable); e.Status != 503 {
			t.Errorf("error is %v, want the registry's", e)
		}
		if n := other.Requests(); n != 0 {
			t.Errorf("stand-in saw %d requests, want 0", n)
		}
	})
}

// What a stand-in does not have may well exist.
func TestAbsenceAtAStandInIsNone(t *testing.T) {
	for name, strike := range troubles() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, other, r, img := withStandIn(t, true, nil)
				for _, fault := range []hubtest.Fault{hubtest.Status(404), hubtest.Status(401), hubtest.Status(403), hubtest.Status(405)} {
					other.AddRule(hubtest.Rule{Do: fault, Count: 3})
				}
				strike(w.hub)
				for range 4 {
					_, _, err := r.Manifest(t.Context(), repoAlpine, img.Digest)
					if kind := pull.KindOf(err); err == nil || !pull.Failing(err) {
						t.Errorf("kind is %s, want a failure: %v", kind, err)
					}
					_, err = r.StatBlob(t.Context(), repoAlpine, digest(t, img.Blobs()[0].Digest))
					if name != "pull limit" && (err == nil || !pull.Failing(err)) { // which is not blobs'
						t.Errorf("StatBlob: %v, want a failure", err)
					}
				}
				if h := r.Status().Endpoints[1]; h.Failures != 0 {
					t.Errorf("stand-in counts as failing: %+v", h)
				}
			})
		})
	}
}

func TestWrongBytesOfAStandInAreFetchedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other, r, img := withStandIn(t, false, func(o *Options) {
			o.Endpoints[0], o.Endpoints[1] = o.Endpoints[1], o.Endpoints[0] // the stand-in is preferred
		})
		other.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, Do: hubtest.Corrupt(20)})
		desc, raw, err := r.Manifest(t.Context(), repoAlpine, img.Digest)
		wantManifest(t, desc, raw, err, img)
		if n := w.hub.ManifestGets(img.Digest); n != 1 {
			t.Errorf("registry gave the manifest %d times, want once", n)
		}
	})
}

func TestCredentialsStayWithTheirEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other, r, img := withStandIn(t, true, func(o *Options) {
			o.Credentials = auth.Credentials{Username: "someone", Password: "hub-password"}
			o.Fallback = []auth.Credentials{{Username: "second", Password: "second-password"}}
		})
		// A registry that wants Basic is offered whatever belongs to it: here, nothing.
		other.AddRule(hubtest.Rule{Do: hubtest.Challenge(`Basic realm="ecr.test"`)})
		w.hub.AddRule(hubtest.Rule{Do: hubtest.Status(503)})
		_, _, err := r.Manifest(t.Context(), repoAlpine, img.Digest)
		wantKind(t, "Manifest", err, pull.Unavailable)
		if other.Requests() == 0 {
			t.Fatal("stand-in was not asked")
		}
		if strings.Contains(other.Ledger(), "Authorization") {
			t.Errorf("stand-in was sent an Authorization:\n%s", other.Ledger())
		}
	})
}

func TestM06SecondCredentialOnlyWhenTheFirstHasNoneLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		for _, name := range []string{"first", "second"} {
			w.hub.AddUser(hubtest.User{Name: name, Secrets: []string{name + "-secret"}, Plan: hubtest.Plan{Limit: 5, Window: time.Hour}})
		}
		img := w.push(repoAlpine, "latest")
		r := w.registry(func(o *Options) {
			*o = trusting(*o, w.hub, "first", "first-secret")
			o.Fallback = []auth.Credentials{{Username: "second", Password: "second-secret"}}
		})
		begun := time.Now()
		for i := range 10 {
			drain(t, r, 1)
			if want := max(i+1-5, 0); w.hub.Charged("second") != want {
				t.Fatalf("after %d pulls, %d are charged to the second, want %d", i+1, w.hub.Charged("second"), want)
			}
			if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		_, _, err := r.Manifest(t.Context(), repoAlpine, img.Digest)
		wantKind(t, "Manifest with none left", err, pull.Limited)
		if n := gets(w.hub, 429); n != 2 {
			t.Errorf("hub refused %d GETs, want one of each", n)
		}
		time.Sleep(time.Until(begun.Add(time.Hour + 2*pullPauseMost)))
		drain(t, r, 3)
		if first, second := w.hub.Charged("first"), w.hub.Charged("second"); first != 8 || second != 5 {
			t.Errorf("first is charged with %d, second with %d; want 8 and 5: the first is preferred again", first, second)
		}
		names := []string{}
		for _, b := range r.Budget() {
			names = append(names, b.Credential)
		}
		if strings.Join(names, " ") != "first second" {
			t.Errorf("Budget names %v", names)
		}
	})
}

func TestM06SecondCredentialWhenTheFirstIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		w.hub.AddUser(hubtest.User{Name: "first", Secrets: []string{"right"}})
		w.hub.AddUser(hubtest.User{Name: "second", Secrets: []string{"second-secret"}})
		w.push(repoAlpine, "latest")
		r := w.registry(func(o *Options) {
			*o = trusting(*o, w.hub, "first", "wrong")
			o.Fallback = []auth.Credentials{{Username: "second", Password: "second-secret"}}
		})
		drain(t, r, 20)
		if n := w.hub.Charged("second"); n != 20 {
			t.Errorf("second is charged with %d, want 20", n)
		}
		refused := w.hub.Count(hubtest.Query{Role: hubtest.RoleAuth, Status: http.StatusUnauthorized})
		if refused != 1 {
			t.Errorf("wrong password was tried %d times, want once a minute", refused)
		}
	})
}

// That the second may not read a repository does not matter while the first may be let
// through later.
func TestLimitIsToldRatherThanTheSecondsRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		w.hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"acme-secret"}, Plan: hubtest.Plan{Limit: 1, Window: time.Hour}})
		w.hub.AddUser(hubtest.User{Name: "second", Secrets: []string{"second-secret"}})
		w.hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
		w.hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
		r := w.registry(func(o *Options) {
			*o = trusting(*o, w.hub, "acme", "acme-secret")
			o.Fallback = []auth.Credentials{{Username: "second", Password: "second-secret"}}
		})
		if _, _, err := r.Manifest(t.Context(), "acme/app", "latest"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, _, err := r.Manifest(t.Context(), "acme/app", "latest")
			wantKind(t, "Manifest", err, pull.Limited)
		}
	})
}

func TestBreakerSparesAnEndpointThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		w.push(repoAlpine, "latest")
		w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Hang()})
		for i := range 30 { // five minutes of a client that tries again each ten seconds
			start := time.Now()
			_, err := r.Resolve(t.Context(), repoAlpine, "latest")
			if !pull.Failing(err) {
				t.Errorf("Resolve %d: %v, want a failure", i, err)
			}
			if time.Since(start) == 0 && !strings.Contains(err.Error(), "in a row") {
				t.Errorf("error at once is %v, want one that says why", err)
			}
			time.Sleep(time.Second)
		}
		n := w.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry})
		if n > 15 {
			t.Errorf("hub saw %d requests, want few of 30", n)
		}
		if s := r.Status(); !s.Endpoints[0].Open {
			t.Errorf("Status = %+v, want the breaker open", s)
		}
		w.hub.ClearRules()
		time.Sleep(20 * time.Second)
		if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
			t.Errorf("Resolve after it: %v", err)
		}
		if w.logged.FilterMessage("endpoint fails").Len() != 1 || w.logged.FilterMessage("endpoint answers again").Len() != 1 {
			t.Errorf("logged %v, want begin and end", w.logged.All())
		}
	})
}

func TestOpenBreakerIsProbedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{}, "second.test")
		r := w.registry(func(o *Options) {
			o.Endpoints = append(o.Endpoints, Endpoint{URL: "http://second.test"})
			o.Retry.Attempts = 1
		})
		w.push(repoAlpine, "latest")
		w.hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.Status(503)})
		for range 20 { // ten minutes
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
						t.Errorf("Resolve with a second endpoint: %v", err)
					}
				})
			}
			wg.Wait()
			time.Sleep(30 * time.Second)
		}
		if n := w.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry}); n > 50+20 {
			t.Errorf("failing endpoint saw %d requests, want the first fifty and then one each time", n)
		}
		w.hub.ClearRules()
		time.Sleep(time.Minute)
		w.others["second.test"].ResetCounters()
		for range 3 {
			if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
				t.Error(err)
			}
		}
		if n := w.others["second.test"].Requests(); n != 0 {
			t.Errorf("second endpoint saw %d requests, want the first to be back", n)
		}
	})
}

func TestStalledBodiesOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other, r, img := withStandIn(t, false, nil)
		d := digest(t, img.Blobs()[0].Digest)
		w.hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.StallAt(1)})
		for range 6 {
			_, _, err := readBlob(t.Context(), r, repoAlpine, d, 0, -1)
			if err == nil {
				break // by then from the stand-in
			}
			wantKind(t, "blob that stalls", err, pull.Timeout)
		}
		wantBlob(t, r, repoAlpine, d, w.hub.Bytes(d.String()))
		if n := other.BlobGets(d.String()); n == 0 {
			t.Error("stand-in was not asked")
		}
	})
}

func TestNewRefusesEndpointsWithoutTags(t *testing.T) {
	_, err := New(Options{Name: "docker.io", Endpoints: []Endpoint{standIn(false)}})
	if err == nil || !strings.Contains(err.Error(), "no endpoint gives tags") {
		t.Errorf("New with a stand-in alone: %v", err)
	}
	r, err := New(Options{Name: "docker.io", Endpoints: []Endpoint{standIn(true)}})
	if err != nil {
		t.Fatalf("New with a stand-in that gives tags: %v", err)
	}
	r.Close()
}

func TestLackOfReferrersIsRemembered(t *testing.T) {
	for mode, asked := range map[hubtest.ReferrersMode]int{hubtest.ReferrersOff: 1, hubtest.ReferrersOn: 5} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, hubtest.Options{Referrers: mode})
			r := w.registry(nil)
			img := w.push(repoAlpine, "latest")
			ask := func() {
				for range 5 {
					if list, err := r.Referrers(t.Context(), repoAlpine, digest(t, img.Digest)); err != nil || len(list) != 0 {
						t.Errorf("Referrers = %v, %v", list, err)
					}
				}
			}
			count := func() int {
				return w.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Route: hubtest.RouteReferrers}) -
					w.hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Route: hubtest.RouteReferrers, Status: 401})
			}
			ask()
			if n := count(); n != asked {
				t.Errorf("mode %q: %d requests to the API, want %d", mode, n, asked)
			}
			time.Sleep(2 * time.Hour)
			ask()
			if n := count(); n != 2*asked {
				t.Errorf("mode %q: %d requests after two hours, want %d", mode, n, 2*asked)
			}
		})
	}
}

// A 404 that blames the repository says nothing of the API.
func TestMissingRepositoryIsNoLackOfReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, hubtest.Options{})
		r := w.registry(nil)
		img := w.push(repoAlpine, "latest")
		raw := []byte(`{"schemaVersion":2,"mediaType":"` + hubtest.OCIManifest + `","artifactType":"application/x"}`)
		w.hub.AddReferrer(repoAlpine, img.Digest, "application/x", hubtest.OCIManifest, raw)
		gone := hubtest.StatusWith(404, "application/json", `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`, nil)
		w.hub.AddRule(hubtest.Rule{Repo: "library/gone", When: bearer, Do: gone})
		w.push("library/gone", "latest")
		if _, err := r.Referrers(t.Context(), "library/gone", digest(t, img.Digest)); err != nil {
			t.Errorf("Referrers in a repository that is gone: %v", err)
		}
		if list, err := r.Referrers(t.Context(), repoAlpine, digest(t, img.Digest)); err != nil || len(list) != 1 {
			t.Errorf("Referrers = %s, %v; want the one that there is", list, err)
		}
	})
}
