package fleet

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"forebay/internal/fleet/answers"
)

const (
	// purgesPath is where purges begin that can be taken back for a while.
	purgesPath = "/purges"
	// jobEvery is how often we look whether such a one was taken back.
	jobEvery = 250 * time.Millisecond
)

// dryRun reports whether what is asked for only says what would be done.
func dryRun(body []byte) bool {
	var in struct {
		DryRun bool `json:"dry_run"`
	}
	return json.Unmarshal(body, &in) == nil && in.DryRun
}

// purgeLater begins purges that wait, at this mirror, or at the first one that has what is to go. The others
// purge when it has: until then it is one job that can be taken back, wherever somebody asks for that.
func (o *Operators) purgeLater(w http.ResponseWriter, r *http.Request) {
	body, mine := o.purgeHere(r)
	if mine.status != http.StatusNotFound {
		mine.write(w)
		return
	}
	ask := errand{method: r.Method, path: r.URL.RequestURI(), body: body, bound: readMost}
	ask.name, ask.role = o.o.Who(r)
	for _, a := range o.others() {
		if a.err != nil {
			continue
		}
		if o.askOne(r.Context(), ask, a); !a.ok() {
			continue
		}
		if v, err := answers.Decode(a.body.Bytes()); err == nil {
			if job, ok := v.(map[string]any); ok {
				id, _ := job["id"].(string)
				job["id"] = id + "@" + a.name
				send(w, a.status, job)
				return
			}
		}
	}
	mine.write(w)
}

// purgeHere begins purges at this mirror, and has the others follow.
func (o *Operators) purgeHere(r *http.Request) ([]byte, *reply) {
	body, err := io.ReadAll(io.LimitReader(r.Body, bodyMost))
	if err != nil {
		return nil, &reply{status: http.StatusBadRequest}
	}
	a := o.here(r, io.MultiReader(bytes.NewReader(body), r.Body))
	var job struct {
		ID string `json:"id"`
	}
	var in struct {
		Targets []string `json:"targets"`
		Force   bool     `json:"force"`
	}
	if a.ok() && o.life.Err() == nil && json.Unmarshal(a.body.Bytes(), &job) == nil && json.Unmarshal(body, &in) == nil {
		who, role := o.o.Who(r)
		o.work.Go(func() {
			if !o.purgedBy(job.ID, who, role) {
				return
			}
			for _, target := range in.Targets {
				text, err := json.Marshal(map[string]any{"target": target, "force": in.Force})
				if err != nil {
					panic("fleet: " + err.Error()) // it is texts
				}
				e := errand{method: http.MethodPost, path: apiPrefix + "/purge", body: text, name: who, role: role, bound: changeMost}
				if e.operation = o.newOperation(e); e.operation != nil {
					o.keep(o.life, e.operation)
				}
				o.ask(o.life, e)
			}
		})
	}
	return body, a
}

// purgedBy waits for the end of a job, and reports whether it was not taken back.
func (o *Operators) purgedBy(id, who, role string) bool {
	tick := time.NewTicker(jobEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-o.life.Done():
			return false
		}
		r, err := http.NewRequestWithContext(o.life, http.MethodGet, apiPrefix+"/jobs/"+id, nil)
		if err != nil {
			return false
		}
		a := o.here(o.o.As(r, who, role), http.NoBody)
		var job struct {
			State string `json:"state"`
		}
		if !a.ok() || json.Unmarshal(a.body.Bytes(), &job) != nil {
			return false // it is so old that it is forgotten
		}
		switch job.State {
		case "running":
		case "cancelled":
			return false
		default:
			return true
		}
	}
}
