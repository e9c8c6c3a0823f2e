// Package hubtest is a Docker Hub for tests: registry, token server, blob CDNs,
// rate limits, and every way of misbehaving that a mirror must survive.
//
// It speaks real HTTP, counts what it saw, and misbehaves on request. It shares no
// code with the product, so that the two can disagree. It must never be linked into
// a shipped binary.
//
//	hub := hubtest.New(t, hubtest.Options{})                 // closed by t.Cleanup
//	img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{
//		Platforms: []string{"linux/amd64", "linux/arm64"},
//	})
//	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Route: hubtest.RouteBlob, Count: 1, Do: hubtest.Drop(1000, hubtest.RST)})
//	pullThrough(t, hub.RegistryURL(), img)                   // the product under test
//	if n := hub.ManifestGets(img.Digest); n != 1 {
//		t.Errorf("hub saw %d manifest requests, want 1", n)
//	}
//	hub.AssertAllFired(t)
//	hub.AssertClean(t)                                       // no leaked credential, no write
//
// # Roles and addresses
//
// Each [Role] has a listener of its own on a loopback address of its own
// (127.0.0.2 and up, port 0), because Go decides by host name, never by port,
// whether a redirect keeps the Authorization header. With Options.Named the roles
// have their production names and TLS; the client must dial with [Hub.DialContext]
// and trust [Hub.RootCAs]. With Options.InMemory no socket is opened at all:
// connections are pipes made by [Hub.DialContext], which works with virtual time
// inside a testing/synctest bubble.
//
// # Time
//
// Token lives, signed URLs, windows and dates follow [Hub.Now], which is
// Options.Now moved forward by [Hub.Advance]. Delays, drips and bandwidth limits
// take real time (virtual time inside a synctest bubble).
//
// # Faults
//
// Rules are tried in order, and the first that matches a request fires, so each
// request suffers at most one fault ([Both] joins two). See [Rule] and [Fault].
package hubtest
