package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The file of three replicas, in compose: what clients pull through HAProxy the registry is asked for once, and a
// replica that dies is missed by nobody. Of Valkey and HAProxy, whose images are not to be had without a network,
// Debian's programs stand in.
func TestComposeOfReplicas(t *testing.T) {
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	const subnet, gateway = "172.31.250.0/24", "172.31.250.1"
	backend, err := url.Parse(startFullRegistry(t).url)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	listener, err := net.Listen("tcp", "0.0.0.0:0") // containers see it at their gateway, which is not there yet
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(backend)
	registry := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Method+" "+r.URL.Path]++
		mu.Unlock()
		proxy.ServeHTTP(w, r)
	})}
	var work sync.WaitGroup
	work.Go(func() { _ = registry.Serve(listener) }) // until it is closed
	t.Cleanup(func() {
		_ = registry.Close() // nobody asks any more
		work.Wait()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})

	const addr = "127.0.0.1:5000"
	d := startDocker(t, addr, nil)
	docker := func(args ...string) string {
		t.Helper()
		out, err := d.docker(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	docker("build", "--quiet", "--target=ready", "--tag=forebay", root)
	standIn(t, d, "docker.io/valkey/valkey:8.1-alpine", "/usr/bin/redis-server", "valkey-server")
	standIn(t, d, "docker.io/library/haproxy:3.2-alpine", "/usr/sbin/haproxy", "haproxy")

	dir := stateDir(t)
	for _, name := range []string{"compose.replicas.yaml", "haproxy.cfg"} {
		text, err := os.ReadFile(filepath.Join(root, "deploy", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, name, string(text))
	}
	writeFile(t, dir, "fleet-secret", strings.Repeat("0123", 8))
	writeFile(t, dir, "test.yaml", fmt.Sprintf(`services:
  forebay1: &registry {environment: {FOREBAY_UPSTREAMS_DOCKER_IO_ENDPOINTS: "http://%s"}}
  forebay2: *registry
  forebay3: *registry
networks: {default: {ipam: {config: [{subnet: %s, gateway: %s}]}}}
`, net.JoinHostPort(gateway, fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)), subnet, gateway))
	for _, name := range []string{"", "haproxy.cfg", "fleet-secret"} { // which users of images read
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	compose := func(args ...string) {
		t.Helper()
		args = append([]string{"--project-name=replicas", "--file=" + filepath.Join(dir, "compose.replicas.yaml"), "--file=" + filepath.Join(dir, "test.yaml")}, args...)
		if out, err := run(t.Context(), []string{"DOCKER_HOST=unix://" + d.socket, "DOCKER_CONFIG=" + d.config, "HOME=" + dir}, debianProgram("docker-compose"), args...); err != nil {
			t.Fatalf("docker-compose: %v\n%s", err, out)
		}
	}
	defer func() {
		if t.Failed() {
			for _, name := range strings.Fields(docker("ps", "--all", "--format={{.Names}}")) {
				t.Logf("%s:\n%s", name, docker("logs", "--tail=30", name))
			}
		}
		compose("down", "--volumes", "--timeout=5")
	}()
	compose("up", "--detach", "--no-build")
	if err := eventually(time.Minute, func() error {
		out, err := d.docker(t.Context(), "exec", "replicas_forebay1_1", "/forebay", "status")
		if err == nil && (strings.Count(out, " here ") != 3 || strings.Contains(out, "WARNING")) {
			err = errors.New(out)
		}
		return errors.Join(err, answersOK("http://"+addr+"/v2/"))
	}); err != nil {
		t.Fatalf("the replicas do not find each other: %v", err)
	}

	check := func(name string) {
		t.Helper()
		want := images[name]
		pull(t, d, name+":"+catalogueTag, want)
		for range 6 { // HAProxy has each asked in turn
			res, err := http.Get("http://" + addr + "/v2/" + name + "/manifests/" + want.digest.String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body) // the status tells
			if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
				t.Errorf("manifest of %s: %s", name, res.Status)
			}
			docker("image", "rm", name+":"+catalogueTag)
			pull(t, d, name+":"+catalogueTag, want)
		}
	}
	check(manyOCI)
	// Who waits longer than 50 ms for the engine, as on a loaded machine, asks the registry himself.
	alone := 0
	for row := range strings.Lines(docker("exec", "replicas_forebay1_1", "/forebay", "status")) {
		if cells := betweenCells.Split(row, -1); len(cells) > 8 && cells[1] == "here" && cells[8] != "0" {
			alone++
		}
	}
	mu.Lock()
	again := 0
	for what, n := range asked {
		if strings.HasPrefix(what, "GET") && strings.Contains(what, "sha256:") {
			again += n - 1
		}
	}
	// One more, where a mirror was not heard within a quarter of a second.
	if again > 1 && alone == 0 || again > 2*len(asked) {
		t.Errorf("the registry was asked %v: want each digest once", asked)
	}
	if len(asked) < 3 {
		t.Errorf("the registry was asked %v", asked)
	}
	mu.Unlock()
	docker("kill", "replicas_forebay2_1")
	check(plainOCI)
}

// betweenCells is what parts the cells of a table.
var betweenCells = regexp.MustCompile(`  +`)

// standIn makes an image of one of Debian's programs under the name by which that is started; HAProxy's starts it
// with its file.
func standIn(t *testing.T, d *dockerStore, image, program, name string) {
	t.Helper()
	dir := stateDir(t)
	needs, err := run(t.Context(), nil, debianProgram("ldd"), program)
	if err != nil {
		t.Fatal(err)
	}
	files := []string{program}
	for _, word := range strings.Fields(needs) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	if err := command(exec.Command("cp", append([]string{"--parents", "--dereference", "--target-directory=" + dir}, files...)...)); err != nil {
		t.Fatal(err)
	}
	if called := filepath.Join(dir, filepath.Dir(program), name); filepath.Base(program) != name {
		if err := os.Symlink(filepath.Base(program), called); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir, "Dockerfile", fmt.Sprintf("FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/usr/sbin\nUSER 99:99\nCMD [%q, \"-db\", \"-f\", \"/usr/local/etc/haproxy/haproxy.cfg\"]\n", name))
	if _, err := d.docker(t.Context(), "build", "--quiet", "--tag="+image, dir); err != nil {
		t.Fatal(err)
	}
}
