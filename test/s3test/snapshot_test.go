package s3test_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"forebay/test/hubtest"
	"forebay/test/s3test"
)

// What snapshots name is served whole while no registry answers: after pulls of several times what the store may
// hold, after a restart, after the index was made anew, and with a bucket after the folder was lost.
func TestSnapshotsOutliveEviction(t *testing.T) {
	for _, bucket := range []bool{false, true} {
		t.Run(fmt.Sprintf("bucket %t", bucket), func(t *testing.T) {
			p := newShipped(t, bucket)
			w := p.w
			p.account = ", tag_ttl: 0s"
			stop := p.start()
			spec := hubtest.ImageSpec{Layers: 2, LayerSize: 2 << 20, Platforms: []string{"linux/amd64", "linux/arm64"}}
			many := w.hub.PushImage("acme/many", "1", spec)
			before := w.hub.PushImage("acme/app", "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 1})
			w.whole(p.m, many)
			w.whole(p.m, before)
			p.run("snapshot", "create", "first", "--reason", "release 1")
			after := w.hub.PushImage("acme/app", "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 2})
			w.whole(p.m, after)
			p.run("snapshot", "create", "second", "docker.io/acme/*")
			w.hub.PushImage("acme/app", "1", hubtest.ImageSpec{LayerSize: 1 << 20, Seed: 3})
			var filler []*hubtest.Image
			for i := range 60 { // 240 MiB
				filler = append(filler, w.hub.PushImage("acme/filler", fmt.Sprint(i), hubtest.ImageSpec{LayerSize: 2 << 20}))
				w.whole(p.m, filler[i])
			}
			if !bucket {
				evicted := 0
				for _, img := range filler {
					d := img.Blobs()[1].Digest // its first layer
					asked := w.hub.BlobBytes(d)
					w.pull(p.m, blobPath(img.Repo, d), "", w.hub.Bytes(d))
					if w.hub.BlobBytes(d) > asked {
						evicted++
					}
				}
				if evicted < 30 {
					t.Errorf("%d of %d fillers were evicted: there was no pressure", evicted, len(filler))
				}
			}
			tell := func() string {
				var all strings.Builder
				for _, args := range []string{"list", "show first", "show second", "diff first second"} {
					all.WriteString(p.run(append(append([]string{"snapshot"}, strings.Fields(args)...), "--json")...))
				}
				return all.String()
			}
			told := tell()
			for _, want := range []string{"release 1", many.Digest, before.Digest, after.Digest, "acme/app:1"} {
				if !strings.Contains(told, want) {
					t.Errorf("the snapshots do not tell of %s:\n%s", want, told)
				}
			}
			w.hub.SwitchOff()
			look := func(when string) {
				t.Helper()
				for name, images := range map[string][]*hubtest.Image{"first": {many, before}, "second": {many, after}} {
					for _, img := range images {
						at := "/v2/@" + name + "/docker.io/" + img.Repo
						w.pull(p.m, at+"/manifests/"+img.Tag, "", img.Raw)
						for _, d := range img.Manifests() {
							w.pull(p.m, at+"/manifests/"+d.Digest, "", w.hub.Bytes(d.Digest))
						}
						for _, b := range img.Blobs() {
							w.pull(p.m, at+"/blobs/"+b.Digest, "", w.hub.Bytes(b.Digest))
						}
					}
				}
				if now := tell(); now != told {
					t.Errorf("%s the snapshots are told of otherwise:\n%s\nbefore:\n%s", when, now, told)
				}
			}
			look("under pressure")
			stop()
			stop = p.start()
			look("after a restart")
			stop()
			p.run("rebuild-index")
			stop = p.start()
			look("with the index made anew")
			if bucket {
				stop()
				p.lose()
				stop = p.start()
				s3test.Await(t, time.Minute, "the bucket to be read", func() bool { return strings.Contains(p.run("snapshot", "list", "--json"), `"second"`) })
				look("with the folder lost")
				stop()
				stop = p.start()
				look("and after another restart")
			}
			p.run("snapshot", "drop", "second")
			if now := p.run("snapshot", "list", "--json"); strings.Contains(now, `"second"`) || !strings.Contains(now, `"first"`) {
				t.Errorf("after the second was dropped there are\n%s", now)
			}
			stop()
		})
	}
}
