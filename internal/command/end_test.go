package command

import (
	"errors"
	"fmt"
	"testing"

	"forebay/config"
)

func TestACommandEndsAsItsErrorSays(t *testing.T) {
	err := errors.New("it is so")
	two := config.Faults{{Key: "listen", Problem: "is wrong"}, {Key: "http2", Problem: "is wrong"}}
	for name, tt := range map[string]struct {
		err  error
		code int
		text string
	}{
		"any":             {err, ExitFailed, "forebay: it is so"},
		"usage":           {fmt.Errorf("--x: %w", Usage(err)), ExitUsage, "forebay: --x: it is so"},
		"with a hint":     {Hint(Usage(err), "Change it."), ExitUsage, "forebay: it is so\nChange it."},
		"code of its own": {Exit(ExitLimited, Hint(Usage(err), "Wait.")), ExitLimited, "forebay: it is so\nWait."},
		"faults":          {two, ExitUsage, "forebay: the configuration has 2 faults:\n" + two.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ExitCode(tt.err); got != tt.code {
				t.Errorf("ExitCode(%v) = %d, want %d", tt.err, got, tt.code)
			}
			if got := Explain(tt.err); got != tt.text {
				t.Errorf("Explain(%v) = %q, want %q", tt.err, got, tt.text)
			}
		})
	}
	if got := ExitCode(nil); got != ExitOK {
		t.Errorf("ExitCode(nil) = %d, want %d", got, ExitOK)
	}
}
