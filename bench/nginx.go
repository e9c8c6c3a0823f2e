//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// nginx serves files of one folder as Debian's default configuration would: sendfile and
// tcp_nopush on, one worker a processor. It writes no access log.
type nginx struct {
	*process
	url string
	dir string // of its own
}

func startNginx(ctx context.Context, dir, root string) (*nginx, error) {
	program, err := findNginx()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	n := &nginx{url: "http://" + addr, dir: filepath.Join(dir, "nginx")}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the blobs are readable by their owner only
	}
	file := filepath.Join(n.dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, `%s
daemon off;
worker_processes auto;
pid %[2]s/pid;
error_log stderr;
events { worker_connections 768; }
http {
	sendfile on;
	tcp_nopush on;
	access_log off;
	default_type application/octet-stream;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server { listen %[3]s; root %[4]q; }
}
`, user, n.dir, addr, root), 0o600); err != nil {
		return nil, err
	}
	cmd := command(ctx, program, "-e", "stderr", "-p", n.dir, "-c", file)
	if n.process, err = startProcess(ctx, "nginx", dir, cmd, anyCPU); err != nil {
		return nil, err
	}
	if err := n.ready(ctx, func() error { return listens(addr) }); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

// findNginx finds the program where Debian puts it, which is in the path of root only.
func findNginx() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", errors.New("nginx is not installed: apt-get install nginx-light")
}

// listens says whether somebody takes connections at addr.
func listens(addr string) error {
	c, err := net.DialTimeout("tcp", addr, startWithin)
	if err != nil {
		return err
	}
	return c.Close()
}

func (n *nginx) stop() error { return errors.Join(n.process.stop(), os.RemoveAll(n.dir)) }
