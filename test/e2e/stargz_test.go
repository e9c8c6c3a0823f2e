//go:build clients

package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/test/hubtest"
)

// lazyStore is a containerd for whom stargz-snapshotter mounts layers before they are there.
type lazyStore struct {
	*containerdStore
	dir, remote string
}

// openLazy has it pull through a mirror at addr, or from the hub's own registry there. more is of the snapshotter's
// configuration.
func openLazy(t testing.TB, addr, more string) *lazyStore {
	t.Helper()
	dir := stateDir(t)
	socket := filepath.Join(dir, "s.sock")
	config := writeFile(t, dir, "stargz.toml", fmt.Sprintf("%s\n[directory_cache]\ndirect = true\n\n[[resolver.host.\"docker.io\".mirrors]]\nhost = %q\ninsecure = true\n", more, addr))
	startProcess(t, "stargz", exec.Command(moreProgram(t, "stargz"), "serve", socket, filepath.Join(dir, "stargz"), config), func() error {
		_, err := os.Stat(socket)
		return err
	})
	writeFile(t, dir, "etc/containerd/config.toml", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n")
	clientConfig(t, "containerd", addr, dir)
	// ctr-remote is older than the folder for all registries.
	if err := os.Symlink("_default", filepath.Join(dir, "etc/containerd/certs.d/docker.io")); err != nil {
		t.Fatal(err)
	}
	c := runContainerd(t, dir, builtProgram("containerd"), builtProgram("ctr"), containerd24Config+fmt.Sprintf("\n[proxy_plugins.stargz]\n  type = \"snapshot\"\n  address = %q\n", socket))
	c.env = []string{"CONTAINERD_SNAPSHOTTER=stargz"}
	return &lazyStore{c, dir, moreProgram(t, "ctr-remote")}
}

// read mounts the image and reads one file of it.
func (s *lazyStore) read(ctx context.Context, name, file string) (string, error) {
	if _, err := run(ctx, nil, s.remote, "--address", s.socket, "images", "rpull", "--hosts-dir", s.hosts, "docker.io/"+name); err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, s.dir+"/") && strings.Contains(line, " stargz ") {
			b, err := os.ReadFile(filepath.Join(at, file))
			return string(b), err
		}
	}
	return "", fmt.Errorf("nothing of stargz is mounted below %q:\n%s", s.dir, mounts)
}

const (
	lazyName = "library/lazy"
	// lazyFile lies between the seventh and the eighth of nine large files.
	lazyFile = "noise/6.late"
	lazyText = "this was not waited for\n"
)

// lazyHub has an image of one layer in the format eStargz, which is large and does not compress. A connection to its
// CDN brings 10 MB a second.
func lazyHub(t testing.TB) (hub *hubtest.Hub, img image, digest string, size int64) {
	t.Helper()
	busybox, err := os.ReadFile(debianProgram("busybox"))
	if err != nil {
		t.Fatal(err)
	}
	content := files{"bin/busybox": busybox, "etc/passwd": []byte("root:x:0:0:root:/root:/bin/sh\n"), "etc/group": []byte("root:x:0:\n"), lazyFile: []byte(lazyText)}
	for i := range byte(9) {
		content[fmt.Sprintf("noise/%d", i)] = noise(i, 16<<20)
	}
	l, err := newLayer("lazy", gzipped, content)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = lazily(t, l); err != nil {
		t.Fatal(err)
	}
	if img, err = platformImage(oci, v1.Platform{OS: "linux", Architecture: "amd64"}, "lazy", []layer{l}); err != nil {
		t.Fatal(err)
	}
	hub = hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited(), CDNBytesPerSecond: 10_000_000})
	for _, b := range img.blobs {
		hub.PutBlob(lazyName, b.bytes)
	}
	hub.PutManifest(lazyName, catalogueTag, string(img.mediaType), img.bytes)
	return hub, img, l.digest.String(), int64(len(l.bytes))
}

// lazily converts a layer.
func lazily(t testing.TB, l layer) (layer, error) {
	dir := t.TempDir()
	from, to := writeFile(t, dir, "layer", string(l.bytes)), filepath.Join(dir, "lazy")
	said, err := run(t.Context(), nil, moreProgram(t, "stargz"), "convert", from, to)
	if err != nil {
		return l, err
	}
	b, err := os.ReadFile(to)
	if err != nil {
		return l, err
	}
	diffID, contents, _ := strings.Cut(strings.TrimSpace(said), " ")
	l.blob, l.notes = newBlob(b), map[string]string{"containerd.io/snapshot/stargz/toc.digest": contents}
	l.diffID, err = v1.NewHash(diffID)
	return l, err
}

