package wire

import (
	"errors"
	"regexp"
	"strings"
)

// CompilePattern turns a pattern with *, ? and [sets] into an expression. What path.Match
// has is not enough: there * ends at a slash, and repositories are full of them.
func CompilePattern(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("^")
	for rest := pattern; rest != ""; {
		c := rest[0]
		switch c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			end := strings.IndexByte(rest, ']')
			if end < 2 {
				return nil, errors.New("[ without its ]")
			}
			b.WriteString(rest[:end+1])
			rest = rest[end+1:]
			continue
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		}
		rest = rest[1:]
	}
	b.WriteString("$")
	return regexp.Compile(b.String())
}

// MatchesName compares a pattern with a whole name and with its familiar short forms, in which
// docker.io/, library/ or both are left out.
func MatchesName(pattern *regexp.Regexp, name string) bool {
	if pattern.MatchString(name) {
		return true
	}
	short, hub := strings.CutPrefix(name, Hub+"/")
	official := strings.TrimPrefix(short, "library/")
	return hub && (pattern.MatchString(short) || pattern.MatchString(official) || pattern.MatchString(Hub+"/"+official))
}
