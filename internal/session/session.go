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

	mu    sync.Mutex
	ended map[string]time.Time // keys of sessions that were logged out, until they end by themselves; guarded by mu
}

// session is what a cookie holds.
type session struct {
	Until time.Time
	Key   string
	Shown string // Authorization
}

// New returns sessions that are sealed by key, so that they outlive a restart; with an empty one they do
// not. The cookie is sent to what is below path.
func New(key, path string) *Sessions {
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
	return &Sessions{sealer: sealer, path: path, cookie: "forebay-session-" + hex.EncodeToString(name[:4]), ended: map[string]time.Time{}}
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

// End ends the session of r, if it has one.
func (s *Sessions) End(w http.ResponseWriter, r *http.Request) {
	if one, ok := s.open(r); ok {
		s.mu.Lock()
		maps.DeleteFunc(s.ended, func(_ string, until time.Time) bool { return time.Now().After(until) })
		s.ended[one.Key] = one.Until
		s.mu.Unlock()
	}
	s.set(w, r, "", -1)
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
	_, ended := s.ended[one.Key]
	return one, !ended
}
