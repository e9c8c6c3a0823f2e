package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"forebay/internal/admin"
	"forebay/internal/observe"
)

// linesMost bounds the lines of the log that are remembered, some 200 bytes each.
const linesMost = 1000

// lastLines remembers the latest lines of a log, which only somebody else may keep.
type lastLines struct {
	mu    sync.Mutex
	lines []string // guarded by mu; a ring once it is full
	next  int      // guarded by mu; which line is the oldest of a full ring
}

// Write takes one line.
func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := strings.TrimSuffix(string(p), "\n")
	if len(l.lines) < linesMost {
		l.lines = append(l.lines, line)
		return len(p), nil
	}
	l.lines[l.next] = line
	l.next = (l.next + 1) % linesMost
	return len(p), nil
}

// besides returns a log that goes to where it did, and here as JSON.
func (l *lastLines) besides(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewTee(core, zapcore.NewCore(zapcore.NewJSONEncoder(observe.LogShape()), zapcore.AddSync(l), core))
	}))
}

// all returns the lines, the oldest first.
func (l *lastLines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(append([]string{}, l.lines[l.next:]...), l.lines[:l.next]...)
}

// support gathers what "forebay support-bundle" asks for.
func support(m *mirror, b build, lines *lastLines) (admin.Support, error) {
	var settings, goroutines bytes.Buffer
	if err := m.front.Load().settings.Print(&settings); err != nil {
		return admin.Support{}, err
	}
	// With 1 the stacks of those that do the same are told once, without arguments.
	if err := pprof.Lookup("goroutine").WriteTo(&goroutines, 1); err != nil {
		return admin.Support{}, err
	}
	metrics := httptest.NewRecorder()
	m.metrics.Handler().ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return admin.Support{
		Version: b.String(), Config: settings.String(), Metrics: metrics.Body.String(), Goroutines: goroutines.String(), Log: lines.all(),
	}, nil
}
