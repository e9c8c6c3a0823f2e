package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const replayed = `[
 {"delay": 10.5, "uri": "v2/u/app/manifests/m1", "size": 900, "method": "GET", "client": "c1", "duration": 0.1},
 {"delay": 0, "uri": "v2/u/app/manifests/m1", "size": 900, "method": "HEAD", "client": "c2"},
 {"delay": 70, "uri": "v2/u/app/blobs/b1", "size": 5000, "method": "GET", "client": "c1"},
 {"delay": 71, "uri": "v2/u/app/blobs/b1", "size": 7000, "method": "GET", "client": "c2"},
 {"delay": 72, "uri": "v2/u/other/blobs/b2", "size": 1, "method": "GET", "client": "c1"},
 {"delay": 73, "uri": "v2/u/app/blobs/b3", "size": 1, "method": "PUT", "client": "c1"},
 {"delay": 5000, "uri": "v2/u/app/blobs/b4", "size": 40, "method": "GET", "client": "c1"}
]`

const published = `
{"host": "h", "http.request.duration": 0.2, "http.request.method": "GET", "http.request.remoteaddr": "c1",
 "http.request.uri": "v2/u/app/manifests/m1", "http.request.useragent": "docker/17.06", "http.response.status": 200,
 "http.response.written": 900, "id": "x", "timestamp": "2017-07-21T00:00:10.500Z"}
{"http.request.method": "GET", "http.request.remoteaddr": "c1", "http.request.uri": "/v2/u/app/blobs/b1",
 "http.response.status": 200, "http.response.written": 7000, "timestamp": "2017-07-21T00:01:20.000Z"}
{"http.request.method": "GET", "http.request.remoteaddr": "c1", "http.request.uri": "v2/u/app/blobs/b2",
 "http.response.status": 404, "http.response.written": 70, "timestamp": "2017-07-21T00:01:21.000Z"}
{"http.request.method": "GET", "http.request.remoteaddr": "c1", "http.request.uri": "v2/", "http.response.status": 200,
 "http.response.written": 2, "timestamp": "2017-07-21T00:01:21.000Z"}
`

func TestReadIBM(t *testing.T) {
	for name, want := range map[string]*trace{
		replayed: {
			objects: []object{
				{size: 900, kind: manifestKind, refs: []int32{1}}, {size: 7000, kind: layerKind},
				{size: 1, kind: layerKind}, {size: 40, kind: layerKind},
			},
			events: []event{
				{minute: 0, object: 0, pull: -1, op: head}, {minute: 0, object: 0, pull: -1, op: get},
				{minute: 1, object: 1, pull: -1, op: get}, {minute: 1, object: 1, pull: -1, op: get},
				{minute: 1, object: 2, pull: -1, op: get}, {minute: 83, object: 3, pull: -1, op: get},
			},
		},
		published: {
			objects: []object{{size: 900, kind: manifestKind, refs: []int32{1}}, {size: 7000, kind: layerKind}},
			events:  []event{{minute: 0, object: 0, pull: -1, op: get}, {minute: 1, object: 1, pull: -1, op: get}},
		},
	} {
		got, err := readIBM("a file", strings.NewReader(name))
		if err != nil {
			t.Errorf("readIBM: %s", err)
			continue
		}
		want.name = "a file"
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(trace{}, object{}, event{})); diff != "" {
			t.Errorf("readIBM (-want +got):\n%s", diff)
		}
		checkTrace(t, got)
	}
}

func TestReadIBMTellsWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "is empty",
		" \n":                             "is empty",
		"[]":                              "none of its 0 records",
		`[{"method": "PUT", "uri": "x"}]`: "none of its 1 records",
		`{"uri": "v2/a/blobs/b", "size": 1, "delay": 1}`:                     "record 1: it has no method",
		`{"uri": "v2/a/blobs/b", "size": 1, "method": "GET"}`:                "record 1: time",
		`{"uri": "v2/a/blobs/b", "size": 1, "method": "GET", "delay": true}`: "neither seconds nor a time",
		`{"uri": "v2/a/blobs/b", "size": 1e30, "method": "GET", "delay": 1}`: "more than any blob has",
		`[{"uri": "v2/a/blobs/b", "size": 1, "method": "GET", "delay": 1}`:   "unexpected EOF",
		`[{"uri": "v2/a/blobs/b", "size": "x"}]`:                             "byte ",
		`[1]`:                                                                "byte ",
		`nonsense`:                                                           "byte ",
		`{"uri": "v2/a/blobs/b", "size": 1, "method": "GET", "delay": 1} {`:  "unexpected EOF",
		`[{"uri": "v2/a/blobs/b", "size": 1, "method": "GET", "delay": 1},
		  {"uri": "v2/a/blobs/b", "size": 1, "method": "GET", "delay": 1e17}]`: "more than ten years",
	} {
		tr, err := readIBM("a file", strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `read trace "a file"`) {
			t.Errorf("readIBM(%s) = %v, %v, want an error with %q", text, tr, err, want)
		}
	}
}

func FuzzReadIBM(f *testing.F) {
	f.Add(replayed)
	f.Add(published)
	f.Add(`[{"uri":"v2/a/manifests/b?x=1","size":-1,"method":"HEAD","delay":"2017-07-21T00:00:10Z"}]`)
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := readIBM("a file", strings.NewReader(text))
		if err != nil {
			return
		}
		checkTrace(t, tr)
		if got := replay(tr, 1<<20, true, newLRU); got.hits > got.requests {
			t.Errorf("replay = %+v", got)
		}
	})
}
