package notify

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"forebay/cache/event"
	"forebay/internal/wire"
)

// Message is what a target is told, and what its template is given. Its texts come from registries in
// part: a template that makes JSON writes them by the function json.
type Message struct {
	ID         string     `json:"id"`     // the same when it is sent again
	Mirror     string     `json:"mirror"` // who tells it
	Kind       event.Kind `json:"kind"`
	At         time.Time  `json:"at"`
	Text       string     `json:"text"`            // the whole in one line, for people
	Image      string     `json:"image,omitempty"` // "docker.io/library/nginx:1.27.3"; without the tag where the whole repository is concerned
	Upstream   string     `json:"upstream,omitempty"`
	Repository string     `json:"repository,omitempty"`
	Tag        string     `json:"tag,omitempty"`
	Digest     string     `json:"digest,omitempty"` // what it is now, or what is concerned
	Was        string     `json:"was,omitempty"`    // of a tag that moved: what it pointed to before
	Count      int64      `json:"count,omitempty"`
	Bytes      int64      `json:"bytes,omitempty"`
	Detail     string     `json:"detail,omitempty"`
}

// ParseTemplate reads a template of a body. It has the function json, which writes a value as JSON.
func ParseTemplate(text string) (*template.Template, error) {
	t, err := template.New("template").Option("missingkey=error").Funcs(template.FuncMap{"json": asJSON}).Parse(text)
	if err != nil {
		return nil, err
	}
	// A field that does not exist shows only in use.
	sample := Message{ID: "msg", Kind: event.ReleaseMoved, Text: "text"}
	if err := t.Execute(io.Discard, sample); err != nil {
		return nil, err
	}
	return t, nil
}

func asJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// body returns m as its target wants it.
func (t *way) body(m Message) ([]byte, error) {
	if t.template == nil {
		text, err := asJSON(m)
		return []byte(text), err
	}
	to := &bounded{most: bodyMost}
	if err := t.template.Execute(to, m); err != nil {
		return nil, fmt.Errorf("its template: %w", err)
	}
	return to.Bytes(), nil
}

// bounded takes no more than so many bytes.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		return 0, errors.New("makes a message that is too large")
	}
	return b.Buffer.Write(p)
}

// message says in full what happened.
func message(mirror string, e event.Event) Message {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	m := Message{
		ID: "msg_" + strings.ToLower(rand.Text()), Mirror: mirror, Kind: e.Kind, At: e.At.UTC(), Upstream: e.Upstream, Repository: e.Repository, Tag: e.Tag,
		Digest: wire.DigestText(e.Digest), Was: wire.DigestText(e.Was), Count: e.Count, Bytes: e.Bytes, Detail: e.Detail,
	}
	if e.Repository != "" {
		m.Image = e.Upstream + "/" + e.Repository
		if e.Tag != "" {
			m.Image += ":" + e.Tag
		}
	}
	m.Text = m.words()
	return m
}

// words says it in one line.
func (m *Message) words() string {
	subject := m.Image
	switch {
	case subject == "" && m.Upstream != "":
		subject = m.Upstream
	case subject == "":
		subject = "the mirror"
	}
	line := "forebay " + m.Mirror + ": " + subject + ": " + strings.ReplaceAll(string(m.Kind), "_", " ")
	if m.Was != "" {
		line += " from " + m.Was
		if m.Digest != "" {
			line += " to " + m.Digest
		}
	} else if m.Digest != "" {
		line += " (" + m.Digest + ")"
	}
	if m.Detail != "" {
		line += ": " + m.Detail
	}
	return strings.Map(func(r rune) rune { // one line
		if r < ' ' {
			return ' '
		}
		return r
	}, line)
}
