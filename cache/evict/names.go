package evict

import (
	"encoding/hex"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// digestLen is the length of a SHA-256.
const digestLen = 32

// key finds an entry. It is half a digest: two digests with equal halves do not come by
// accident, and are told apart if somebody constructs them.
type key [digestLen / 2]byte

// names find entries by digest.
type names struct {
	slots map[key]uint32
	odd   map[v1.Hash]uint32 // those without a key of their own: other algorithms, equal halves
	whole map[uint32]v1.Hash // and back
}

func newNames() names {
	return names{slots: map[key]uint32{}, odd: map[v1.Hash]uint32{}, whole: map[uint32]v1.Hash{}}
}

// decode returns the bytes of a SHA-256. It is most of the time that a use takes, so it
// has no branches that digits decide.
func decode(d v1.Hash) (b [digestLen]byte, ok bool) {
	if d.Algorithm != "sha256" || len(d.Hex) != hex.EncodedLen(digestLen) {
		return b, false
	}
	wrong := byte(0)
	for i := range b {
		high, low := hexDigit(d.Hex[2*i]), hexDigit(d.Hex[2*i+1])
		wrong |= high | low
		b[i] = high<<4 | low
	}
	return b, wrong <= 15
}

// hexDigit returns what a lower-case hexadecimal digit stands for, or more than 15.
func hexDigit(c byte) byte {
	const digits = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09" + // from '0' on
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
		"\x0a\x0b\x0c\x0d\x0e\x0f" // from 'a' on
	if i := c - '0'; int(i) < len(digits) {
		return digits[i]
	}
	return 0xff
}

func (n *names) find(slots *slab, d v1.Hash) (uint32, bool) {
	if b, ok := decode(d); ok {
		if s, ok := n.slots[key(b[:len(key{})])]; ok && slots.at(s).digest == b {
			return s, true
		}
	}
	if len(n.odd) == 0 {
		return 0, false
	}
	s, ok := n.odd[d]
	return s, ok
}

// add names an entry, which must have no name, by a digest that is not known.
func (n *names) add(slots *slab, d v1.Hash, s uint32) {
	b, ok := decode(d)
	slots.at(s).digest = b
	k := key(b[:len(key{})])
	if _, taken := n.slots[k]; ok && !taken {
		n.slots[k] = s
		return
	}
	n.odd[d], n.whole[s] = s, d
}

func (n *names) remove(slots *slab, s uint32) {
	if d, ok := n.whole[s]; ok {
		delete(n.whole, s)
		delete(n.odd, d)
		return
	}
	b := slots.at(s).digest
	delete(n.slots, key(b[:len(key{})]))
}

func (n *names) of(slots *slab, s uint32) v1.Hash {
	if d, ok := n.whole[s]; ok {
		return d
	}
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(slots.at(s).digest[:])}
}
