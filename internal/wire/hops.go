package wire

import "strings"

// HopsHeader names the mirrors of this kind that a request came through, the first first.
// In an answer it names the one that gave it.
const HopsHeader = "Forebay-Hops"

// HopsMost is how many mirrors a request may come through. Sites are a few levels deep:
// more is a loop through mirrors that forget where a request came from.
const HopsMost = 8

// hopMost bounds the name of one mirror.
const hopMost = 64

// ParseHops reads the values of a [HopsHeader]. ok is false when they are more than any
// request comes through, or not the names of mirrors.
func ParseHops(values []string) (hops []string, ok bool) {
	for _, v := range values {
		if len(v) > HopsMost*(hopMost+2) {
			return nil, false
		}
		for hop := range strings.SplitSeq(v, ",") {
			hop = strings.TrimSpace(hop)
			if !validHop(hop) || len(hops) == HopsMost {
				return nil, false
			}
			hops = append(hops, hop)
		}
	}
	return hops, true
}

func validHop(s string) bool {
	if s == "" || len(s) > hopMost {
		return false
	}
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return true
}

// AddHop returns the value of a [HopsHeader] that has one more.
func AddHop(hops, hop string) string {
	if hops == "" {
		return hop
	}
	return hops + ", " + hop
}
