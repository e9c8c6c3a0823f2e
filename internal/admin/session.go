package admin

import (
	"net/http"
	"strings"
)

// Files in the storage folder: with the key that sessions are sealed by, so that they outlive a
// restart, and with those that were logged out.
const (
	SessionKey   = "session.key"
	SessionsOver = "sessions-over.json"
)

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
	key, err := a.guard.sessions.Begin(w, r, as.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, Session{v.who, key})
	return nil
}

func (a *API) logOut(w http.ResponseWriter, r *http.Request) error {
	_, _ = a.guard.who(r) // for the log: whoever it is may leave
	if err := a.guard.sessions.End(w, r); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
