package cache

import (
	"errors"

	"forebay/internal/pull"
)

// step is what is done next for a client that asks for a tag.
type step uint8

const (
	fail       step = iota
	serve           // what the tag is known to point to
	ask             // the upstream what it points to, and serve that
	confirm         // by the upstream that it still points there, at no cost, then serve
	serveStale      // what is kept of it, though it could not be confirmed
	forget          // the tag, which the upstream says is gone
	miss            // note that something is wanted of an upstream that must not be asked
)

// situation is what the next step is decided from.
type situation struct {
	known     bool // the tag was seen before
	fresh     bool // and confirmed within its time to live
	kept      bool // what it points to is here
	unfetched bool // a HEAD would name what could not be fetched lately
	tooOld    bool // it was confirmed too long ago to stand in for a failure
	low       bool // little is left of the upstream's budget
	offline   bool // the upstream must not be asked
	dropsGone bool // tags that are gone upstream are forgotten

	taken      uint8 // the steps before, a bit each
	last       step  // the one before this; fail at the beginning
	err        error // why that brought nothing; nil if it went well
	clientLeft bool
}

// next decides. No step is taken twice, so that there is always an end.
func (s situation) next() step {
	if s.taken&(1<<forget|1<<miss) != 0 || s.clientLeft && s.last != fail {
		return fail
	}
	next := fail
	switch s.last {
	case fail:
		next = s.first()
	case serve:
		next = s.afterServe()
	case confirm:
		if next = s.standIn(); s.err == nil {
			next = s.serveKnown()
		} else if errors.Is(s.err, errLow) {
			next = serveStale
		}
	case ask:
		next = s.standIn()
	case serveStale:
		if s.err != nil && s.taken&^(1<<serveStale|1<<confirm) == 0 {
			next = serve // there was nothing better: what it points to is tried all the same
		}
	}
	if s.taken&(1<<next) != 0 {
		return fail
	}
	return next
}

func (s situation) first() step {
	switch {
	case !s.known && s.offline:
		return miss
	case !s.known:
		return ask
	case s.offline, s.fresh:
		return s.serveKnown()
	case s.low && s.kept:
		return confirm
	}
	return ask
}

// serveKnown serves what needs no confirmation. A HEAD must not name what a GET will not get.
func (s situation) serveKnown() step {
	if s.unfetched {
		return serveStale
	}
	return serve
}

// afterServe decides how to go on when what the tag points to cannot be had.
func (s situation) afterServe() step {
	switch {
	case s.offline:
		return fail
	case pull.KindOf(s.err) == pull.NotFound:
		return ask // it went away upstream before it was fetched
	case pull.Failing(s.err):
		return serveStale // what the tag pointed to before is better than nothing
	}
	return fail
}

// standIn decides what becomes of a failure to ask: the upstream fails, takes too long or
// knows no such request, or says that a tag is gone, which is kept unless told otherwise. A
// refusal of access is passed on.
func (s situation) standIn() step {
	kind := pull.KindOf(s.err)
	switch {
	case !s.known:
		return fail
	case pull.DetailOf(s.err) == pull.HeadOnly:
		return serveStale // to be believed it would take a GET
	case kind == pull.NotFound && s.dropsGone && pull.DetailOf(s.err) != pull.OfLogin:
		return forget
	case kind == pull.NotFound:
		return serveStale
	case s.tooOld, kind == pull.Denied:
		return fail
	}
	return serveStale
}
