// Package session lets a browser be somebody by a cookie.
//
// It promises that the cookie holds nothing readable and opens nothing by itself: browsers send it to
// every port of a host, so that it counts only with a key which the page of one origin keeps. It holds
// what was shown at the login, which is to be looked at anew at each request, so that what is
// withdrawn ends a session at once.
package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"sync"
	"time"

	"forebay/internal/statefile"
)

// Header is sent by the page with the key of its session.
const Header = "Forebay-Session"

// Lifetime is a working day, after which one logs in again.
const Lifetime = 12 * time.Hour

// cookieMost is in bytes: browsers keep cookies of 4096 (RFC 6265 section 6.1).
const cookieMost = 3800

// ErrTooLong is of what does not fit into a cookie.
var ErrTooLong = errors.New("the token is too long for a cookie: send it in a header, or use another")

// Sessions are those of one server. Its methods may be called concurrently.
type Sessions struct {
	sealer cipher.AEAD
	path   string // the cookie is sent below it
	cookie string // name of it; cookies are shared by all ports of a host, so each mirror has its own

	file string // in which the logouts are kept; "" keeps none

	mu      sync.Mutex
	logouts logouts // guarded by mu
}

// logouts are the sessions that were ended before their time.
type logouts struct {
	// Ended are sums of their keys, with when they would have ended by themselves.
	Ended map[string]time.Time
	// Before is when sessions must have begun to count: those before it may have been ended.
	Before time.Time
}

// Bounds of what is kept of logouts: beyond it everybody logs in again.
const (
	endedMost = 4096
	fileMost  = 1 << 20
)

// session is what a cookie holds.
type session struct {
	Until time.Time
	Key   string
	Shown string // Authorization
}

// New returns sessions that are sealed by key, so that they outlive a restart; with an empty one they do
// not. The cookie is sent to what is below path. Which were logged out is kept in file; if that
// cannot be read, none counts that began before.
func New(key, path, file string) *Sessions {
	if key == "" {
		key = rand.Text()
	}
	sum := sha256.Sum256([]byte("forebay sessions " + key))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err) // only for another length of the key
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only for another size of the block
	}
	name := sha256.Sum256(sum[:])
	s := &Sessions{sealer: sealer, path: path, cookie: "forebay-session-" + hex.EncodeToString(name[:4]), file: file}
	if file != "" && statefile.Read(file, fileMost, &s.logouts) != nil {
		s.logouts = logouts{Before: time.Now()}
	}
	if s.logouts.Ended == nil {
		s.logouts.Ended = map[string]time.Time{}
	}
	return s
}

// Begin sets the cookie of a new session of who has shown that, and returns its key.
func (s *Sessions) Begin(w http.ResponseWriter, r *http.Request, shown string) (key string, err error) {
	one := session{time.Now().Add(Lifetime).UTC(), rand.Text(), shown}
	text, err := json.Marshal(one)
	if err != nil {
		return "", err
	}
	value := base64.RawURLEncoding.EncodeToString(s.sealer.Seal(nil, nil, text, nil))
	if len(value) > cookieMost {
		return "", ErrTooLong
	}
	s.set(w, r, value, int(Lifetime.Seconds()))
	return one.Key, nil
}

// End ends the session of r, if it has one. After an error it may count again after a restart.
func (s *Sessions) End(w http.ResponseWriter, r *http.Request) error {
	s.set(w, r, "", -1)
	one, ok := s.open(r)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.logouts.Ended, func(_ string, until time.Time) bool { return time.Now().After(until) })
	s.logouts.Ended[sumOf(one.Key)] = one.Until
	if len(s.logouts.Ended) > endedMost {
		s.logouts = logouts{map[string]time.Time{}, time.Now()}
	}
	if s.file == "" {
		return nil
	}
	return statefile.Write(s.file, s.logouts)
}

func sumOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func (s *Sessions) set(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: s.cookie, Value: value, Path: s.path, MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https", // a lie about it only harms who tells it
	})
}

// Shown returns what was shown when the session of r began, if it has one.
func (s *Sessions) Shown(r *http.Request) (string, bool) {
	one, ok := s.open(r)
	return one.Shown, ok
}

// open returns the session of r, if it has one.
func (s *Sessions) open(r *http.Request) (one session, ok bool) {
	key := r.Header.Get(Header)
	cookie, err := r.Cookie(s.cookie)
	if key == "" || err != nil {
		return one, false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return one, false
	}
	text, err := s.sealer.Open(nil, nil, sealed, nil)
	if err != nil || json.Unmarshal(text, &one) != nil || subtle.ConstantTimeCompare([]byte(one.Key), []byte(key)) != 1 || time.Now().After(one.Until) {
		return one, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ended := s.logouts.Ended[sumOf(one.Key)]
	return one, !ended && !one.Until.Add(-Lifetime).Before(s.logouts.Before)
}
