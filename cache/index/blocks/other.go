//go:build !linux

package blocks

import (
	"errors"

	"go.uber.org/zap"
)

// Backing is of Linux only: elsewhere no database is opened, and nothing but [Open] is called.
type Backing struct{}

func Open(string, *zap.Logger) (*Backing, error) { return nil, errors.ErrUnsupported }

func Room(string, int64) error { return errors.ErrUnsupported }

func Full(error) bool { return false }

func (*Backing) Close() error        { return nil }
func (*Backing) Prepare(int64) error { return errors.ErrUnsupported }
func (*Backing) Stalled() error      { return nil }
func (*Backing) Refusal() error      { return nil }
