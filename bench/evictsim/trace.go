package main

import "slices"

// kind is what an object of a registry is. Its order matters to nothing.
type kind uint8

const (
	manifestKind kind = iota // an image manifest or an index
	configKind
	layerKind
)

// object is one piece of content, named by its place in [trace.objects].
type object struct {
	size int64
	kind kind
	refs []int32 // what a manifest or index references
}

// op is what a client asks for.
type op uint8

const (
	head op = iota // of a manifest: the client has the image, or is about to GET it
	get
)

// event is one request as a mirror sees it.
type event struct {
	minute uint32 // since the trace began
	object int32
	pull   int32 // which pull of an image it belongs to; -1 unknown
	op     op
}

// trace is a workload: requests in the order of their time.
type trace struct {
	name    string
	objects []object
	events  []event
	pulls   int32 // how many pulls the events name; 0 unknown
}

// facts are what a trace looks like as a whole.
type facts struct {
	requests  int     // GETs of manifests and blobs
	manifests int     // GETs of manifests
	bytes     int64   // what the GETs would transfer
	unique    int64   // bytes of everything that is asked for at least once
	objects   int     // how many things those are
	small     float64 // share of layers below smallMax
	once      float64 // share of objects asked for exactly once
	warm      int     // index of the first event that is counted
}

// warmShare of a trace's requests fills the cache before anything is counted.
const warmShare = 0.25

func (t *trace) facts() facts {
	var f facts
	asked := make([]int, len(t.objects))
	for _, e := range t.events {
		if e.op != get {
			continue
		}
		f.requests++
		f.bytes += t.objects[e.object].size
		if t.objects[e.object].kind == manifestKind {
			f.manifests++
		}
		asked[e.object]++
	}
	layers, small := 0, 0
	for i, n := range asked {
		if n == 0 {
			continue
		}
		o := t.objects[i]
		f.objects++
		f.unique += o.size
		if n == 1 {
			f.once++
		}
		if o.kind == layerKind {
			layers++
			if o.size < smallMax {
				small++
			}
		}
	}
	f.once /= float64(max(f.objects, 1))
	f.small = float64(small) / float64(max(layers, 1))
	f.warm = int(float64(len(t.events)) * warmShare)
	return f
}

// nexts returns for each event when its object is asked for again: the index of that
// event, or never. Only a clairvoyant may use it.
func (t *trace) nexts() []int32 {
	seen := slices.Repeat([]int32{never}, len(t.objects))
	next := make([]int32, len(t.events))
	for i, e := range slices.Backward(t.events) {
		next[i] = seen[e.object]
		if e.op == get {
			seen[e.object] = int32(i)
		}
	}
	return next
}

// never is later than every event.
const never = 1<<31 - 1
