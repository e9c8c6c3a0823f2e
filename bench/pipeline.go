//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runPipeline runs "curl | tee file | sha256sum" on the hub's blob and returns how long it
// took and the processor time of the three programs, both in seconds.
func runPipeline(ctx context.Context, dir string, h *hub, d blob) (took, cpu float64, err error) {
	file := filepath.Join(dir, "pipeline")
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	curl := command(ctx, "curl", "--silent", "--show-error", "--fail", "--location", "--config", "-")
	// By standard input and not as an argument, which all users of the machine could read.
	curl.Stdin = strings.NewReader(fmt.Sprintf("url = %q\nheader = \"Authorization: Bearer %s\"\n", h.get(d).URL, h.token))
	tee := command(ctx, "tee", file)
	sum := command(ctx, "sha256sum")
	var result strings.Builder
	sum.Stdout = &result
	start := time.Now()
	if err := runPiped(curl, tee, sum); err != nil {
		return 0, 0, fmt.Errorf("curl | tee | sha256sum: %w", err)
	}
	took = time.Since(start).Seconds()
	for _, cmd := range []*exec.Cmd{curl, tee, sum} {
		cpu += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	if got, _, _ := strings.Cut(result.String(), " "); "sha256:"+got != d.Digest {
		return 0, 0, fmt.Errorf("curl | tee | sha256sum: got digest %s", got)
	}
	return took, cpu, nil
}

// runPiped runs commands, each reading what the one before it writes.
func runPiped(cmds ...*exec.Cmd) (err error) {
	var ends []*os.File // the children have their own
	for i := range len(cmds) - 1 {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		ends = append(ends, r, w)
		cmds[i].Stdout, cmds[i+1].Stdin = w, r
	}
	var started []*exec.Cmd
	for _, cmd := range cmds {
		cmd.Stderr = os.Stderr
		if err = cmd.Start(); err != nil {
			break
		}
		started = append(started, cmd)
	}
	for _, end := range ends {
		_ = end.Close()
	}
	errs := []error{err}
	for _, cmd := range started {
		errs = append(errs, cmd.Wait())
	}
	return errors.Join(errs...)
}
