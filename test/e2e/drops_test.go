package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"forebay/test/hubtest"
)

// hugeLayers and hugeLayerBytes make an image as large as a run bears. What a layer of
// gigabytes does differently, many segments over several connections, this does too.
const (
	hugeRepo       = "library/huge"
	hugeLayers     = 2
	hugeLayerBytes = 160 << 20
)

// containerd fetches layers in parallel ranges while every third transfer from the CDN is
// reset or ends early: it must not notice, and little may come twice.
func TestParallelRangesSurviveDrops(t *testing.T) {
	w := newWorld(t, worldOptions{})
	k, err := makeLayers()
	if err != nil {
		t.Fatal(err)
	}
	parts := []layer{k.base}
	for n := range hugeLayers {
		name := fmt.Sprintf("huge-%d", n)
		l, err := newLayer(name, gzipped, files{name: noise(byte(100+n), hugeLayerBytes)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, l)
	}
	img, err := platformImage(oci, amd64, hugeRepo, parts)
	if err != nil {
		t.Fatal(err)
	}
	w.registry.push(t, hugeRepo, img, catalogueTag)
	const sentAndLost = 3 << 20 // by a reset, at most: what has not been read then is thrown away
	reset := w.hub.AddRule(hubtest.Rule{ID: "reset", Role: hubtest.CDN, Method: http.MethodGet, From: 2, Every: 5, Do: hubtest.Drop(sentAndLost, hubtest.RST)})
	ended := w.hub.AddRule(hubtest.Rule{ID: "ended", Role: hubtest.CDN, Method: http.MethodGet, From: 4, Every: 5, Do: hubtest.Drop(5<<20, hubtest.FIN)})
	tap := openTap(t, w.mirror)
	s := openContainerd24Parallel(t, tap.addr)
	pull(t, s, hugeRepo+":"+catalogueTag, img)
	if reset.Fired()+ended.Fired() < 3 {
		t.Errorf("%d transfers were broken off, want several", reset.Fired()+ended.Fired())
	}
	for _, b := range img.blobs {
		if n, most := w.hub.BlobBytes(b.digest.String()), int64(len(b.bytes))*105/100+rangesTwice+sentAndLost*int64(reset.Fired()); n > most {
			t.Errorf("the hub sent %d bytes of a blob of %d, want at most %d (%d resets)", n, len(b.bytes), most, reset.Fired())
		}
	}
	w.assertClean(t)
}
