package rules

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"forebay/cache/index"
	"forebay/cache/policy"
	"forebay/internal/logkey"
)

const (
	listBytes = 512 << 10 // what a list may have, and the index keeps of it
	listTerms = 20_000
	fetchTime = 10 * time.Second
	// listNote is what the index calls the last content of a list.
	listNote = "policy list "
)

// termList is a list of terms from a file or a URL.
type termList struct {
	from  string
	text  []byte // that was read last
	terms []policy.Term
	err   error // why it could not be read last
}

// openList reads a list as it was known last. A file is read at once.
func (r *Rules) openList(from string) *termList {
	l := &termList{from: from}
	if text, known, err := r.store.Index.Note(listNote + from); known && err == nil {
		_ = l.take(text) // it was usable
	}
	if !strings.Contains(from, "://") {
		text, err := r.readList(context.Background(), from)
		r.learn(l, text, err)
	}
	return l
}

// learn takes in what a list says now, and reports whether that is news. It is kept for a start at which the list
// cannot be read. r.mu is held.
func (r *Rules) learn(l *termList, text []byte, err error) (news bool) {
	if err == nil && !bytes.Equal(text, l.text) {
		if err = l.take(text); err == nil {
			news = true
			err = r.store.Update(func(b *index.Batch) error { return b.PutNote(listNote+l.from, text) })
		}
	}
	if err != nil && l.err == nil {
		r.log.Error("list of a policy cannot be read: what it said last counts", logkey.Path(l.from), logkey.Err(err))
	}
	l.err = err
	return news
}

// take reads the terms of a text; with an error those from before stay.
func (l *termList) take(text []byte) error {
	var terms []policy.Term
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	lines.Buffer(nil, listBytes)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		t, err := policy.ParseTerm(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if terms = append(terms, t); len(terms) > listTerms {
			return fmt.Errorf("it has more than %d terms", listTerms)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	l.text, l.terms = text, terms
	return nil
}

// readList returns the content of a list.
func (r *Rules) readList(ctx context.Context, from string) ([]byte, error) {
	var in io.ReadCloser
	if strings.Contains(from, "://") {
		if r.opts.Client == nil {
			return nil, errors.New("lists are not fetched here")
		}
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
		if err != nil {
			return nil, err
		}
		a, err := r.opts.Client.Do(q)
		if err != nil {
			return nil, err
		}
		if in = a.Body; a.StatusCode != http.StatusOK {
			return nil, errors.Join(fmt.Errorf("it answers %s", a.Status), in.Close())
		}
	} else {
		f, err := os.Open(from)
		if err != nil {
			return nil, err
		}
		in = f
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, listBytes+1))
	if err == nil && len(text) > listBytes {
		err = fmt.Errorf("it has more than %d bytes", listBytes)
	}
	return text, err
}

// readLists reads the lists again. When one has changed the policy goes by it.
func (r *Rules) readLists(ctx context.Context) {
	r.mu.Lock()
	var sources []string
	for from := range r.lists {
		sources = append(sources, from)
	}
	r.mu.Unlock()
	for _, from := range sources {
		text, err := r.readList(ctx, from)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		if r.learn(r.lists[from], text, err) {
			if err := r.renew(); err != nil {
				r.log.Error("list of a policy is not used", logkey.Path(from), logkey.Err(err))
			}
		}
		r.mu.Unlock()
	}
}
