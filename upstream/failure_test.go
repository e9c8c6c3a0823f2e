package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"forebay/internal/wire"
	"forebay/upstream/dial"
)

func TestWhatMayHelp(t *testing.T) {
	const both = tryAgain | tryEndpoint
	r := newRegistry(t, Options{Name: "docker.io"})
	blob := &ask{op: "get blob", method: http.MethodGet, blob: digestOf("", nil)}
	manifest := &ask{op: "get manifest", method: http.MethodGet, manifest: true}
	mirror := http.Header{wire.HopsHeader: {"other"}}
	rows := []struct {
		status       int
		a            *ask
		header       http.Header
		ofTarget     bool // of where the registry redirected to
		want         remedy
		sick, atWork bool
	}{
		{status: 400, a: blob}, {status: 401, a: blob}, {status: 403, a: blob}, {status: 404, a: blob}, {status: 416, a: blob},
		{status: 408, a: blob, want: both, sick: true},
		{status: 429, a: blob, want: tryEndpoint},
		{status: 500, a: blob, want: both, sick: true},
		{status: 501, a: blob, want: tryEndpoint, sick: true},
		{status: 502, a: manifest, want: both, sick: true},
		{status: 503, a: manifest, want: both, sick: true},
		{status: 504, a: manifest, want: both, sick: true},
		{status: 507, a: manifest, want: tryEndpoint, sick: true},
		{status: 520, a: manifest, want: both, sick: true},
		{status: 524, a: manifest, want: both, sick: true},
		{status: 525, a: manifest, want: tryEndpoint, sick: true},
		// What another mirror says is about what it asked, and it has tried again itself.
		{status: 503, a: blob, header: mirror, want: tryEndpoint, atWork: true},
		{status: 429, a: blob, header: mirror, want: tryEndpoint, atWork: true},
		{status: 404, a: blob, header: mirror, atWork: true},
		// A signed URL may have expired.
		{status: 400, a: blob, ofTarget: true, want: tryRegistry},
		{status: 403, a: manifest, ofTarget: true, want: tryRegistry},
		{status: 404, a: blob, ofTarget: true, want: tryRegistry},
		{status: 404, a: manifest, ofTarget: true},
		{status: 503, a: blob, ofTarget: true, want: both, sick: true},
	}
	for _, row := range rows {
		resp := &http.Response{StatusCode: row.status, Header: row.header, Body: io.NopCloser(strings.NewReader(""))}
		f := r.statusFailure(t.Context(), row.a, resp, nil)
		if row.ofTarget {
			f = r.targetFailure(t.Context(), row.a, r.endpoints[0].base, resp, nil)
		}
		if f.remedies != row.want || f.sick() != row.sick || f.atWork != row.atWork {
			t.Errorf("%d for %s (target %t, mirror %t) = remedies %04b, sick %t, at work %t; want %04b, %t, %t", row.status, row.a.op,
				row.ofTarget, row.header != nil, f.remedies, f.sick(), f.atWork, row.want, row.sick, row.atWork)
		}
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	resp := &http.Response{StatusCode: 503, Body: io.NopCloser(strings.NewReader(""))}
	if f := r.statusFailure(left, blob, resp, nil); f.remedies != 0 {
		t.Errorf("503 after the end of the request = remedies %04b, want none", f.remedies)
	}
}

func TestWhatMayHelpWithoutAnAnswer(t *testing.T) {
	r := newRegistry(t, Options{Name: "docker.io"})
	rows := map[string]struct {
		err    error
		reused bool // an idle connection was used
		want   remedy
	}{
		"refused":                       {err: errors.New("connection refused"), want: tryAgain | tryEndpoint},
		"timeout":                       {err: os.ErrDeadlineExceeded, want: tryEndpoint},
		"timeout of an idle connection": {err: os.ErrDeadlineExceeded, reused: true, want: tryAgain | tryEndpoint},
		"certificate":                   {err: &tls.CertificateVerificationError{Err: errors.New("expired")}, want: tryEndpoint},
		"address that is never dialled": {err: dial.ErrRefused},
	}
	for name, row := range rows {
		f := r.transportFailure(t.Context(), &ask{op: "get blob"}, row.err, row.reused)
		if f.remedies != row.want {
			t.Errorf("%s = remedies %04b, want %04b", name, f.remedies, row.want)
		}
	}
}

// What a stand-in does not have says nothing about the registry, and nothing bad about it.
func TestStandInsRefusalIsNoFault(t *testing.T) {
	r := newRegistry(t, Options{Name: "docker.io", Endpoints: []Endpoint{
		{URL: "https://standin.example", StandIn: &StandIn{}}, {URL: "https://registry-1.docker.io"}}})
	for _, status := range []int{400, 401, 404, 405, 503} {
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(""))}
		f := r.endpoints[0].tell(r.statusFailure(t.Context(), &ask{op: "get blob", blob: digestOf("", nil)}, resp, nil))
		atWork := status == 401 || status == 404 || status == 405
		if !f.standIn || !f.helps(tryEndpoint) || f.atWork != atWork || f.sick() == atWork {
			t.Errorf("stand-in's %d = stand-in %t, remedies %04b, at work %t, sick %t", status, f.standIn, f.remedies, f.atWork, f.sick())
		}
	}
}
