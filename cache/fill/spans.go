package fill

import (
	"slices"
)

// spans is a set of byte ranges: sorted, disjoint, never touching, each [from, to).
// The zero value is empty. A fill has a handful of them, one per connection.
type spans [][2]int64

// add puts [from, to) into the set.
func (s *spans) add(from, to int64) {
	if from >= to {
		return
	}
	// Sequential writing, by far the most common, only moves one end.
	i := s.search(from)
	j := i
	for j < len(*s) && (*s)[j][0] <= to {
		from = min(from, (*s)[j][0])
		to = max(to, (*s)[j][1])
		j++
	}
	if j == i+1 {
		(*s)[i] = [2]int64{from, to}
		return
	}
	*s = slices.Replace(*s, i, j, [2]int64{from, to})
}

// search returns the index of the first range that ends at or after pos.
func (s spans) search(pos int64) int {
	i, _ := slices.BinarySearchFunc(s, pos, func(r [2]int64, p int64) int {
		if r[1] < p {
			return -1
		}
		return 1
	})
	return i
}

// until returns the end of the range that holds pos, or pos itself when none does.
func (s spans) until(pos int64) int64 {
	for i := s.search(pos); i < len(s) && s[i][0] <= pos; i++ {
		if pos < s[i][1] {
			return s[i][1]
		}
	}
	return pos
}

// next returns the start of the first range after pos, or limit when there is none before it.
func (s spans) next(pos, limit int64) int64 {
	for i := s.search(pos); i < len(s); i++ {
		if s[i][0] > pos {
			return min(s[i][0], limit)
		}
	}
	return limit
}

// total returns how many bytes the set has.
func (s spans) total() (n int64) {
	for _, span := range s {
		n += span[1] - span[0]
	}
	return n
}
