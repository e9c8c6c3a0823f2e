package wire

import (
	"errors"
	"slices"
	"strings"
)

// linkMax bounds one Link header value. Real ones have some 200 bytes.
const linkMax = 8 << 10

// NextLink returns the target of the first link with relation "next" in Link header
// values (RFC 8288), as it was written: relative or absolute; "" if there is none. It takes what
// clients take: a target without angle brackets, and a link without a relation, which go-containerregistry
// follows too, if no other is the next. That there is a link which cannot be read is an error.
func NextLink(values []string) (string, error) {
	plain, unreadable := "", false
	for _, v := range values {
		if len(v) > linkMax {
			unreadable = true
			continue
		}
		for v = strings.Trim(v, " \t,"); v != ""; v = strings.Trim(v, " \t,") {
			var target, params string
			target, params, v = cutLink(v)
			switch rel := relation(params); {
			case rel == "" && target != "" && plain == "":
				plain = target
			case rel != "" && !isNext(rel):
			case target == "":
				unreadable = true
			case rel != "":
				return target, nil
			}
		}
	}
	if plain == "" && unreadable {
		return "", errors.New("a link that cannot be read")
	}
	return plain, nil
}

// cutLink takes the first "<target>; params" from s. A comma ends it unless it is
// between quotes.
func cutLink(s string) (target, params, rest string) {
	var end int
	if bracketed, ok := strings.CutPrefix(s, "<"); ok && strings.Contains(bracketed, ">") {
		target, s, _ = strings.Cut(bracketed, ">")
	} else {
		if end = strings.IndexAny(s, ";,"); end < 0 {
			end = len(s)
		}
		target, s = strings.Trim(s[:end], "<>"), s[end:]
	}
	if end = indexUnquoted(s, ','); end < 0 {
		return strings.TrimSpace(target), s, ""
	}
	return strings.TrimSpace(target), s[:end], s[end:]
}

// relation returns the relations among link parameters, "" if there are none. Only the first rel counts.
func relation(params string) string {
	for params != "" {
		param := params
		if i := indexUnquoted(params, ';'); i >= 0 {
			param, params = params[:i], params[i+1:]
		} else {
			params = ""
		}
		if name, value, _ := strings.Cut(param, "="); strings.EqualFold(strings.TrimSpace(name), "rel") {
			return strings.Trim(value, " \t\"'")
		}
	}
	return ""
}

func isNext(relations string) bool {
	return slices.ContainsFunc(strings.Fields(relations), func(rel string) bool { return strings.EqualFold(rel, "next") })
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
