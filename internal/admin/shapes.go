package admin

// What the API answers and is asked stands in the files shapes_*.go, each type with the
// name that its schema has in openapi.json, which a test compares. None of it is a type
// of the core, so that a name that changes there changes nothing for who asks us: where the
// fields are the same Go converts, and stops compiling when they are no longer; where they
// are not, or have lists of others, they are written out.

// Fault is the body of every answer that is an error.
type Fault struct {
	Error FaultDetail `json:"error"`
}

// FaultDetail says what went wrong.
type FaultDetail struct {
	Code    string `json:"code"`    // for programs: "not_kept"
	Message string `json:"message"` // for people
}

// each converts a list. nil stays nil: JSON tells it from an empty list.
func each[From, To any](list []From, convert func(From) To) []To {
	if list == nil {
		return nil
	}
	out := make([]To, len(list))
	for i, one := range list {
		out[i] = convert(one)
	}
	return out
}
