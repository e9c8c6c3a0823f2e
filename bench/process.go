//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long things may take that measure nothing.
const (
	startWithin = 30 * time.Second
	stopWithin  = 60 * time.Second
	pollEvery   = 5 * time.Millisecond
)

// process is a program that a figure needs. Its owner calls stop.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with what it wrote on standard error
	over   func() bool   // the run was interrupted, which ends all processes
	exited chan struct{} // closed when it has ended
	err    error         // valid after exited
}

// command is a program that ends with ctx, gently: killed, nginx would leave its workers
// behind.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	// A group of its own: an interrupt from the keyboard is for us, who then stop it. And
	// it ends with us, however we end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd
}

// startProcess starts a [command], whose standard error goes to a file in dir.
func startProcess(ctx context.Context, name, dir string, cmd *exec.Cmd, on cpus) (*process, error) {
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := startOn(cmd, on); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log.Name(), over: func() bool { return ctx.Err() != nil }, exited: make(chan struct{})}
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// cpus is which processors a process may use.
type cpus int

const (
	anyCPU   cpus = iota
	firstCPU      // the server's, where server and load must not share one
	otherCPU      // all but the first
)

// startOn starts cmd so that it sees only some processors.
func startOn(cmd *exec.Cmd, on cpus) error {
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	if on == anyCPU || all.Count() < 2 {
		return cmd.Start()
	}
	first := 0
	for !all.IsSet(first) {
		first++
	}
	if on == firstCPU {
		some.Set(first)
	} else {
		some = all
		some.Clear(first)
	}
	// The child inherits from the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &some); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &all))
}

// ready waits until check returns nil.
func (p *process) ready(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended (%s): %s", p.name, p.cmd.ProcessState, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", p.name, err, p.lastWords())
		case <-tick.C:
		}
	}
}

// lastWords returns the end of what the process wrote on standard error.
func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// stop ends the process and waits until it has. That it failed is an error.
func (p *process) stop() error {
	select {
	case <-p.exited: // its number may be another's by now
		if p.over() {
			return nil
		}
		return fmt.Errorf("%s ended by itself (%s): %s", p.name, p.cmd.ProcessState, p.lastWords())
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return p.await()
}

// await waits until the process has ended, and ends it for good if that takes too long.
func (p *process) await() error {
	late := time.NewTimer(stopWithin)
	defer late.Stop()
	select {
	case <-p.exited:
	case <-late.C:
		_ = p.cmd.Process.Kill() // it is still ours: Wait has not returned
		<-p.exited
		return fmt.Errorf("stop %s: still there after %s", p.name, stopWithin)
	}
	if p.err != nil && !p.over() {
		return fmt.Errorf("stop %s: %w: %s", p.name, p.err, p.lastWords())
	}
	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// cpuTime returns the processor time that a process and its children have used: user and
// system, all threads, to the nanosecond. It is the process's clock of clock_getcpuclockid(3),
// whose number is made from the process's as glibc does.
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("processor time of %d: %w", pid, err)
	}
	total := time.Duration(ts.Nano())
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(children)) {
		var n int
		if _, err := fmt.Sscan(child, &n); err != nil {
			return 0, err
		}
		t, err := cpuTime(n)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// spent returns the processor time that p uses while work runs, in seconds.
func (p *process) spent(work func() error) (float64, error) {
	before, err := cpuTime(p.pid())
	if err != nil {
		return 0, err
	}
	if err := work(); err != nil {
		return 0, err
	}
	after, err := cpuTime(p.pid())
	return (after - before).Seconds(), err
}
