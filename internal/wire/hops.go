package wire

import "strings"

// HopsHeader names the Forebays that a request came through, in their order. In an answer it
// says that a Forebay gave it.
const HopsHeader = "Forebay-Hops"

// HopsMost is how many mirrors a request names, the last ones. It bounds the header, and the
// length of a circle that ends at once; nobody puts more in a row.
const HopsMost = 8

// hopMost bounds the name of one mirror.
const hopMost = 64

// ParseHops reads the values of a [HopsHeader] for the mirror of the name own. came is whether it
// is among them. passed is what is to be passed on: the last names, so that own fits behind them.
// Anybody may have written them: what is no name is left out, and their number means nothing.
func ParseHops(values []string, own string) (passed string, came bool) {
	var last []string
	for _, v := range values {
		for hop := range strings.SplitSeq(v, ",") {
			if hop = strings.TrimSpace(hop); !validHop(hop) {
				continue
			}
			came = came || hop == own
			if len(last) == HopsMost-1 {
				copy(last, last[1:])
				last = last[:HopsMost-2]
			}
			last = append(last, hop)
		}
	}
	return strings.Join(last, ", "), came
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
