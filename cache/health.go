package cache

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"forebay/cache/index"
	"forebay/internal/logkey"
)

// causeOf names what an error says of the disk, "" for one that says nothing of it.
func causeOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "full"
	case errors.Is(err, syscall.EROFS):
		return "read-only"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO),
		errors.Is(err, syscall.EUCLEAN), errors.Is(err, syscall.EBADMSG): // ext4 and xfs say so of damaged metadata
		return "broken"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "descriptors"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOMEM), errors.Is(err, index.ErrUnwritable):
		return "other"
	}
	return ""
}

// Ailing returns what is wrong with the disk now, or nil.
func (c *Cache) Ailing() error {
	var all []error
	for _, t := range c.Troubles() {
		all = append(all, fmt.Errorf("%s: %s: %s", t.What, t.Cause, t.Why))
	}
	return errors.Join(all...)
}

// probeEvery is how often a disk that failed is tried again.
const probeEvery = 5 * time.Second

// heal tries what failed until ctx is done.
func (c *Cache) heal(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.probe()
		}
	}
}

// probe tries what failed, and has the index catch up when it can be written again.
// Reading is found to work by whoever reads next.
func (c *Cache) probe() {
	if c.writes.broken.Load() {
		err := c.disk.Probe()
		if err == nil && c.space.excess() > 0 {
			err = ErrNoRoom
		}
		c.storeUsed(&c.writes, err)
	}
	if !c.records.broken.Load() {
		return
	}
	err := c.index.Probe()
	if err == nil {
		// What was evicted, purged or committed meanwhile may not have been recorded.
		var added, dropped int
		added, dropped, err = c.index.Reconcile(c.ctx, c.disk)
		c.log.Info("index compared with the store", logkey.Count(added+dropped), logkey.Err(err))
	}
	c.storeUsed(&c.records, err)
}

// update changes the index and notes whether its disk lets it.
func (c *Cache) update(fn func(*index.Batch) error) error {
	err := c.index.Update(fn)
	if err == nil || causeOf(err) != "" {
		c.storeUsed(&c.records, err)
	}
	return err
}

// record is update for what a client is waiting for: that it cannot be recorded is no
// reason not to answer.
func (c *Cache) record(fn func(*index.Batch) error) error {
	if err := c.update(fn); causeOf(err) == "" {
		return err
	}
	return nil
}
