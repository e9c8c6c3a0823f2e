package index

import (
	"context"
	"fmt"
	"io"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/journal"
	"forebay/cache/index/row"
	"forebay/internal/logkey"
)

// compactJournal rewrites the journal from the database if it has grown too far. Updates
// go on meanwhile.
func (ix *Index) compactJournal(ctx context.Context) error {
	if !ix.journal.Wasteful(ix.totals.Load().Live) {
		return nil
	}
	ix.mu.Lock() // so that every change is either in the snapshot or in the tail
	txn := ix.db.NewTransaction(false)
	ix.journal.StartRewrite()
	was := ix.totals.Load()
	ix.mu.Unlock()
	defer txn.Discard()
	live := written{}
	err := ix.journal.Rewrite(func(w io.Writer) error {
		live.Writer = w
		return writeLive(ctx, txn, was.Totals, &live)
	})
	if err != nil {
		return err
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	t := *ix.totals.Load()
	t.Live += live.n - was.Live // as it is, whatever an older program counted
	ix.totals.Store(&t)
	return ix.moveMark()
}

// written counts what is written.
type written struct {
	io.Writer
	n int64
}

func (w *written) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.n += int64(n)
	return n, err
}

// moveMark notes that the database has all lines of the journal. Its caller holds ix.mu or
// is alone. A crash just before it costs a rebuild at the next start, since the mark is of
// another journal then.
func (ix *Index) moveMark() error {
	t := *ix.totals.Load()
	t.Mark = ix.journal.At()
	if err := ix.change(smallChange, func(txn *badger.Txn) error { return txn.Set(row.TotalsKey, t.Encode()) }); err != nil {
		return err
	}
	ix.totals.Store(&t)
	return ix.db.Sync()
}

// catchUp makes the changes that are in the journal and not in the database: a crash, or
// a loss of power, came between. No Update runs yet.
func (ix *Index) catchUp(path string, j *journal.Journal) error {
	known := ix.totals.Load().Mark
	if j.At().Run == 0 {
		j.Spoil() // its header is damaged: Run writes it anew
	}
	switch {
	case known.Run == 0:
		// The database is new: it holds the journal already, or the journal is empty.
	case j.At().Run != known.Run && j.At().Off > journal.HeaderSize:
		return fmt.Errorf("%w: the journal is not the one it knows", ErrDamaged)
	case j.At().Run != known.Run || j.At().Off < known.Off:
		j.Spoil() // lost, or its end is: Run writes it anew from the database
	default:
		bad, err := j.Since(known.Off, func(e journal.Entry) error { return ix.Update(func(b *Batch) error { return change(e, b) }) })
		if err != nil {
			return err
		}
		if bad > 0 {
			ix.log.Warn("journal lines lost", logkey.Path(path), logkey.Count(bad))
		}
	}
	return nil
}

// change is what a line says, as a change.
func change(e journal.Entry, b *Batch) error {
	switch {
	case e.Pin.Ref != "" && e.Remove:
		return b.DeletePin(e.Pin.Repo, e.Pin.Ref)
	case e.Pin.Ref != "":
		return b.PutPin(e.Pin)
	case e.Decision.Name != "" && e.Remove:
		return b.Undecide(e.Decision.Name)
	case e.Decision.Name != "":
		return b.Decide(e.Decision)
	case e.Was.Digest != (v1.Hash{}):
		return b.PutWas(e.Repo, e.Tag, e.Was)
	case e.Tag != "" && e.Remove:
		return b.DeleteTag(e.Repo, e.Tag)
	case e.Tag != "":
		return b.PutTag(e.Repo, e.Tag, Tag{Desc: e.Desc, CheckedAt: e.At})
	case e.Remove:
		return b.DeleteLink(e.Repo, e.Kind, e.Desc.Digest)
	default:
		l := Link{MediaType: string(e.Desc.MediaType), Size: e.Desc.Size, At: e.At}
		return b.PutLink(e.Repo, e.Kind, e.Desc.Digest, l)
	}
}

// writeLive writes a line for every link, tag, pin and decision. The database passes over damaged blocks
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
	err = scanPins(txn, func(p Pin) error {
		_, err := w.Write(journal.PinLine(p))
		return err
	})
	if err != nil {
		return err
	}
	return scanDecisions(txn, "", func(d Decision) error {
		_, err := w.Write(journal.DecisionLine(d))
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
		if _, err := w.Write(journal.LinkLine(r, Kind(rest[0]), d, l)); err != nil {
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
		lines := journal.TagLine(r, string(tag), t)
		for _, b := range t.History {
			lines = append(lines, journal.WasLine(r, string(tag), b)...)
		}
		if _, err := w.Write(lines); err != nil {
			return err
		}
		return ctx.Err()
	})
	return n, err
}
