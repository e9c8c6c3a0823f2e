package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"forebay/config"
)

// Exit codes. The help of the root command names them.
const (
	ExitOK     = 0
	ExitFailed = 1 // it was tried and did not work
	ExitUsage  = 2 // the command line or the configuration is wrong: trying again is no use

	ExitPartial = 3 // some of it worked
	ExitLimited = 4 // a registry limits us, or only the reserve of its budget is left
	ExitMoved   = 5 // tags do not point any more to what a lock file says
)

// Usage marks err as of a command line or a configuration that cannot work.
func Usage(err error) error { return usageError{err} }

// Exit gives err an exit code of its own.
func Exit(code int, err error) error { return exitError{code, err} }

// Hint adds to err what to change about it, which [Explain] tells on a line below.
func Hint(err error, hint string) error { return hintError{err, hint} }

type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

type hintError struct {
	err  error
	hint string
}

func (e hintError) Error() string { return e.err.Error() }
func (e hintError) Unwrap() error { return e.err }

// ExitCode returns the code that a command ends with because of err.
func ExitCode(err error) int {
	var exit exitError
	var usage usageError
	var faults config.Faults
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage), errors.As(err, &faults):
		return ExitUsage
	}
	return ExitFailed
}

// Explain returns the text of err for the operator, with what to change if that is known.
func Explain(err error) string {
	var faults config.Faults
	if errors.As(err, &faults) && len(faults) > 1 {
		return fmt.Sprintf("forebay: the configuration has %d faults:\n%s", len(faults), faults.Error())
	}
	text := "forebay: " + err.Error()
	var hint hintError
	if errors.As(err, &hint) {
		text += "\n" + hint.hint
	}
	return text
}

// ExplainJSON is [Explain] for programs.
func ExplainJSON(err error) string {
	text, hint, _ := strings.Cut(strings.TrimPrefix(Explain(err), "forebay: "), "\n")
	b, _ := json.Marshal(map[string]any{"error": map[string]any{"message": text, "hint": hint, "exit_code": ExitCode(err)}}) // texts can
	return string(b)
}
