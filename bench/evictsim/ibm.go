package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// record is one request in a trace of the IBM registries (Anwar et al., FAST 2018), in
// either of its forms: as published, with the names of the registry's log, or as its
// replayer keeps it.
type record struct {
	Delay  json.RawMessage `json:"delay"` // seconds, or a time
	URI    string          `json:"uri"`
	Size   float64         `json:"size"`
	Method string          `json:"method"`
	Client string          `json:"client"`

	Timestamp  string  `json:"timestamp"`
	RawURI     string  `json:"http.request.uri"`
	RawMethod  string  `json:"http.request.method"`
	RawClient  string  `json:"http.request.remoteaddr"`
	RawWritten float64 `json:"http.response.written"`
	RawStatus  int     `json:"http.response.status"`
}

// request is a record that a mirror would see.
type request struct {
	at       float64 // seconds
	repo     string
	ref      string
	client   string
	size     int64
	manifest bool
	op       op
}

// readIBM reads a trace: an array of records, or records one after the other. Pushes,
// failures and what is neither manifest nor blob are passed over.
//
// Such a trace does not say what a manifest references. It is taken to be what the same
// client fetches from the same repository in the quarter of an hour after it.
func readIBM(name string, r io.Reader) (*trace, error) {
	var all []request
	n := 0
	err := eachRecord(r, func(rec record) error {
		n++
		req, ok, err := rec.request()
		if err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		if ok {
			all = append(all, req)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read trace %q: %w", name, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read trace %q: none of its %d records is a pull of a manifest or blob", name, n)
	}
	slices.SortStableFunc(all, func(a, b request) int { return cmp.Compare(a.at, b.at) })
	if span := all[len(all)-1].at - all[0].at; span > longestTrace {
		return nil, fmt.Errorf("read trace %q: it lasts %g seconds, which is more than ten years", name, span)
	}
	return assemble(name, all), nil
}

const longestTrace = 10 * 366 * 24 * 3600

func eachRecord(r io.Reader, f func(record) error) error {
	in := bufio.NewReaderSize(r, 1<<20)
	dec := json.NewDecoder(in)
	first, err := firstByte(in)
	if err != nil {
		return err
	}
	array := first == '['
	if array {
		if _, err := dec.Token(); err != nil {
			return err
		}
	}
	for dec.More() {
		var rec record
		if err := dec.Decode(&rec); err != nil {
			return fmt.Errorf("byte %d: %w", dec.InputOffset(), err)
		}
		if err := f(rec); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case array:
		return io.ErrUnexpectedEOF
	default:
		return nil
	}
}

// firstByte returns the first byte that is no white space, without reading it.
func firstByte(in *bufio.Reader) (byte, error) {
	for {
		b, err := in.Peek(1)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("it is empty")
			}
			return 0, err
		}
		if !strings.ContainsRune(" \t\r\n", rune(b[0])) {
			return b[0], nil
		}
		if _, err := in.Discard(1); err != nil {
			return 0, err
		}
	}
}

// request returns what a record asks for; false if a mirror has nothing to do with it.
func (r record) request() (request, bool, error) {
	method := cmp.Or(r.Method, r.RawMethod)
	if method == "" {
		return request{}, false, errors.New("it has no method")
	}
	req := request{client: cmp.Or(r.Client, r.RawClient)}
	switch method {
	case "GET":
		req.op = get
	case "HEAD":
		req.op = head
	default:
		return request{}, false, nil
	}
	if r.RawStatus >= 300 {
		return request{}, false, nil
	}
	var ok bool
	if req.repo, req.ref, req.manifest, ok = splitURI(cmp.Or(r.URI, r.RawURI)); !ok {
		return request{}, false, nil
	}
	size := max(r.Size, r.RawWritten)
	if size > 1<<50 {
		return request{}, false, fmt.Errorf("size %g is more than any blob has", size)
	}
	req.size = int64(size)
	if req.op == get && req.size == 0 || req.op == head && !req.manifest {
		return request{}, false, nil
	}
	var err error
	req.at, err = r.time()
	return req, err == nil, err
}

func (r record) time() (float64, error) {
	text := r.Timestamp
	if len(r.Delay) > 0 && string(r.Delay) != "null" {
		var seconds float64
		if err := json.Unmarshal(r.Delay, &seconds); err == nil {
			return seconds, nil
		}
		if err := json.Unmarshal(r.Delay, &text); err != nil {
			return 0, fmt.Errorf("delay %s is neither seconds nor a time", r.Delay)
		}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, fmt.Errorf("time: %w", err)
	}
	return float64(at.UnixMilli()) / 1000, nil
}

// splitURI takes "v2/user/repo/blobs/digest" apart.
func splitURI(uri string) (repo, ref string, manifest, ok bool) {
	uri, _, _ = strings.Cut(uri, "?")
	path, ok := strings.CutPrefix(strings.TrimPrefix(uri, "/"), "v2/")
	i := strings.LastIndexByte(path, '/')
	if !ok || i < 0 {
		return "", "", false, false
	}
	path, ref = path[:i], path[i+1:]
	if repo, ok = strings.CutSuffix(path, "/manifests"); ok {
		return repo, ref, true, ref != ""
	}
	repo, ok = strings.CutSuffix(path, "/blobs")
	return repo, ref, false, ok && ref != ""
}

// assemble makes a trace of requests in the order of their time.
func assemble(name string, all []request) *trace {
	a := assembler{
		t: &trace{name: name}, ids: map[[2]string]int32{}, last: map[[2]string]pulled{}, has: map[[2]int32]bool{},
	}
	for _, r := range all {
		a.add(r, uint32((r.at-all[0].at)/60))
	}
	return a.t
}

// pulled is the manifest that a client fetched last.
type pulled struct {
	object int32
	minute uint32
}

type assembler struct {
	t    *trace
	ids  map[[2]string]int32  // of blobs by digest, of manifests by repository and reference
	last map[[2]string]pulled // by client and repository
	has  map[[2]int32]bool    // manifest, blob
}

// pullMinutes is how long the blobs of a manifest are fetched after it.
const pullMinutes = 15

func (a *assembler) add(r request, minute uint32) {
	id, k := [2]string{"", r.ref}, layerKind
	if r.manifest {
		id, k = [2]string{r.repo, r.ref}, manifestKind
	}
	o, known := a.ids[id]
	if !known {
		o = int32(len(a.t.objects))
		a.ids[id] = o
		a.t.objects = append(a.t.objects, object{kind: k})
	}
	// A range is smaller than its blob.
	a.t.objects[o].size = max(a.t.objects[o].size, r.size)
	a.t.events = append(a.t.events, event{minute: minute, object: o, pull: -1, op: r.op})
	by := [2]string{r.client, r.repo}
	if r.manifest {
		a.last[by] = pulled{o, minute}
		return
	}
	if m, ok := a.last[by]; ok && minute <= m.minute+pullMinutes && !a.has[[2]int32{m.object, o}] {
		a.has[[2]int32{m.object, o}] = true
		a.t.objects[m.object].refs = append(a.t.objects[m.object].refs, o)
	}
}
