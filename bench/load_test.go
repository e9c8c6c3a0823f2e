//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func TestDownloadTakesTheWholeBody(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 3*mib)
	var times atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		times.Add(1)
		http.ServeContent(w, r, "", testTime, bytes.NewReader(body))
	})
	got, err := fetchAll(downloads{List: []download{
		{URL: url, Size: int64(len(body)), Repeat: 2},
		{URL: url, Size: 100, Range: "bytes=-100"},
		{URL: url, Size: 1, Range: "bytes=7-7"},
	}, Meet: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range got {
		if f.First <= 0 || f.First > f.ButLast && i < 2 || f.ButLast > f.Last {
			t.Errorf("download %d: %+v: the times do not ascend", i, f)
		}
	}
	if n := times.Load(); n != 4 {
		t.Errorf("the server saw %d requests, want 4", n)
	}
}

// A registry's token is not for the CDN that it redirects to.
func TestTokenDoesNotFollowRedirect(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("the target of the redirect got %q", got)
		}
		fmt.Fprint(w, "body")
	})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header.Get("Authorization"), "Bearer secret"; got != want {
			t.Errorf("Authorization = %q, want %q", got, want)
		}
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
	})
	if _, err := fetchAll(downloads{List: []download{{URL: url, Token: "secret", Size: 4}}}); err != nil {
		t.Error(err)
	}
}

func TestDownloadFails(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/short":
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "five.")
		case "/missing":
			http.Error(w, "not here", http.StatusNotFound)
		default:
			fmt.Fprint(w, "whole body")
		}
	})
	for path, want := range map[string]string{
		"/short":   "at 5 of 10: unexpected EOF",
		"/missing": "404 Not Found: not here",
		"/longer":  "the body has 10 bytes, want 9",
	} {
		size := int64(10)
		if path == "/longer" {
			size = 9
		}
		// One that fails must not let the other wait for it for ever.
		_, err := fetchAll(downloads{List: []download{{URL: url + path, Size: size}, {URL: url, Size: 10}}, Meet: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", path, err, want)
		}
	}
}

func TestHammerCountsAnswers(t *testing.T) {
	var served atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if got := r.Header.Get("Accept"); r.URL.Path != "/manifest" || got != "a/b" {
			t.Errorf("%s with Accept %q", r.URL.Path, got)
		}
		w.Header().Set("Content-Length", "3")
		fmt.Fprint(w, "abc")
	})
	h := hammer{Addr: hostOf(url), Path: "/manifest", Accept: "a/b", Connections: 3, Seconds: 0.1}
	done, err := h.run()
	if err != nil {
		t.Fatal(err)
	}
	// What is under way when the time is over is not counted.
	if n := served.Load(); done.Requests < n-3 || done.Requests > n || done.Requests < 3 {
		t.Errorf("hammer counted %d answers, the server %d", done.Requests, n)
	}
	if done.Seconds < h.Seconds {
		t.Errorf("hammer took %g s, want at least %g", done.Seconds, h.Seconds)
	}
}

func TestHammerRefusesOtherAnswers(t *testing.T) {
	var served atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := "abc"
		switch n := served.Add(1); {
		case r.URL.Path == "/fails" && n > 5:
			w.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == "/grows" && n > 5:
			body = "abcdef"
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		fmt.Fprint(w, body)
	})
	for path, want := range map[string]string{
		"/fails": `answer begins with "HTTP/1.1 500`,
		"/grows": "the first one had",
	} {
		served.Store(0)
		_, err := hammer{Addr: hostOf(url), Path: path, Connections: 1, Seconds: 30}.run()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", path, err, want)
		}
	}
}
