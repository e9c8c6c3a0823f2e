package authn

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"

	"forebay/internal/reread"
)

// fileMost bounds a file of passwords or tokens.
const fileMost = 8 << 20

// newFile reads a file by parse, and again when it changes.
func newFile[T any](name string, parse func([]byte) (T, error), log *zap.Logger) (*reread.Files[T], error) {
	return reread.New("file of credentials", log, func() (content T, err error) {
		in, err := os.Open(name)
		if err != nil {
			return content, err
		}
		defer func() { _ = in.Close() }() // nothing was written
		text, err := io.ReadAll(io.LimitReader(in, fileMost+1))
		if err != nil {
			return content, err
		}
		if len(text) > fileMost {
			return content, fmt.Errorf("%q is larger than %d MiB", name, fileMost>>20)
		}
		if content, err = parse(text); err != nil {
			return content, fmt.Errorf("%q: %w", name, err)
		}
		return content, nil
	}, name)
}
