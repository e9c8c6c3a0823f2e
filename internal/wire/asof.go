package wire

import (
	"strings"
	"time"
)

// ValidSnapshot reports whether a text can be the name of a snapshot: up to 64 lower-case letters,
// digits, dots, dashes and underscores, a letter first, so that none is a time.
func ValidSnapshot(s string) bool {
	return s != "" && len(s) <= 64 && s[0] >= 'a' && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// Instant reads a day, or a time as RFC 3339 writes it, of which the seconds and the zone may be left
// out. Without a zone it is in UTC.
func Instant(s string) (t time.Time, ok bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return t, false
}

// WithAsOf returns the path of a request with a past put into it, unless it names one itself.
func WithAsOf(path, past string) string {
	root, rest, ok := cutVersion(path)
	if !ok || strings.HasPrefix(root, "@") || strings.HasPrefix(rest, "@") {
		return path
	}
	if root != "" {
		root = "/" + root
	}
	return root + "/v2/@" + past + "/" + rest
}

// ValidAsOf reports whether a text names a past that tags can be asked of: a time or a snapshot.
func ValidAsOf(s string) bool {
	_, ok := Instant(s)
	return ok || ValidSnapshot(s)
}
