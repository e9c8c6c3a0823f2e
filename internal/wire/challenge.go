package wire

import (
	"fmt"
	"strings"
)

// challengeMax bounds the text of all WWW-Authenticate headers of one answer. Real
// ones have some 200 bytes.
const challengeMax = 8 << 10

// Challenge is one way to authenticate that a WWW-Authenticate header offers
// (RFC 9110, section 11.6.1).
type Challenge struct {
	Scheme string            // lower case: "bearer", "basic"
	Params map[string]string // by lower-case name; the first of equal names counts
}

// ParseChallenges reads WWW-Authenticate header values, of which each may hold several
// challenges. It takes the odd forms that registries have sent: unquoted values with
// slashes and colons, a lower-case scheme, missing or doubled commas, blanks around the
// equals sign, a quote that is never closed. Text that is no challenge is left out; more
// than 8 KiB of it is an error.
func ParseChallenges(values []string) ([]Challenge, error) {
	total := 0
	for _, v := range values {
		total += len(v)
	}
	if total > challengeMax {
		return nil, fmt.Errorf("challenge has %d bytes, more than %d", total, challengeMax)
	}
	var list []Challenge
	for _, v := range values {
		s := challengeScanner{rest: v}
		list = s.scan(list)
	}
	return list, nil
}

// FindChallenge returns the first challenge of that scheme, which is lower case.
func FindChallenge(list []Challenge, scheme string) (Challenge, bool) {
	for _, c := range list {
		if c.Scheme == scheme {
			return c, true
		}
	}
	return Challenge{}, false
}

// challengeScanner reads one header value from left to right. A word that is followed
// by an equals sign is a parameter of the present challenge, any other a new scheme.
type challengeScanner struct{ rest string }

func (s *challengeScanner) scan(list []Challenge) []Challenge {
	open := false // whether the last of list began in this value
	for {
		s.rest = strings.TrimLeft(s.rest, " \t,;")
		if s.rest == "" {
			return list
		}
		word := s.word()
		if word == "" { // a byte that can begin neither a scheme nor a parameter
			s.rest = s.rest[1:]
			continue
		}
		value, isParam := s.value()
		switch {
		case !isParam:
			list = append(list, Challenge{Scheme: strings.ToLower(word), Params: map[string]string{}})
			open = true
		case open:
			params, name := list[len(list)-1].Params, strings.ToLower(word)
			if _, ok := params[name]; !ok {
				params[name] = value
			}
		}
	}
}

// word takes a token (RFC 9110, section 5.6.2).
func (s *challengeScanner) word() string {
	n := 0
	for n < len(s.rest) && tokenByte(s.rest[n]) {
		n++
	}
	word := s.rest[:n]
	s.rest = s.rest[n:]
	return word
}

// value takes "=" and what follows it, or nothing when there is no equals sign.
func (s *challengeScanner) value() (string, bool) {
	after := strings.TrimLeft(s.rest, " \t")
	if !strings.HasPrefix(after, "=") {
		return "", false
	}
	s.rest = strings.TrimLeft(after[1:], " \t")
	if strings.HasPrefix(s.rest, `"`) {
		return s.quoted(), true
	}
	// Unquoted: up to a comma or a blank. quay.io once sent repository:a/b:pull so.
	n := strings.IndexAny(s.rest, " \t,")
	if n < 0 {
		n = len(s.rest)
	}
	value := s.rest[:n]
	s.rest = s.rest[n:]
	return value, true
}

func (s *challengeScanner) quoted() string {
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	s.rest = ""
	return b.String()
}

func tokenByte(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
