//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a mirror, or a way without one.
type peer struct {
	name, version string
	// command returns how to start it at addr in front of a registry, with a folder of its own; nil
	// for none: clients ask the registry itself. fresh is how long it need not ask whether a tag
	// moved, where that can be set.
	command func(dir, addr, upstream string, fresh time.Duration) (*exec.Cmd, error)
}

func peers(programs string) ([]peer, error) {
	ours, v3, z := filepath.Join(programs, "forebay"), filepath.Join(programs, "registry"), filepath.Join(programs, "zot")
	all := []peer{
		{"forebay", firstLine(ours, "version"), func(dir, addr, upstream string, fresh time.Duration) (*exec.Cmd, error) {
			return withConfig(dir, fmt.Sprintf("listen: %s\nadmin_listen: off\nstorage: {dir: %q}\nlog: {access: false}\nupstreams: {docker.io: {endpoints: [%q], tag_ttl: %s}}\n", addr, dir, upstream, fresh), ours, "serve", "--config")
		}},
		{"distribution 3", firstLine(v3, "--version"), distribution(v3)},
		{"docker-registry 2.8", firstLine("docker-registry", "--version"), distribution("docker-registry")},
		{"zot 1.4", zotVersion(z), zot(z)},
		{"nginx", nginxVersion(), nginx},
		{"direct", "", nil},
	}
	for _, p := range all {
		if p.command != nil && p.version == "" {
			return nil, fmt.Errorf("%s is not there: make bench-peers builds or installs it", p.name)
		}
	}
	return all, nil
}

func firstLine(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	_, version, _ := strings.Cut(line, " ") // behind the program's name
	return version
}

func nginxVersion() string {
	out, err := exec.Command("/usr/sbin/nginx", "-v").CombinedOutput()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "nginx version: nginx/"))
}

func withConfig(dir, text, program string, args ...string) (*exec.Cmd, error) {
	file := filepath.Join(dir, "config.json") // zot goes by the name, YAML is a superset
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return exec.Command(program, append(args, file)...), nil
}

// distribution asks at each pull of a tag whether it moved.
func distribution(program string) func(dir, addr, upstream string, _ time.Duration) (*exec.Cmd, error) {
	return func(dir, addr, upstream string, _ time.Duration) (*exec.Cmd, error) {
		return withConfig(dir, fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q}
proxy: {remoteurl: %q}
`, filepath.Join(dir, "data"), addr, upstream), program, "serve")
	}
}

// zotVersion is that of tools/zot; the program itself does not know it. It is the only one
// of zot that comes as a Go module, and of 2022: docs/comparison.md says what later ones do.
func zotVersion(program string) string {
	if exec.Command(program, "--version").Run() != nil {
		return ""
	}
	return "1.4.3"
}

// zot copies an image with all its blobs when its manifest is asked for, and asks at each pull of
// a tag whether it moved.
func zot(program string) func(dir, addr, upstream string, _ time.Duration) (*exec.Cmd, error) {
	return func(dir, addr, upstream string, _ time.Duration) (*exec.Cmd, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return withConfig(dir, fmt.Sprintf(`{
	"storage": {"rootDirectory": %q, "gc": false},
	"http": {"address": %q, "port": %q},
	"log": {"level": "error"},
	"extensions": {"sync": {"enable": true, "registries": [
		{"urls": [%q], "onDemand": true, "tlsVerify": false, "content": [{"prefix": "**"}]}
	]}}
}
`, filepath.Join(dir, "data"), host, port, upstream), program, "serve")
	}
}

// nginx caches by slices, with a lock, as those do who use it as a mirror.
func nginx(dir, addr, upstream string, fresh time.Duration) (*exec.Cmd, error) {
	return withConfig(dir, fmt.Sprintf(`user root;
daemon off;
worker_processes auto;
pid %[1]s/pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
	sendfile on;
	tcp_nopush on;
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	proxy_cache_path %[1]s/cache levels=2 keys_zone=c:20m max_size=20g inactive=1d use_temp_path=off;
	server {
		listen %[2]s;
		proxy_cache c;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_cache_lock on;
		proxy_cache_lock_timeout 60s;
		proxy_cache_use_stale error timeout updating http_429 http_500 http_502 http_503 http_504;
		location ~ /blobs/ {
			slice 4m;
			proxy_set_header Range $slice_range;
			proxy_cache_key $uri$slice_range;
			proxy_cache_valid 200 206 1d;
			proxy_pass %[3]s;
		}
		proxy_cache_key $request_method$uri;
		proxy_cache_convert_head off;
		location ~ /manifests/sha256: {
			proxy_cache_valid 200 1d;
			proxy_pass %[3]s;
		}
		location / {
			proxy_cache_valid 200 %[4]ds;
			proxy_pass %[3]s;
		}
	}
}
`, dir, addr, upstream, int(fresh.Seconds())), "/usr/sbin/nginx", "-e", "stderr", "-p", dir, "-c")
}

// running is a peer that has started.
type running struct {
	url string
	cmd *exec.Cmd // nil for none
}

func (p peer) start(ctx context.Context, dir, upstream string, fresh time.Duration) (*running, error) {
	if p.command == nil {
		return &running{url: upstream}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd, err := p.command(dir, addr, upstream, fresh)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &running{"http://" + addr, cmd}
	c := &http.Client{Timeout: startWithin, Transport: &http.Transport{DisableKeepAlives: true}}
	for late := time.Now().Add(startWithin); ; {
		response, err := c.Get(r.url + "/v2/")
		if err == nil {
			_ = response.Body.Close()
			return r, nil
		}
		if time.Now().After(late) || ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			return nil, errors.Join(fmt.Errorf("does not answer: %w\n%s", err, text), r.stop())
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (r *running) stop() error {
	if r.cmd == nil {
		return nil
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	done := make(chan struct{})
	go func() {
		_ = r.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(startWithin):
		_ = r.cmd.Process.Kill()
		<-done
	}
	return nil
}

// family is the process and its children.
func (r *running) family() []int {
	if r.cmd == nil {
		return nil
	}
	all := []int{r.cmd.Process.Pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", all[0]))
	if err != nil {
		return all
	}
	for _, word := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(word); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// cpu is the processor time that it has used, in seconds: fields 14 and 15 of /proc/PID/stat, in
// hundredths (proc(5)).
func (r *running) cpu() (seconds float64) {
	for _, pid := range r.family() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:13] {
			n, _ := strconv.Atoi(field)
			seconds += float64(n) / 100
		}
	}
	return seconds
}

// forgetMemory begins anew to watch what memory returns (proc_pid_clear_refs(5)).
func (r *running) forgetMemory() error {
	var errs []error
	for _, pid := range r.family() {
		errs = append(errs, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0))
	}
	return errors.Join(errs...)
}

// memory is the most that it has had in memory, in MiB.
func (r *running) memory() (mib float64) {
	for _, pid := range r.family() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		if _, rest, ok := strings.Cut(string(text), "VmHWM:"); ok {
			var kib float64
			_, _ = fmt.Sscan(rest, &kib)
			mib += kib / 1024
		}
	}
	return mib
}
