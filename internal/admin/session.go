package admin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// SessionHeader is sent by the dashboard with the key of its session. The cookie alone opens nothing:
// browsers send it to every port of a host, and the key is only known to pages of this origin.
const SessionHeader = "Forebay-Session"

// SessionKey is the name, in the storage folder, of the file with the key that sessions are sealed
// by, so that they outlive a restart.
const SessionKey = "session.key"

const (
	sessionTime = 12 * time.Hour // a working day, after which one logs in again
	cookieMost  = 3800           // bytes: browsers keep cookies of 4096 (RFC 6265 section 6.1)
)

// sessions let a browser be somebody by a cookie. It holds what was shown at the login, sealed, which
// is looked at anew at each request: what is withdrawn ends a session at once.
type sessions struct {
	sealer cipher.AEAD
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

func newSessions(key string) *sessions {
	if key == "" {
		key = rand.Text()
	}
	sum := sha256.Sum256([]byte("sessions of the admin API " + key))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err) // only for another length of the key
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only for another size of the block
	}
	name := sha256.Sum256(sum[:])
	return &sessions{sealer: sealer, cookie: "forebay-session-" + hex.EncodeToString(name[:4]), ended: map[string]time.Time{}}
}

// begin sets the cookie of a new session of who has shown that, and returns its key.
func (s *sessions) begin(w http.ResponseWriter, r *http.Request, shown string) (key string, err error) {
	one := session{time.Now().Add(sessionTime).UTC(), rand.Text(), shown}
	text, err := json.Marshal(one)
	if err != nil {
		return "", err
	}
	value := base64.RawURLEncoding.EncodeToString(s.sealer.Seal(nil, nil, text, nil))
	if len(value) > cookieMost {
		return "", badRequest("the token is too long for a cookie: send it in a header, or use another")
	}
	s.set(w, r, value, int(sessionTime.Seconds()))
	return one.Key, nil
}

// end ends the session of r, if it has one.
func (s *sessions) end(w http.ResponseWriter, r *http.Request) {
	if one, ok := s.open(r); ok {
		s.mu.Lock()
		maps.DeleteFunc(s.ended, func(_ string, until time.Time) bool { return time.Now().After(until) })
		s.ended[one.Key] = one.Until
		s.mu.Unlock()
	}
	s.set(w, r, "", -1)
}

func (s *sessions) set(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: s.cookie, Value: value, Path: prefix + "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https", // a lie about it only harms who tells it
	})
}

// open returns the session of r, if it has one.
func (s *sessions) open(r *http.Request) (one session, ok bool) {
	key := r.Header.Get(SessionHeader)
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

// Login is what a person logs in by: a token, or a user and a password.
type Login struct {
	Token    string `json:"token,omitempty"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
}

// Session is who is logged in.
type Session struct {
	Operator
	// Key is told at the login: it is to be sent with the cookie, in the header Forebay-Session.
	Key string `json:"key,omitempty"`
}

func (a *API) session(w http.ResponseWriter, r *http.Request) error {
	o, err := a.guard.who(r)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, Session{Operator: o})
	return nil
}

func (a *API) logIn(w http.ResponseWriter, r *http.Request) error {
	var login Login
	if err := decode(r, &login); err != nil {
		return err
	}
	as := r.Clone(r.Context())
	if login.User != "" {
		as.SetBasicAuth(login.User, login.Password)
	} else {
		as.Header.Set("Authorization", "Bearer "+strings.TrimSpace(login.Token))
	}
	_, v := visiting(r)
	if v.who, v.err = a.guard.identify(as); v.err != nil {
		return v.err
	}
	switch {
	case v.who.Name == "":
		return errUnknown
	case v.who.Role == "":
		return lacks(v.who, Read)
	}
	key, err := a.guard.sessions.begin(w, r, as.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, Session{v.who, key})
	return nil
}

func (a *API) logOut(w http.ResponseWriter, r *http.Request) error {
	_, _ = a.guard.who(r) // for the log: whoever it is may leave
	a.guard.sessions.end(w, r)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
