package prefetch

import (
	"time"

	"forebay/internal/statefile"
)

// LastRun is one run of a set.
type LastRun struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	By      string    `json:"by" enum:"schedule,operator"`
	Outcome string    `json:"outcome" enum:"done,partial,failed,limited,cancelled"`
	Error   string    `json:"error,omitempty"`

	Images    int     `json:"images"`
	Pulls     int64   `json:"pulls"`
	Fetched   int64   `json:"fetched"`
	Bytes     int64   `json:"bytes"`
	KeptBytes int64   `json:"kept_bytes"`
	Faulty    []Image `json:"faulty,omitempty"` // those with which something went wrong, at most 50
}

const (
	runsKept   = 10
	faultyKept = 50
)

// state is what is kept over restarts, in one file.
type state struct {
	Sets map[string]*setState `json:"sets"`
}

// setState is what is kept of one set.
type setState struct {
	Runs   []LastRun `json:"runs"`             // the latest first
	Pinned []string  `json:"pinned,omitempty"` // images that the set has pinned
}

// stateMost bounds the file: ten runs with fifty faulty images have some 500 KB a set.
const stateMost = 256 << 20

// readState reads the file. One that is not there is empty, and one that is damaged too,
// with an error: it holds nothing that does not come again.
func readState(name string) (state, error) {
	s := state{Sets: map[string]*setState{}}
	err := statefile.Read(name, stateMost, &s)
	if err != nil || s.Sets == nil {
		return state{Sets: map[string]*setState{}}, err
	}
	for set, one := range s.Sets {
		if one == nil {
			delete(s.Sets, set)
		}
	}
	return s, nil
}

// write replaces the file as a whole.
func (s state) write(name string) error { return statefile.Write(name, s) }
