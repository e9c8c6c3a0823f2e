package index

import (
	"context"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"

	"forebay/cache/index/row"
	"forebay/internal/logkey"
)

// compactJournal rewrites the journal from the database if it has grown too far. Updates
// go on meanwhile.
func (ix *Index) compactJournal(ctx context.Context) error {
	if !ix.journal.wasteful(ix.totals.Load().Live) {
		return nil
	}
	ix.mu.Lock() // so that every change is either in the snapshot or in the tail
	txn := ix.db.NewTransaction(false)
	ix.journal.startRewrite()
	want := ix.totals.Load().Totals
	ix.mu.Unlock()
	defer txn.Discard()
	err := ix.journal.rewrite(func(w io.Writer) error { return writeLive(ctx, txn, want, w) })
	if err != nil {
		return err
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.moveMark()
}

// moveMark notes that the database has all lines of the journal. Its caller holds ix.mu or
// is alone. A crash just before it costs a rebuild at the next start, since the mark is of
// another journal then.
func (ix *Index) moveMark() error {
	t := *ix.totals.Load()
	t.Mark = ix.journal.at()
	if err := ix.change(smallChange, func(txn *badger.Txn) error { return txn.Set(row.TotalsKey, t.Encode()) }); err != nil {
		return err
	}
	ix.totals.Store(&t)
	return ix.db.Sync()
}

// catchUp makes the changes that are in the journal and not in the database: a crash, or
// a loss of power, came between. No Update runs yet.
func (ix *Index) catchUp(j *journal) error {
	known := ix.totals.Load().Mark
	if j.run == 0 {
		j.spoil() // its header is damaged: Run writes it anew
	}
	switch {
	case known.Run == 0:
		// The database is new: it holds the journal already, or the journal is empty.
	case j.run != known.Run && j.at().Off > int64(len(header(0))):
		return fmt.Errorf("%w: the journal is not the one it knows", ErrDamaged)
	case j.run != known.Run || j.at().Off < known.Off:
		j.spoil() // lost, or its end is: Run writes it anew from the database
	default:
		bad, err := j.since(known.Off, func(e entry) error { return ix.Update(e.change) })
		if err != nil {
			return err
		}
		if bad > 0 {
			ix.log.Warn("journal lines lost", logkey.Path(j.path), logkey.Count(bad))
		}
	}
	return nil
}

// change is what a line says, as a change.
func (e entry) change(b *Batch) error {
	switch {
	case e.pin.Ref != "" && e.remove:
		return b.DeletePin(e.pin.Repo, e.pin.Ref)
	case e.pin.Ref != "":
		return b.PutPin(e.pin)
	case e.tag != "" && e.remove:
		return b.DeleteTag(e.repo, e.tag)
	case e.tag != "":
		return b.PutTag(e.repo, e.tag, Tag{Desc: e.desc, CheckedAt: e.at})
	case e.remove:
		return b.DeleteLink(e.repo, e.kind, e.desc.Digest)
	default:
		l := Link{MediaType: string(e.desc.MediaType), Size: e.desc.Size, At: e.at}
		return b.PutLink(e.repo, e.kind, e.desc.Digest, l)
	}
}

// writeLive writes a line for every link, tag and pin. The database passes over damaged blocks
// without a word; when something cannot be read or is missing, the old journal, which may
// still know it, is kept.
func writeLive(ctx context.Context, txn *badger.Txn, want Totals, w io.Writer) error {
	links, err := writeLinks(ctx, txn, w)
	if err != nil {
		return damaged("links", err)
	}
	tags, err := writeTags(ctx, txn, w)
	if err != nil {
		return damaged("tags", err)
	}
	if links != want.Links || tags != want.Tags {
		return fmt.Errorf("%w: it has %d links and %d tags, want %d and %d", ErrDamaged, links, tags, want.Links, want.Tags)
	}
	return scanPins(txn, func(p Pin) error {
		_, err := w.Write(pinLine(p))
		return err
	})
}

func writeLinks(ctx context.Context, txn *badger.Txn, w io.Writer) (n int64, err error) {
	err = scan(txn, []byte{row.PrefixLink}, nil, func(key, v []byte) error {
		r, rest, err := row.CutRepo(key[1:])
		if err != nil {
			return err
		}
		if len(rest) == 0 {
			return row.ErrRecord
		}
		d, _, err := row.CutDigest(rest[1:])
		if err != nil {
			return err
		}
		l, err := row.DecodeLink(v)
		if err != nil {
			return err
		}
		n++
		if _, err := w.Write(linkLine(r, Kind(rest[0]), d, l)); err != nil {
			return err
		}
		return ctx.Err()
	})
	return n, err
}

func writeTags(ctx context.Context, txn *badger.Txn, w io.Writer) (n int64, err error) {
	err = scan(txn, []byte{row.PrefixTag}, nil, func(key, v []byte) error {
		r, tag, err := row.CutRepo(key[1:])
		if err != nil {
			return err
		}
		t, err := row.DecodeTag(v)
		if err != nil {
			return err
		}
		n++
		if _, err := w.Write(tagLine(r, string(tag), t)); err != nil {
			return err
		}
		return ctx.Err()
	})
	return n, err
}
