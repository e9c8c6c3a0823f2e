package adminclient

import (
	"encoding/json"
	"fmt"

	"forebay/internal/fleet"
	"forebay/internal/terminal"
)

// tellMirrors says on standard error which mirrors of a fleet have no part in an answer for all of them.
func (c *Client) tellMirrors(answer []byte) {
	var told struct {
		Mirrors []fleet.Answered `json:"mirrors"`
	}
	if json.Unmarshal(answer, &told) != nil {
		return // of a list, or of content
	}
	for _, m := range told.Mirrors {
		later := ""
		if m.Later {
			later = ". It does this when it is back"
		}
		if !m.OK {
			_, _ = fmt.Fprintf(c.Stderr, "mirror %s: %s%s\n", terminal.Printable(m.Name), terminal.Printable(m.Error), later)
		}
	}
}
