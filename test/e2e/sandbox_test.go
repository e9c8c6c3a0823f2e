package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The sandbox is three processes of this one test binary:
//
//	outside  builds, makes the work folder, waits, removes the work folder
//	init     process 1 of new namespaces; sets them up and reaps orphans
//	inside   runs the tests
//
// When init ends, the kernel kills every daemon, shim and container that is
// still there and undoes every mount. That holds for a crash and a timeout too.
const (
	stageEnv  = "E2E_STAGE" // "" outside, else one of these
	stageInit = "init"
	stageRun  = "run"

	workEnv = "E2E_WORK" // the work folder
)

// hubHosts are the names of Docker Hub that a client or a mirror dials, each with
// the address of the loopback device to which it leads inside the sandbox (front_test.go). They
// are not of 127.0.0.0/8, where the mirror would not believe that Docker Hub is.
var hubHosts = []struct{ addr, name string }{
	{"203.0.113.71", "registry-1.docker.io"},
	{"203.0.113.72", "auth.docker.io"},
	{"203.0.113.73", "production.cloudflare.docker.com"},
	{"203.0.113.74", "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com"},
	{"203.0.113.75", "production.cloudfront.docker.com"},
	{"203.0.113.76", "index.docker.io"},
	{"203.0.113.77", "docker.io"},
	{"203.0.113.78", "hub.docker.com"},
}

// inSandbox never returns in init, whose work it does.
func inSandbox() bool {
	switch os.Getenv(stageEnv) {
	case stageInit:
		status, err := runInit()
		if err != nil {
			fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
			status = 1
		}
		os.Exit(status)
	case stageRun:
		return true
	}
	return false
}

// workDir is the folder of this run, which ends with the sandbox.
func workDir() string { return os.Getenv(workEnv) }

// enterSandbox runs the tests inside and returns their exit status.
func enterSandbox() (int, error) {
	work, err := os.MkdirTemp("", "forebay-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work) // nothing is mounted in it out here

	// The death signal follows the thread that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", insideArgs(os.Args[1:])...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInit, workEnv+"="+work, "TMPDIR="+work, "PATH="+debianPath)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("make namespaces (needs CAP_SYS_ADMIN): %w", err)
	}
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return 0, err
	}
	return exitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// insideArgs leaves out what go test asks of the outer process alone: its log of
// opened files would be overwritten.
func insideArgs(args []string) []string {
	var kept []string
	for _, a := range args {
		if !strings.HasPrefix(strings.TrimLeft(a, "-"), "test.testlogfile") {
			kept = append(kept, a)
		}
	}
	return kept
}

// runInit sets the namespaces up, starts the tests and reaps until they end.
func runInit() (int, error) {
	if err := setUp(workDir()); err != nil {
		return 0, err
	}
	os.Setenv(stageEnv, stageRun) // appended to the environment, the first one would win
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 0, fmt.Errorf("start tests: %w", err)
	}
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil && err != syscall.EINTR {
			return 0, fmt.Errorf("wait for tests: %w", err)
		}
		if got == pid {
			return exitStatus(status), nil
		}
	}
}

// exitStatus is that of a shell: 128 and the signal for a killed process.
func exitStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// setUp makes the mounts private, brings loopback up and leads the names of
// Docker Hub to loopback. Any other name fails at once: nobody answers there.
func setUp(work string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// They have the sockets and locks of the machine's own daemons.
	for dir, mode := range map[string]string{"/run": "mode=755", "/dev/shm": "mode=1777"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	hosts := "127.0.0.1 localhost\n"
	for _, h := range hubHosts {
		hosts += h.addr + " " + h.name + "\n"
	}
	if err := coverFile(work, "/etc/hosts", hosts); err != nil {
		return err
	}
	return coverFile(work, "/etc/resolv.conf", "nameserver 127.0.0.53\noptions attempts:1 timeout:1\n")
}

// coverFile mounts a file with text over path, following a link there. A link
// into the hidden /run needs no cover: without resolv.conf, loopback is asked.
func coverFile(work, path, text string) error {
	path, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	ours := filepath.Join(work, filepath.Base(path))
	if err := os.WriteFile(ours, []byte(text), 0o644); err != nil {
		return fmt.Errorf("cover %q: %w", path, err)
	}
	if err := unix.Mount(ours, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover %q: %w", path, err)
	}
	return nil
}

// loopbackUp does what "ip link set lo up" does, and gives it the network of hubHosts.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return err
	}
	// "ip addr add 203.0.113.1/24 dev lo": all addresses of a network on it are its own.
	for _, set := range []struct {
		request uint
		addr    []byte
	}{{unix.SIOCSIFADDR, []byte{203, 0, 113, 1}}, {unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}}} {
		alias, err := unix.NewIfreq("lo:1")
		if err != nil {
			return err
		}
		if err := alias.SetInet4Addr(set.addr); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, set.request, alias); err != nil {
			return err
		}
	}
	return nil
}
