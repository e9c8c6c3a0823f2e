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

// The program itself, as shipped: stopped by SIGTERM a moment after it pulled, its folder removed and
// its registry gone, it serves all of it again. With an account of its own for the registry it does not:
// those were the rights of another.
func TestProgramServesFromTheBucketAlone(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	w := &world{t: t, hub: hub, s3: s3test.New(t), c: client(t)}
	dir := t.TempDir()
	program, config, storage := filepath.Join(dir, "forebay"), filepath.Join(dir, "forebay.yaml"), filepath.Join(dir, "storage")
	if out, err := exec.Command("go", "build", "-o", program, "forebay/cmd/forebay").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	m := &mirrortest.Mirror{URL: "http://" + addr}
	write := func(account string) {
		text := fmt.Sprintf(`listen: %s
admin_listen: "off"
storage:
  dir: %q
  s3: {bucket: %s, endpoint: %q, path_style: true, region: %s, access_key_id: %s, secret_access_key: %s}
upstreams:
  docker.io: {endpoints: [%q]%s}
`, addr, storage, s3test.Bucket, w.s3.URL, s3test.Region, s3test.AccessKey, s3test.SecretKey, hub.RegistryURL(), account)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func() (stop func()) {
		cmd := exec.Command(program, "serve", "--config", config)
		out, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr, cmd.Env = out, out, []string{"HOME=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s3test.Await(t, time.Minute, "the program to answer", func() bool {
			res, err := w.c.Get(m.URL + "/v2/")
			if err == nil {
				_ = res.Body.Close()
			}
			return err == nil && res.StatusCode == http.StatusOK
		})
		return func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				b, _ := os.ReadFile(out.Name())
				t.Errorf("the program ends with %v\n%s", err, b)
			}
		}
	}
	write("")
	stop := start()
	img := hub.PushImage("library/app", "v1", hubtest.ImageSpec{Layers: 2})
	w.whole(m, img)
	s3test.Await(t, time.Minute, "uploads to end", func() bool { return len(w.s3.Objects()) == len(img.Manifests())+len(img.Blobs()) })
	stop()
	hub.SwitchOff()
	for _, tc := range []struct {
		account string
		want    func(*mirrortest.Mirror, *hubtest.Image)
	}{{"", w.whole}, {", username: somebody, password: hunter2", w.nothing}, {"", w.whole}} {
		if err := os.RemoveAll(storage); err != nil {
			t.Fatal(err)
		}
		write(tc.account)
		stop := start()
		tc.want(m, img)
		stop()
	}
}
