package refs

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"forebay/cache/index/journal"
)

// form says what the fields of lines of one noun are: the first key of them name what the line is
// about, and at is that of its time in a line that adds. Lines that remove end with their time.
type form struct{ key, at int }

// forms are those of the nouns that are known. A line of another is kept as it is: a newer program
// wrote it.
func forms(noun string) (form, bool) {
	switch noun {
	case "link":
		return form{key: 4, at: 5}, true
	case "tag":
		return form{key: 3, at: 5}, true
	case "was":
		return form{key: 3, at: 4}, true
	case "pin":
		return form{key: 3, at: 3}, true
	case decision:
		return form{key: 1, at: 1}, true
	}
	return form{}, false
}

const (
	// decision is the noun of what operators decided, which is of no upstream.
	decision = "decision"
	// decided begins the keys of decisions, and foreign is the key of all lines of unknown nouns. They
	// come after all others.
	decided = "\xfe"
	foreign = "\xff"
)

// keyOf returns what a line is about; ok is false for one that cannot be.
func keyOf(l journal.Line) (key string, ok bool) {
	f, known := forms(l.Noun)
	switch {
	case !known:
		return foreign, true
	case len(l.Fields) <= f.key, !l.Remove && len(l.Fields) <= f.at:
		return "", false
	case l.Noun == decision:
		return decided + l.Fields[0], true
	}
	noun := l.Noun
	if noun == "was" {
		noun = "tag" // of which it is the history
	}
	return strings.Join(append([]string{l.Fields[0], l.Fields[1], noun}, l.Fields[2:f.key]...), "\x00"), true
}

// timeOf returns the time of a line of a known noun, in milliseconds since 1970.
func timeOf(l journal.Line) int64 {
	f, _ := forms(l.Noun)
	i := f.at
	if l.Remove {
		i = f.key
	}
	ms, err := strconv.ParseInt(l.Fields[i], 10, 64)
	if err != nil {
		return 0
	}
	return ms
}

// historyMost is how many former bindings of a tag are kept; an index keeps no more.
const historyMost = 200

// reduce returns what remains of all lines about one thing, whoever wrote them and in whatever order
// they come: what is newest counts, and a removal counts more than what is as old. It may be applied
// again to what it returned, together with others. A removal that is older than forget goes when
// nothing is there that it takes away.
func reduce(key string, all []journal.Line, forget time.Time) []journal.Line {
	if key == foreign {
		return lastOfEach(all)
	}
	var gone *journal.Line
	var left []journal.Line
	for i, l := range all {
		if !l.Remove {
			left = append(left, l)
		} else if gone == nil || timeOf(l) > timeOf(*gone) {
			gone = &all[i]
		}
	}
	had := len(left)
	if gone != nil {
		left = slices.DeleteFunc(left, func(l journal.Line) bool { return timeOf(l) <= timeOf(*gone) })
		if len(left) == had && timeOf(*gone) < forget.UnixMilli() {
			gone = nil
		}
	}
	slices.SortStableFunc(left, func(a, b journal.Line) int { return cmp.Compare(timeOf(a), timeOf(b)) })
	if len(left) > 0 && (left[0].Noun == "tag" || left[0].Noun == "was") {
		left = bindings(left)
	} else if len(left) > 0 {
		for _, l := range left[:len(left)-1] {
			fill(&left[len(left)-1], l)
		}
		left, gone = left[len(left)-1:], nil // what is older is nothing beside it
	}
	if gone != nil {
		left = append([]journal.Line{*gone}, left...)
	}
	return left
}

