package wire

import "strings"

// MatchesETag reports whether the values of an If-None-Match header name the digest,
// quoted or not, or are "*". The comparison is weak, as RFC 9110, 13.1.2 demands.
func MatchesETag(values []string, digest string) bool { return listsETag(values, digest, "W/") }

// NamesETag is MatchesETag for an If-Match header, whose comparison is strong (RFC 9110, 13.1.1).
func NamesETag(values []string, digest string) bool { return listsETag(values, digest, "") }

// listsETag reports whether a list of tags, each perhaps behind a prefix, has the digest.
func listsETag(values []string, digest, prefix string) bool {
	for _, list := range values {
		for list != "" {
			var tag string
			tag, list, _ = strings.Cut(list, ",")
			tag = strings.TrimPrefix(strings.Trim(tag, " \t"), prefix)
			if tag == "*" || tag == digest {
				return true
			}
			if n := len(tag); n >= 2 && tag[0] == '"' && tag[n-1] == '"' && tag[1:n-1] == digest {
				return true
			}
		}
	}
	return false
}

// Accepts reports whether the values of an Accept header, one or several lines, allow
// mediaType. No header allows everything, and so does a line without any media type.
func Accepts(values []string, mediaType string) bool {
	named := false
	for _, list := range values {
		for list != "" {
			var item string
			item, list, _ = strings.Cut(list, ",")
			accepted, params, _ := strings.Cut(item, ";")
			if accepted = strings.Trim(accepted, " \t"); accepted == "" {
				continue
			}
			named = true
			if includes(accepted, mediaType) && !refused(params) {
				return true
			}
		}
	}
	return !named
}

func includes(accepted, mediaType string) bool {
	if strings.EqualFold(accepted, mediaType) || accepted == "*/*" {
		return true
	}
	kind, ok := strings.CutSuffix(accepted, "/*")
	if !ok {
		return false
	}
	got, _, _ := strings.Cut(mediaType, "/")
	return strings.EqualFold(kind, got)
}

// refused reports whether the parameters of an Accept item give it the quality 0.
func refused(params string) bool {
	for params != "" {
		var param string
		param, params, _ = strings.Cut(params, ";")
		key, value, _ := strings.Cut(strings.Trim(param, " \t"), "=")
		if !strings.EqualFold(key, "q") {
			continue
		}
		value = strings.TrimLeft(value, "0")
		return value == "" || strings.Trim(value, ".0") == "" && value[0] == '.'
	}
	return false
}
