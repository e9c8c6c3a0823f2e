package wire

import "strings"

// Clip returns s if it has at most so many bytes, else its beginning with a "…" behind it.
// Whatever comes from outside is clipped before it goes into an answer or a log.
func Clip(s string, mostBytes int) string {
	if len(s) <= mostBytes {
		return s
	}
	return strings.ToValidUTF8(s[:mostBytes], "") + "…"
}

// clip bounds what is quoted in the texts of errors.
func clip(s string) string { return Clip(s, 80) }
