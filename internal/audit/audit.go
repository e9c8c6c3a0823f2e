// Package audit writes down who pulled what and who changed what.
//
// It promises one line of JSON per pull, refusal and action of an operator, in the order in which
// they end, in a file that is only appended to, or on a stream. What cannot be written is told to
// the log, and never keeps a client from what it asked for.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"forebay/internal/logkey"
	"forebay/internal/wire"
	"forebay/proxy"
)

const (
	fileMode  = 0o600
	lookEvery = time.Second // bounds how late it is seen that the file was moved away
	textMost  = 512         // bytes of what a client makes up
)

// Log is an audit log. Its methods may be called concurrently; Close ends it.
type Log struct {
	log  *zap.Logger
	told rate.Sometimes // bounds what is logged

	mu   sync.Mutex
	to   io.Writer // guarded by mu
	name string    // of the file; "" for a stream
	file *os.File  // guarded by mu; nil for a stream
	next time.Time // guarded by mu; the file is not looked at before
}

// Line is one of the log. What is empty is left out.
type Line struct {
	Time       time.Time `json:"time"`
	Event      Event     `json:"event"`
	Who        string    `json:"who,omitempty"` // as rules name identities; absent for nobody
	Groups     []string  `json:"groups,omitempty"`
	Addr       string    `json:"addr"`
	Upstream   string    `json:"upstream,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Reference  string    `json:"reference,omitempty"` // tag or digest as it was asked for
	Digest     string    `json:"digest,omitempty"`    // that was answered with
	Rule       string    `json:"rule,omitempty"`      // that allowed or denied it
	Result     string    `json:"result,omitempty"`
	Method     string    `json:"method,omitempty"` // of what an operator did
	Path       string    `json:"path,omitempty"`   // of what an operator did
	Status     int       `json:"status"`
	Agent      string    `json:"agent,omitempty"`
}

// Event is what a line is about.
type Event string

// The events.
const (
	Pull    Event = "pull"    // a manifest went out
	Refusal Event = "refusal" // something was refused to a client or an operator, or it could not prove who it is
	Action  Event = "action"  // an operator changed something
)

// ToFile returns a log that appends to a file. When the file is moved away, as logrotate does, a new
// one is begun.
func ToFile(name string, log *zap.Logger) (*Log, error) {
	l := &Log{log: log, told: rate.Sometimes{Interval: time.Minute}, name: name}
	return l, l.open()
}

// ToStream returns a log that writes to w, which its owner closes.
func ToStream(w io.Writer, log *zap.Logger) *Log {
	return &Log{log: log, told: rate.Sometimes{Interval: time.Minute}, to: w}
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, fileMode)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	l.to, l.file = f, f
	return nil
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Observe writes down a request of a client, if it was a pull or was refused.
func (l *Log) Observe(r *proxy.Request) {
	var refused *proxy.Refusal
	line := Line{
		Who: clip(r.User), Groups: r.Groups, Addr: r.Client, Upstream: r.Upstream, Repository: clip(r.Repository), Reference: clip(r.Reference),
		Rule: r.Rule, Result: string(r.Result), Status: r.Status, Agent: clip(r.UserAgent),
	}
	switch {
	case errors.As(r.Err, &refused) && (refused.Code == "" || refused.Status == http.StatusUnauthorized || refused.Status == http.StatusTooManyRequests):
		line.Event, line.Result = Refusal, ""
	case r.Kind == proxy.KindManifest && r.Method == http.MethodGet && r.Result != proxy.Failed && r.Status < 400:
		line.Event = Pull
		if r.Digest != (v1.Hash{}) {
			line.Digest = r.Digest.String()
		}
	default:
		return
	}
	l.write(line)
}

// Action writes down that an operator, who is "" for nobody, changed something by the admin API or was
// refused it.
func (l *Log) Action(r *http.Request, who string, status int) {
	addr, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		addr = r.RemoteAddr // of a Unix socket
	}
	event := Action
	if status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests {
		event = Refusal
	}
	l.write(Line{Event: event, Who: clip(who), Addr: addr, Method: r.Method, Path: clip(r.URL.Path), Status: status, Agent: clip(r.UserAgent())})
}

func (l *Log) write(line Line) {
	line.Time = time.Now().UTC()
	text, err := json.Marshal(line)
	if err != nil {
		panic("audit: " + err.Error()) // of texts and numbers
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.follow(line.Time); err != nil {
		l.fail(err)
	}
	if _, err := l.to.Write(append(text, '\n')); err != nil {
		l.fail(err)
	}
}

// follow begins a new file if the one that is written to has been moved away. l.mu is held.
func (l *Log) follow(now time.Time) error {
	if l.file == nil || now.Before(l.next) {
		return nil
	}
	l.next = now.Add(lookEvery)
	there, err := os.Stat(l.name)
	if err == nil {
		var open os.FileInfo
		if open, err = l.file.Stat(); err == nil && os.SameFile(there, open) {
			return nil
		}
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	return old.Close()
}

func (l *Log) fail(err error) {
	l.told.Do(func() { l.log.Error("the audit log cannot be written: what happens now is not in it", logkey.Err(err)) })
}

// clip bounds what a client can make us write.
func clip(s string) string { return wire.Clip(s, textMost) }
