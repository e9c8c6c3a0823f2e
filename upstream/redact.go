package upstream

import (
	"errors"
	"regexp"
	"strings"

	"forebay/internal/wire"
)

// urlSecrets matches what a URL can hide in: its user, and its query, in which blob
// stores carry signatures.
var (
	urlUserPattern  = regexp.MustCompile(`(?i)(https?://)[^/\s"'@]*@`)
	urlQueryPattern = regexp.MustCompile(`\?[^\s"'<>]*`)
	bearerPattern   = regexp.MustCompile(`(?i)\b(basic|bearer)\s+[a-z0-9._~+/=-]{8,}`)
)

// textMax bounds the text of a foreign error. Some quote what they have received.
const textMax = 300

// clean returns text without users and queries of URLs and without authorizations.
func clean(text string) string {
	if strings.Contains(text, "@") {
		text = urlUserPattern.ReplaceAllString(text, "${1}…@")
	}
	if strings.Contains(text, "?") {
		text = urlQueryPattern.ReplaceAllString(text, "?…")
	}
	return wire.Clip(bearerPattern.ReplaceAllString(text, "$1 …"), textMax)
}

// quietError is a foreign error whose text has been cleaned. It can be tested with
// errors.Is but not unwrapped, since the text below it may hold a URL.
type quietError struct {
	text  string
	cause error
}

func (e *quietError) Error() string        { return e.text }
func (e *quietError) Is(target error) bool { return errors.Is(e.cause, target) }

// quiet cleans an error of net/http, crypto/tls or net/url.
func quiet(err error) error {
	if err == nil {
		return nil
	}
	return &quietError{text: clean(err.Error()), cause: err}
}
