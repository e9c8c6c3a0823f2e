package page

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline ends a browser that hangs; it measures nothing.
const deadline = 20 * time.Minute

// TestPage runs tools/page/run.mjs. With PAGE_SCREENSHOTS set to a folder, screenshots
// of every view are left there.
func TestPage(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, root)
	if steps := w.browse(t, root); steps < 10 {
		t.Errorf("the browser took %d steps, want all of them", steps)
	}
	w.check(t)
}

// browse has the browser take its steps, and returns how many there were.
func (w *world) browse(t *testing.T, root string) int {
	t.Helper()
	node, chromium := programs(t, root)
	control := httptest.NewServer(w.control())
	defer control.Close()

	settings, err := json.Marshal(map[string]string{
		"data": w.data.admin, "empty": w.empty.admin, "guarded": w.guarded.admin, "fleet": w.fleet.admin, "fleetToken": w.fleet.token, "token": adminToken,
		"emptyRegistry": w.empty.registry, "dataToken": w.data.token, "emptyToken": w.empty.token,
		"control": control.URL, "chromium": chromium, "screenshots": os.Getenv("PAGE_SCREENSHOTS"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, filepath.Join(root, "tools", "page", "run.mjs"))
	cmd.Env = append(os.Environ(), "PAGE_WORLD="+string(settings))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it closes the browser
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", node, err)
	}
	steps := report(t, bufio.NewScanner(out))
	if err := cmd.Wait(); err != nil && steps == 0 {
		t.Errorf("%s: %v", cmd, err)
	}
	return steps
}

// report turns the lines of the script into subtests, and returns how many there were:
// "ok NAME", "not ok NAME: WHY" (whose further lines are indented), or "# TEXT".
func report(t *testing.T, lines *bufio.Scanner) (steps int) {
	lines.Buffer(nil, 1<<20)
	var failed []string
	flush := func() {
		if len(failed) > 0 {
			t.Error(strings.Join(failed, "\n"))
		}
		failed = nil
	}
	defer flush()
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "ok "):
			flush()
			steps++
			t.Log(line)
		case strings.HasPrefix(line, "not ok "):
			flush()
			steps++
			failed = []string{line}
		case len(failed) > 0 && strings.HasPrefix(line, " "):
			failed = append(failed, line)
		default:
			t.Log(line)
		}
	}
	return steps
}

// programs finds what the test needs, or says how to get it.
func programs(t *testing.T, root string) (node, chromium string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("there is no node: run make deps, or install Debian's nodejs and npm")
	}
	if chromium, err = exec.LookPath("chromium"); err != nil {
		t.Fatal("there is no chromium: run make deps, or install Debian's chromium")
	}
	if _, err := os.Stat(filepath.Join(root, "tools", "page", "node_modules", "playwright-core")); err != nil {
		t.Fatal("there is no playwright-core in tools/page: run make page-deps")
	}
	return node, chromium
}

// control lets the script change the world: POST /NAME.
func (w *world) control() http.Handler {
	mux := http.NewServeMux()
	for name, act := range map[string]func() error{
		"slow":   w.slow,
		"slowly": w.slowly, "slowlyOver": w.slowlyOver,
		"fast":       w.fast,
		"move":       w.move,
		"fail":       w.fail,
		"mend":       w.mend,
		"stop":       w.data.stop,
		"start":      w.data.start,
		"traffic":    w.traffic,
		"killSecond": w.second.kill,
		"missing":    func() error { return w.missing("15") },
		"firstPull": func() error {
			c, done := clientAt("10")
			defer done()
			return get(c, w.empty.registry+"/v2/library/alpine/manifests/3.20?ns=docker.io", "containerd/v2.0.0")
		},
		// A client that has the layers already, as after another image.
		"part": func() error {
			return w.pullFrom("docker.io", "15", hostileAgent, w.images["library/cassandra:5.0"], false)
		},
		"moreData": func() error { return w.pull("10", "containerd/v2.0.0", w.images["library/nginx:1.27"]) },
	} {
		mux.HandleFunc("POST /"+name, func(rw http.ResponseWriter, _ *http.Request) {
			if err := act(); err != nil {
				http.Error(rw, fmt.Sprintf("%s: %v", name, err), http.StatusInternalServerError)
			}
		})
	}
	return mux
}

// eventually calls try until it returns nil, or fails with its last error.
func eventually(within time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
