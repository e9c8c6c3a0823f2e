package imageset

import (
	"errors"
	"fmt"
	"strings"
)

// expandDepth bounds defaults within defaults.
const expandDepth = 10

// expandMax bounds the result: no name of an image is longer.
const expandMax = 4096

// expand replaces the variables of a name as Compose and GitLab have them: $NAME,
// ${NAME}, and within braces :- - :+ + :? and ?. $$ is a dollar. A variable without value
// and default is an error, since an image of another name would be fetched.
func expand(s string, lookup func(string) (string, bool)) (string, error) {
	return (&expansion{lookup: lookup, most: expandMax}).whole(s)
}

// expandText is expand for a text in which names of images are few: as for Compose, what has
// no value is empty.
func expandText(s string, lookup func(string) (string, bool)) (string, error) {
	return (&expansion{lookup: lookup, most: fileMax, lenient: true}).whole(s)
}

func (e *expansion) whole(s string) (string, error) {
	out, rest, err := e.text(s, false, 0)
	if err == nil && rest != "" {
		err = fmt.Errorf("%q has a } too many", clip(s))
	}
	return out, err
}

type expansion struct {
	lookup  func(string) (string, bool)
	most    int // bytes of the result
	lenient bool
}

// text expands s up to its end or, within braces, up to the } that ends them.
func (e *expansion) text(s string, braced bool, depth int) (out, rest string, err error) {
	if depth > expandDepth {
		return "", "", fmt.Errorf("defaults are nested more than %d deep", expandDepth)
	}
	var b strings.Builder
	for s != "" {
		if b.Len() > e.most {
			return "", "", fmt.Errorf("is longer than %d bytes", e.most)
		}
		switch c := s[0]; {
		case c == '}' && braced:
			return b.String(), s[1:], nil
		case c != '$':
			b.WriteByte(c)
			s = s[1:]
		case strings.HasPrefix(s, "$$"):
			b.WriteByte('$')
			s = s[2:]
		case strings.HasPrefix(s, "${"):
			var v string
			if v, s, err = e.braces(s[2:], depth); err != nil {
				return "", "", err
			}
			b.WriteString(v)
		default:
			name := variableName(s[1:])
			if name == "" {
				return "", "", errors.New("a $ is followed by no name: write $$ for a dollar")
			}
			v, ok := e.lookup(name)
			if !ok && !e.lenient {
				return "", "", unset(name)
			}
			b.WriteString(v)
			s = s[1+len(name):]
		}
	}
	if braced {
		return "", "", errors.New("a ${ has no } that ends it")
	}
	return b.String(), "", nil
}

// braces expands what follows a ${.
func (e *expansion) braces(s string, depth int) (out, rest string, err error) {
	name := variableName(s)
	if name == "" {
		return "", "", errors.New("a ${ is followed by no name")
	}
	s = s[len(name):]
	v, set := e.lookup(name)
	if strings.HasPrefix(s, "}") {
		if !set && !e.lenient {
			return "", "", unset(name)
		}
		return v, s[1:], nil
	}
	if strings.HasPrefix(s, ":") { // then an empty value is like none
		set = set && v != ""
		s = s[1:]
	}
	if s == "" {
		return "", "", errors.New("a ${ has no } that ends it")
	}
	operator := s[0]
	if !strings.ContainsRune("-+?", rune(operator)) {
		return "", "", fmt.Errorf("${%s…} has %q, which is not supported: use ${%s:-DEFAULT}", clip(name), string(operator), clip(name))
	}
	// The other text is expanded only if it counts: what it names may be unset.
	used := operator == '-' && !set || operator == '+' && set || operator == '?' && !set
	inner := e
	if !used {
		inner = &expansion{lookup: func(string) (string, bool) { return "", true }, most: e.most}
	}
	word, rest, err := inner.text(s[1:], true, depth+1)
	switch {
	case err != nil:
		return "", "", err
	case operator == '?' && !set:
		return "", "", fmt.Errorf("%w: %s", unset(name), clip(word))
	case operator == '+' && !set:
		return "", rest, nil
	case used:
		return word, rest, nil
	}
	return v, rest, nil
}

func unset(name string) error {
	return fmt.Errorf("variable %s is not set: set it, or give a default by ${%s:-DEFAULT}", clip(name), clip(name))
}

func variableName(s string) string {
	for i := range len(s) {
		c := s[i]
		if c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9' {
			continue
		}
		return s[:i]
	}
	return s
}
