package admin

// What the API answers and is asked stands in the files shapes_*.go, each type with the
// name that its schema has in openapi.json; a test compares them field by field. None of it
// is a type of the core, so that a name that changes there changes nothing for who asks us:
// where the fields are the same Go converts, and stops compiling when they are no longer;
// where they are not, or have lists of others, they are written out. Two answers are formats
// of files that a command takes, and stand where those are read: [imageset.LockFile] and
// [imageset.WantedList]. What is remembered of requests is remembered for this API alone, and has
// its shapes: see [activity].

// Fault is the body of every answer that is an error.
type Fault struct {
	Error FaultDetail `json:"error"`
}

// FaultDetail says what went wrong.
type FaultDetail struct {
	Code    string `json:"code"`    // for programs: "not_kept"
	Message string `json:"message"` // for people
}

// each converts a list. It never returns nil, which would be null in JSON, and openapi.json
// promises an array.
func each[From, To any](list []From, convert func(From) To) []To {
	out := make([]To, len(list))
	for i, one := range list {
		out[i] = convert(one)
	}
	return out
}
