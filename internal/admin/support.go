package admin

import "net/http"

// Support is what somebody needs who is to help from afar, beside what the rest of the API
// tells. It has names of images and addresses of clients, and nothing that lets in.
type Support struct {
	Version    string   `json:"version"`
	Config     string   `json:"config"`     // YAML in effect, passwords masked
	Metrics    string   `json:"metrics"`    // as Prometheus reads them
	Goroutines string   `json:"goroutines"` // stacks of what runs
	Log        []string `json:"log"`        // the latest lines, the oldest first
}

func (a *API) support(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if a.helped == nil {
		return &problem{http.StatusNotFound, "no_route", "a folder that no mirror uses has nothing to tell"}
	}
	s, err := a.helped()
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, s)
	return nil
}
