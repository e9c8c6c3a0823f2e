//go:build linux

package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// testTime is when files of tests were changed.
var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestProcessorTimeGoesOn(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const work = 20 * time.Millisecond
	for start := before; ; {
		now, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now < start {
			t.Fatalf("processor time went back from %s to %s", start, now)
		}
		if now-before > work {
			break
		}
	}
	if _, err := cpuTime(1 << 30); err == nil {
		t.Error("cpuTime of no process: no error")
	}
}

func TestMemoryIsRead(t *testing.T) {
	m, err := memoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.anon < 100*kib || m.anon > m.peak {
		t.Errorf("memoryOf(self) = %+v: not the memory of a Go program", m)
	}
}

// The whole way, with the real program and nginx, as short as it gets.
func TestRunLeavesNothingBehind(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	var table, progress strings.Builder
	if err := run(t.Context(), []string{"-quick", "-rounds", "1", "-run", "^(blob|suffix)$"}, &table, &progress); err != nil {
		t.Fatalf("run: %v\n%s", err, &progress)
	}
	for _, want := range []string{"commit ", "machine ", "QUICK", "cached blob, 8 connections: throughput", "last 64 KiB of a cold blob"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table does not tell of %q:\n%s", want, &table)
		}
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s is left behind", e.Name())
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		// A thread that has ended has no children either.
		if b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children"); len(b) > 0 {
			t.Errorf("processes left behind: %s", b)
		}
	}
}
