package main

import (
	"reflect"
	"slices"
	"testing"
)

func TestAShapeAndASeedMakeOneTrace(t *testing.T) {
	a, b, other := smallTrace(7), smallTrace(7), smallTrace(8)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed makes two traces")
	}
	if reflect.DeepEqual(a.events, other.events) {
		t.Error("two seeds make the same requests")
	}
}

func TestWorkloadsHaveThePublishedShape(t *testing.T) {
	for _, s := range shapes() {
		s = s.scaled(0.2)
		s.days = 30
		tr := generate(s, 3)
		f := tr.facts()
		if f.small < 0.6 || f.small > 0.72 {
			t.Errorf("%s: %.2f of layers are below 1 MiB, want about two of three", s.name, f.small)
		}
		if f.once < 0.3 {
			t.Errorf("%s: %.2f of objects are asked for once, want a good part", s.name, f.once)
		}
		if got := topShare(tr, 0.01); got < 0.15 {
			t.Errorf("%s: the most wanted hundredth gets %.2f of the requests, want many", s.name, got)
		}
		if got := tailShare(tr, 0.05); got < 0.4 {
			t.Errorf("%s: the largest twentieth has %.2f of the bytes, want a heavy tail", s.name, got)
		}
		checkTrace(t, tr)
	}
}

// checkTrace looks whether a trace is one: in order, with whole references.
func checkTrace(t *testing.T, tr *trace) {
	t.Helper()
	last := uint32(0)
	for i, e := range tr.events {
		if e.minute < last || int(e.object) >= len(tr.objects) || e.pull >= max(tr.pulls, 1) {
			t.Fatalf("%s: event %d is %+v after minute %d", tr.name, i, e, last)
		}
		if e.op == head && tr.objects[e.object].kind != manifestKind {
			t.Fatalf("%s: event %d is a HEAD of no manifest", tr.name, i)
		}
		last = e.minute
	}
	for i, o := range tr.objects {
		for _, r := range o.refs {
			if r < 0 || int(r) >= len(tr.objects) || int(r) == i {
				t.Fatalf("%s: object %d references %d", tr.name, i, r)
			}
		}
	}
}

func topShare(tr *trace, part float64) float64 {
	asked := make([]int, len(tr.objects))
	n := 0
	for _, e := range tr.events {
		if e.op == get {
			asked[e.object]++
			n++
		}
	}
	return shareOfLargest(asked, part, n)
}

func tailShare(tr *trace, part float64) float64 {
	var sizes []int
	sum := 0
	for _, o := range tr.objects {
		if o.kind == layerKind {
			sizes = append(sizes, int(o.size))
			sum += int(o.size)
		}
	}
	return shareOfLargest(sizes, part, sum)
}

// shareOfLargest returns what part of the sum the largest numbers have.
func shareOfLargest(all []int, part float64, sum int) float64 {
	slices.SortFunc(all, func(a, b int) int { return b - a })
	top := 0
	for _, n := range all[:int(float64(len(all))*part)] {
		top += n
	}
	return float64(top) / float64(sum)
}

func TestNextsAreTheNextGETs(t *testing.T) {
	tr := &trace{
		objects: []object{{size: 1, kind: manifestKind}, {size: 1, kind: layerKind}},
		events:  []event{{object: 0}, {object: 0, op: get}, {object: 1, op: get}, {object: 0}, {object: 0, op: get}},
	}
	got, want := tr.nexts(), []int32{1, 4, never, 4, never}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("nexts() = %v, want %v", got, want)
	}
}
