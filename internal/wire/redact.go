package wire

import (
	"errors"
	"regexp"
	"strings"
)

// Patterns of what a URL can hide in: its user, and its query, in which blob stores carry
// signatures; and of an authorization.
var (
	urlUserPattern  = regexp.MustCompile(`(?i)(https?://)[^/\s"'@]*@`)
	urlQueryPattern = regexp.MustCompile(`\?[^\s"'<>]*`)
	bearerPattern   = regexp.MustCompile(`(?i)\b(basic|bearer)\s+[a-z0-9._~+/=-]{8,}`)
)

// foreignTextMax bounds the text of a foreign error. Some quote what they have received.
const foreignTextMax = 300

// Redact returns text without users and queries of URLs and without authorizations.
func Redact(text string) string {
	if strings.Contains(text, "@") {
		text = urlUserPattern.ReplaceAllString(text, "${1}…@")
	}
	if strings.Contains(text, "?") {
		text = urlQueryPattern.ReplaceAllString(text, "?…")
	}
	return Clip(bearerPattern.ReplaceAllString(text, "$1 …"), foreignTextMax)
}

// redactedError is a foreign error whose text has been redacted. It can be tested with
// errors.Is but not unwrapped, since the text below it may hold a URL.
type redactedError struct {
	text  string
	cause error
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return errors.Is(e.cause, target) }

// RedactError redacts the text of an error of net/http, crypto/tls or net/url.
func RedactError(err error) error {
	if err == nil {
		return nil
	}
	return &redactedError{text: Redact(err.Error()), cause: err}
}
