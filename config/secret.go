package config

import (
	"fmt"
	"io"
)

// mask is what every way of printing a [Secret] shows.
const mask = "********"

// Secret is a password or token. However it is printed, logged or marshalled, it
// shows as a mask; only Reveal gives the text. The zero value is no secret.
type Secret struct{ text string }

// NewSecret returns the secret that holds text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text itself. Its caller must not log it or put it in an error.
func (s Secret) Reveal() string { return s.text }

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.text == "" }

// String returns the mask, or "" for no secret.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return mask
}

// Format writes the mask for every verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// GoString returns the mask.
func (s Secret) GoString() string { return s.String() }

// MarshalText returns the mask; JSON and loggers use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns the mask.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
