package wire

import "strings"

// linkMax bounds one Link header value. Real ones have some 200 bytes.
const linkMax = 8 << 10

// NextLink returns the target of the first link with relation "next" in Link header
// values (RFC 8288), as it was written: relative or absolute. The caller resolves it
// and decides whether it may be followed.
func NextLink(values []string) (string, bool) {
	for _, v := range values {
		if len(v) > linkMax {
			continue
		}
		for v != "" {
			target, params, rest, ok := cutLink(v)
			if !ok {
				break
			}
			if target != "" && hasNextRel(params) {
				return target, true
			}
			v = rest
		}
	}
	return "", false
}

// cutLink takes the first "<target>; params" from s. A comma ends it unless it is
// between quotes.
func cutLink(s string) (target, params, rest string, ok bool) {
	_, s, ok = strings.Cut(s, "<")
	if !ok {
		return "", "", "", false
	}
	target, s, ok = strings.Cut(s, ">")
	if !ok {
		return "", "", "", false
	}
	end := indexUnquoted(s, ',')
	if end < 0 {
		return strings.TrimSpace(target), s, "", true
	}
	return strings.TrimSpace(target), s[:end], s[end+1:], true
}

// hasNextRel reports whether link parameters hold rel="next". Only the first rel counts.
func hasNextRel(params string) bool {
	for params != "" {
		param := params
		if i := indexUnquoted(params, ';'); i >= 0 {
			param, params = params[:i], params[i+1:]
		} else {
			params = ""
		}
		name, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for _, rel := range strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(rel, "next") {
				return true
			}
		}
		return false
	}
	return false
}

// indexUnquoted returns the position of the first c in s outside double quotes, or -1.
func indexUnquoted(s string, c byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted && s[i] == c:
			return i
		}
	}
	return -1
}
