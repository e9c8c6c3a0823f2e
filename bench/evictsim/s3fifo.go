package main

// s3fifo is S3-FIFO (Yang et al., SOSP 2023) by bytes: what is new goes through a small
// queue, what was used there or was dropped lately goes to the main one, and what is used
// in that gets another round.
type s3fifo struct {
	room               *room
	small, main, ghost *list
	uses               uses
	inGhost            []bool
	inMain             []bool
}

// Shares of the capacity that S3-FIFO's queues have.
const (
	s3Small = 0.10
	s3Ghost = 0.90
)

// s3Uses is up to how many uses S3-FIFO counts.
const s3Uses = 3

func newS3FIFO(r *room) policy {
	cells, n := newLinks(r.t), len(r.t.objects)
	return &s3fifo{
		room: r, small: newList(r, cells), main: newList(r, cells), ghost: newList(r, newLinks(r.t)),
		uses: newUses(r, s3Uses), inGhost: make([]bool, n), inMain: make([]bool, n),
	}
}

func (s *s3fifo) add(o int32) {
	s.uses.reset(o)
	if s.inMain[o] = s.inGhost[o]; s.inMain[o] {
		s.inGhost[o] = false
		s.ghost.remove(o)
		s.main.push(o)
		return
	}
	s.small.push(o)
}

func (s *s3fifo) use(o int32)   { s.uses.count(o) }
func (s *s3fifo) refer(o int32) { s.uses.refer(o) }

func (s *s3fifo) victim() int32 {
	for {
		if s.small.n > 0 && s.small.bytes > int64(s3Small*float64(s.room.capacity)) || s.main.n == 0 {
			o := s.small.pop()
			if s.uses.n[o] == 0 {
				s.remember(o)
				return o
			}
			s.uses.n[o] = 0
			s.inMain[o] = true
			s.main.push(o)
			continue
		}
		o := s.main.pop()
		if s.uses.n[o] == 0 {
			return o
		}
		s.uses.n[o]--
		s.main.push(o)
	}
}

// remember keeps the names of as much dropped content as would fill the main queue.
func (s *s3fifo) remember(o int32) {
	s.inGhost[o] = true
	s.ghost.push(o)
	for s.ghost.bytes > int64(s3Ghost*float64(s.room.capacity)) {
		s.inGhost[s.ghost.pop()] = false
	}
}

// clock gives what was used another round.
type clock struct {
	*list
	uses uses
}

func newClock(r *room) policy {
	return &clock{list: newList(r, newLinks(r.t)), uses: newUses(r, s3Uses)}
}

func (c *clock) add(o int32) { c.uses.reset(o); c.push(o) }
func (c *clock) use(o int32) { c.uses.count(o) }

// refer lets no index outlive the manifests that it lists.
func (c *clock) refer(o int32) {
	if isManifest(c.room.t.objects[o]) {
		c.uses.count(o)
	} else {
		c.uses.refer(o)
	}
}

func (c *clock) victim() int32 {
	for {
		o := c.pop()
		if c.uses.n[o] == 0 {
			return o
		}
		c.uses.n[o]--
		c.push(o)
	}
}

// uses are counted up to a number, and not twice within some minutes.
type uses struct {
	room *room
	most uint8
	n    []uint8
	at   []uint32
}

// usesApart is how many minutes lie between two uses that count. The requests of one
// pull come within it, and those of one roll-out.
const usesApart = 10

// refersApart is after how many minutes a reference renews the time of the last use.
const refersApart = 24 * 60

func newUses(r *room, most uint8) uses {
	return uses{room: r, most: most, n: make([]uint8, len(r.t.objects)), at: make([]uint32, len(r.t.objects))}
}

func (u *uses) reset(o int32) { u.n[o], u.at[o] = 0, u.room.minute }

func (u *uses) count(o int32) {
	if u.room.minute >= u.at[o]+usesApart {
		u.at[o] = u.room.minute
		u.n[o] = min(u.n[o]+1, u.most)
	}
}

// refer counts references as one use, however many there are.
func (u *uses) refer(o int32) {
	switch {
	case u.n[o] == 0:
		u.count(o)
	case u.room.minute >= u.at[o]+refersApart:
		u.at[o] = u.room.minute
	}
}
