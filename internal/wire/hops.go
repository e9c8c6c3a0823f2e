package wire

import "strings"

// HopsHeader names the Forebays that a request came through, in their order. In an answer it
// names the one that gave it.
const HopsHeader = "Forebay-Hops"

// HopsMost is how many mirrors a request may come through. Nobody puts more in a row: it
// would be a loop through mirrors that do not pass the header on.
const HopsMost = 8

// hopMost bounds the name of one mirror.
const hopMost = 64

// ParseHops reads the values of a [HopsHeader]. ok is false when there are more than
// [HopsMost], or when one is not the name of a mirror.
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