// A file of an image is there long before its layer is: at the client and at the mirror. In the end the mirror has
// the layer, for which the hub has sent it once.
func TestStargzReadsThroughAColdMirror(t *testing.T) {
	hub, img, layer, size := lazyHub(t)
	front := openFront(t, nil)
	m := startMirror(t, mirrorOptions{endpoint: hub.RegistryURL()})
	s := openLazy(t, m.addr, "")
	text, err := s.read(t.Context(), lazyName+":"+catalogueTag, lazyFile)
	sent := hub.BlobBytes(layer)
	if err != nil || text != lazyText {
		t.Fatalf("the file has %q, %v", text, err)
	}
	t.Logf("the hub had sent %.1f MB of %.1f when the file was read", float64(sent)/1e6, float64(size)/1e6)
	if sent > size/2 {
		t.Errorf("the hub had sent %d bytes of %d when a file of %d was read", sent, size, len(text))
	}
	// All of it, by a container that compares sums.
	if said, err := s.run(t.Context(), lazyName+":"+catalogueTag); err != nil || said != img.says {
		t.Errorf("it says %q, %v, want %q", said, err, img.says)
	}
	hub.WaitFor(t, pullWithin, "the layer to be at the mirror", func() bool { return hub.BlobBytes(layer) >= size })
	hub.Settle(t)
	sent = hub.BlobBytes(layer)
	if sent > size+size/50 {
		t.Errorf("the hub sent %d bytes of a layer of %d", sent, size)
	}
	wantBlob(t, m, layer)
	hub.Settle(t)
	if n := hub.BlobBytes(layer); n != sent {
		t.Errorf("the hub sent %d bytes of what the mirror had", n-sent)
	}
	hub.AssertClean(t)
	front.assertUnused(t)
	m.assertStoreClean(t)
}

// wantBlob gets a blob from the mirror, whole.
func wantBlob(t testing.TB, m *mirror, digest string) {
	t.Helper()
	res, err := http.Get("http://" + m.addr + "/v2/" + lazyName + "/blobs/" + digest)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, res.Body); err != nil || fmt.Sprintf("sha256:%x", sum.Sum(nil)) != digest {
		t.Errorf("%s has the sum %x, %v", digest, sum.Sum(nil), err)
	}
}

// With on_range: only nothing is fetched but what the snapshotter asks for.
func TestStargzFetchesOnlyWhatIsRead(t *testing.T) {
	hub, img, layer, size := lazyHub(t)
	front := openFront(t, nil)
	m := startMirror(t, mirrorOptions{endpoint: hub.RegistryURL(), more: "on_range: only\n"})
	tap := openTap(t, m)
	s := openLazy(t, tap.addr, "no_background_fetch = true\nnoprefetch = true\n")
	text, err := s.read(t.Context(), lazyName+":"+catalogueTag, lazyFile)
	if err != nil || text != lazyText {
		t.Fatalf("the file has %q, %v", text, err)
	}
	asked := map[int64]bool{} // bytes
	for _, e := range tap.take() {
		if !strings.Contains(e.path, layer) || e.method != http.MethodGet {
			continue
		}
		spec := e.request.Get("Range")
		t.Logf("%s → %d", spec, e.status)
		ranges, bounded := strings.CutPrefix(spec, "bytes=")
		for part := range strings.SplitSeq(ranges, ",") {
			var first, last int64
			if n, err := fmt.Sscanf(part, "%d-%d", &first, &last); n != 2 || err != nil || !bounded {
				t.Fatalf("the snapshotter asked for %q", spec)
			}
			for ; first <= min(last, size-1); first++ {
				asked[first] = true
			}
		}
	}
	// Its last reader has gone then, and the mirror waits for none any more.
	if err := eventually(startWithin, func() error { return idle(m) }); err != nil {
		t.Fatal(err)
	}
	hub.Settle(t)
	sent := hub.BlobBytes(layer)
	t.Logf("the snapshotter asked for %d bytes, the hub sent %d, of %d", len(asked), sent, size)
	if sent > int64(len(asked)) {
		t.Errorf("the hub sent %d bytes, the snapshotter asked for %d:\n%s", sent, len(asked), hub.Ledger())
	}
	if said, err := s.run(t.Context(), lazyName+":"+catalogueTag); err != nil || said != img.says {
		t.Errorf("it says %q, %v, want %q", said, err, img.says)
	}
	hub.Settle(t)
	if sent := hub.BlobBytes(layer); sent > size+size/50 {
		t.Errorf("the hub sent %d bytes of a layer of %d", sent, size)
	}
	hub.AssertClean(t)
	front.assertUnused(t)
}

// idle says whether the mirror fetches nothing.
func idle(m *mirror) error {
	text, err := metricsOf(m)
	if err == nil && !strings.Contains(text, "\nforebay_fills_in_progress 0\n") {
		err = fmt.Errorf("something is being fetched")
	}
	return err
}

// How long it takes until a file is readable, for docs/benchmarks.md.
func TestStargzIsMeasured(t *testing.T) {
	hub, _, layer, _ := lazyHub(t)
	warm := startMirror(t, mirrorOptions{endpoint: hub.RegistryURL()})
	times := map[string][]time.Duration{}
	for range 5 {
		cold := startMirror(t, mirrorOptions{endpoint: hub.RegistryURL()})
		for _, from := range []struct{ what, addr string }{{"direct", hub.RegistryHost()}, {"cold", cold.addr}, {"warm", warm.addr}} {
			if from.what == "warm" {
				cold.stop(t)
				wantBlob(t, warm, layer)
			}
			s := openLazy(t, from.addr, "no_background_fetch = true\n")
			began := time.Now()
			text, err := s.read(t.Context(), lazyName+":"+catalogueTag, lazyFile)
			times[from.what] = append(times[from.what], time.Since(began))
			if err != nil || text != lazyText {
				t.Fatalf("%s: the file has %q, %v", from.what, text, err)
			}
		}
	}
	for what, took := range maps.All(times) {
		slices.Sort(took)
		t.Logf("%s: %s (%s–%s)", what, took[2].Round(time.Millisecond), took[0].Round(time.Millisecond), took[4].Round(time.Millisecond))
	}
}
