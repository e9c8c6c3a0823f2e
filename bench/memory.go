//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// memory is what a process takes, in bytes.
type memory struct {
	peak int64 // VmHWM: the most that was resident since its start, mapped files included
	anon int64 // RssAnon: resident now, without files
}

// memoryOf reads /proc/PID/status.
func memoryOf(pid int) (m memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		field := map[string]*int64{"VmHWM": &m.peak, "RssAnon": &m.anon}[key]
		if field == nil {
			continue
		}
		if _, err := fmt.Sscanf(value, "%d kB", field); err != nil {
			return m, fmt.Errorf("memory of %d: %q: %w", pid, line, err)
		}
		*field *= kib
	}
	if m.peak == 0 || m.anon == 0 {
		return m, fmt.Errorf("memory of %d: the kernel does not say", pid)
	}
	return m, nil
}

// sampleEvery is how often memory is looked at for what has no high-water mark.
const sampleEvery = 10 * time.Millisecond

// most returns the most memory that p takes while work runs: VmHWM since the start of
// the process, RssAnon as sampled.
func (p *process) most(work func() error) (memory, error) {
	stop, sampled := make(chan struct{}), make(chan int64)
	go func() { // ends with stop
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		var most int64
		for {
			if m, err := memoryOf(p.pid()); err == nil {
				most = max(most, m.anon)
			}
			select {
			case <-tick.C:
			case <-stop:
				sampled <- most
				return
			}
		}
	}()
	err := work()
	close(stop)
	anon := <-sampled
	if err != nil {
		return memory{}, err
	}
	m, err := memoryOf(p.pid())
	m.anon = max(m.anon, anon)
	return m, err
}
