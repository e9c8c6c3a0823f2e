package wire

import (
	"fmt"
	"time"
)

// Decision is why a tag has a digest, where an operator promoted it: in bundles, lock files and the
// admin API. It explains, and nothing goes by it.
type Decision struct {
	At        time.Time `json:"at"`
	Reason    string    `json:"reason"`
	By        string    `json:"by,omitempty"`
	Elsewhere bool      `json:"elsewhere,omitempty"` // where the image was imported from
}

// ReasonMost bounds the reason of a decision, in bytes.
const ReasonMost = 1000

// Check returns why it is none. nil is no decision, and that is right.
func (d *Decision) Check() error {
	if d != nil && (len(d.Reason) > ReasonMost || len(d.By) > nameMax) {
		return fmt.Errorf("a decision has a reason of %d bytes by a name of %d: %d and %d are the most", len(d.Reason), len(d.By), ReasonMost, nameMax)
	}
	return nil
}

// String is what people are told of it.
func (d *Decision) String() string {
	s := "promoted"
	if d.Elsewhere {
		s += " elsewhere"
	}
	if d.By != "" {
		s += " by " + d.By
	}
	return s + " on " + d.At.UTC().Format(time.DateOnly) + ": " + d.Reason
}
