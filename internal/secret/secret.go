// Package secret holds passwords and tokens.
//
// It promises that however one is printed, logged or marshalled, a mask is seen.
package secret

import (
	"fmt"
	"io"
	"strings"
)

// mask is what every way of printing a [Text] shows.
const mask = "********"

// Text is a password or token, which only Reveal gives. The zero value is none.
type Text struct{ text string }

// New returns the secret that holds text.
func New(text string) Text { return Text{text: text} }

// Line returns what a file says of a secret: its text without line breaks at the end, and without the
// byte order mark that editors of Windows put before it.
func Line(file []byte) string {
	return strings.TrimPrefix(strings.TrimRight(string(file), "\r\n"), "\ufeff")
}

// Reveal returns the text itself. Its caller must not log it or put it in an error.
func (s Text) Reveal() string { return s.text }

// Empty reports whether there is no secret.
func (s Text) Empty() bool { return s.text == "" }

// String returns the mask, or "" for no secret.
func (s Text) String() string {
	if s.text == "" {
		return ""
	}
	return mask
}

// Format writes the mask for every verb, %#v and %x included.
func (s Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// GoString returns the mask.
func (s Text) GoString() string { return s.String() }

// MarshalText returns the mask; JSON and loggers use it.
func (s Text) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns the mask.
func (s Text) MarshalYAML() (any, error) { return s.String(), nil }
