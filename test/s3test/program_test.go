package s3test_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/test/s3test"
)

// shipped is the program itself, with a folder and a configuration.
type shipped struct {
	w                               *world
	m                               *mirrortest.Mirror // as which it is asked
	dir, program, config, storage   string
	addr, admin, account, mirrorCfg string // more of the upstream, and of storage
	bucket                          bool
}

// newShipped builds it in front of a hub of its own; with a bucket it has one.
func newShipped(t *testing.T, bucket bool) *shipped {
	t.Helper()
	p := &shipped{w: &world{t: t, hub: hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()}), c: client(t)}, dir: t.TempDir(), bucket: bucket}
	if bucket {
		p.w.s3 = s3test.New(t)
	}
	p.program, p.config, p.storage = filepath.Join(p.dir, "forebay"), filepath.Join(p.dir, "forebay.yaml"), filepath.Join(p.dir, "storage")
	if out, err := exec.Command("go", "build", "-o", p.program, "forebay/cmd/forebay").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, addr := range []*string{&p.addr, &p.admin} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*addr = l.Addr().String()
		_ = l.Close()
	}
	p.m = &mirrortest.Mirror{URL: "http://" + p.addr}
	return p
}

// start runs it until stop, which has it end by itself.
func (p *shipped) start() (stop func()) {
	t := p.w.t
	t.Helper()
	if p.bucket {
		p.mirrorCfg = fmt.Sprintf("  s3: {bucket: %s, endpoint: %q, path_style: true, region: %s, access_key_id: %s, secret_access_key: %s}\n",
			s3test.Bucket, p.w.s3.URL, s3test.Region, s3test.AccessKey, s3test.SecretKey)
	}
	text := fmt.Sprintf("listen: %s\nadmin_listen: %s\nstorage:\n  dir: %q\n  max_size: 64MiB\n  min_free: 1MiB\n%supstreams:\n  docker.io: {endpoints: [%q]%s}\n",
		p.addr, p.admin, p.storage, p.mirrorCfg, p.w.hub.RegistryURL(), p.account)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(p.program, "serve", "--config", p.config)
	out, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, []string{"HOME=" + p.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s3test.Await(t, time.Minute, "the program to answer", func() bool {
		res, err := p.w.c.Get(p.m.URL + "/v2/")
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	})
	return func() {
		t.Helper()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			b, _ := os.ReadFile(out.Name())
			t.Errorf("the program ends with %v\n%s", err, b)
		}
	}
}

// run runs one of its commands, and returns what that prints.
func (p *shipped) run(args ...string) string {
	p.w.t.Helper()
	cmd := exec.Command(p.program, append(args, "--config", p.config)...)
	cmd.Env = []string{"HOME=" + p.dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.w.t.Fatalf("forebay %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// lose removes its folder.
func (p *shipped) lose() {
	p.w.t.Helper()
	if err := os.RemoveAll(p.storage); err != nil {
		p.w.t.Fatal(err)
	}
}

// The program itself, as shipped: stopped by SIGTERM a moment after it pulled, its folder removed and
// its registry gone, it serves all of it again. With an account of its own for the registry it does not:
// those were the rights of another.
func TestProgramServesFromTheBucketAlone(t *testing.T) {
	p := newShipped(t, true)
	w := p.w
	stop := p.start()
	img := w.hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
	w.whole(p.m, img)
	s3test.Await(t, time.Minute, "uploads to end", func() bool { return len(w.s3.Objects()) == len(img.Manifests())+len(img.Blobs()) })
	stop()
	w.hub.SwitchOff()
	for _, tc := range []struct {
		account string
		want    func(*mirrortest.Mirror, *hubtest.Image)
	}{{"", w.whole}, {", username: somebody, password: hunter2", w.nothing}, {"", w.whole}} {
		p.lose()
		p.account = tc.account
		stop := p.start()
		tc.want(p.m, img)
		stop()
	}
}