// bindings returns what a tag points to, and what it pointed to before, the latest first. Lines are
// sorted by time. Of several mirrors each tells what it saw.
func bindings(all []journal.Line) []journal.Line {
	var now []journal.Line // each of another content than the one before
	was := map[[2]string]journal.Line{}
	add := func(l journal.Line) { // by content and when that was seen first, with when it was seen last
		key := [2]string{l.Fields[3], l.Fields[4]}
		if old, ok := was[key]; !ok || lastSeen(l) > lastSeen(old) {
			was[key] = l
		}
	}
	for _, l := range all {
		last := len(now) - 1
		switch {
		case l.Noun == "was":
			add(l)
		case last >= 0 && now[last].Fields[3] == l.Fields[3]:
			fill(&now[last], l)
		default:
			now = append(now, l)
		}
	}
	left := []journal.Line(nil)
	if last := len(now) - 1; last >= 0 {
		left = now[last:]
		for _, l := range now[:last] {
			at := l.Fields[5]
			add(journal.Line{Noun: "was", Fields: append(slices.Clone(l.Fields[:4]), at, at)})
		}
	}
	former := slices.SortedFunc(maps.Values(was), func(a, b journal.Line) int {
		return cmp.Or(cmp.Compare(timeOf(b), timeOf(a)), cmp.Compare(a.Fields[3], b.Fields[3]))
	})
	return append(left, former[:min(len(former), historyMost)]...)
}

// lastSeen returns when a former binding was seen last.
func lastSeen(l journal.Line) int64 {
	if len(l.Fields) < 6 {
		return 0
	}
	ms, err := strconv.ParseInt(l.Fields[5], 10, 64)
	if err != nil {
		return 0
	}
	return ms
}

// fill takes size and media type of the same content from another line where l does not know them.
func fill(l *journal.Line, from journal.Line) {
	if len(l.Fields) != 7 || len(from.Fields) != 7 {
		return // a pin
	}
	fields := slices.Clone(l.Fields)
	if size := fields[4]; size == "-1" || size == "0" {
		fields[4] = from.Fields[4]
	}
	if fields[6] == "" {
		fields[6] = from.Fields[6]
	}
	l.Fields = fields
}

// lastOfEach drops lines that come again later.
func lastOfEach(all []journal.Line) []journal.Line {
	seen := map[string]bool{}
	var left []journal.Line
	for _, l := range slices.Backward(all) {
		if text := string(l.Bytes()); !seen[text] {
			seen[text] = true
			left = append(left, l)
		}
	}
	slices.Reverse(left)
	return left
}

// The upstream of a line, which is its first field, is followed by its identity.
const beforeIdentity = "@"

// identify adds the identities of upstreams to lines of this mirror's journal, and their times to old
// removals, and leaves out those of upstreams that have none. of may be asked for what is no upstream.
func identify(lines []journal.Line, of func(upstream string) string) []journal.Line {
	var all []journal.Line
	last := int64(0)
	for _, l := range lines {
		f, known := forms(l.Noun)
		if len(l.Fields) == 0 {
			continue
		}
		id := ""
		if l.Noun != decision {
			id = of(l.Fields[0])
		}
		if known && id == "" && l.Noun != decision {
			continue
		}
		l.Fields = slices.Clone(l.Fields)
		if known && l.Remove && len(l.Fields) == f.key {
			l.Fields = append(l.Fields, strconv.FormatInt(last+1, 10))
		}
		if id != "" {
			l.Fields[0] += beforeIdentity + id
		}
		if key, ok := keyOf(l); !ok {
			continue
		} else if key != foreign {
			last = max(last, timeOf(l))
		}
		all = append(all, l)
	}
	return all
}

// unidentified returns a line as it was in the journal of its mirror, if its upstream has the same
// identity here.
func unidentified(l journal.Line, of func(upstream string) string) (journal.Line, bool) {
	if len(l.Fields) == 0 || l.Noun == decision {
		return l, len(l.Fields) > 0
	}
	upstream, id, ok := strings.Cut(l.Fields[0], beforeIdentity)
	if !ok || id == "" || of(upstream) != id {
		return l, false
	}
	l.Fields = slices.Clone(l.Fields)
	l.Fields[0] = upstream
	return l, true
}
