package admin

import (
	"net/http"

	"forebay/internal/govern"
)

// policyRoutes are those about the policy.
func (a *API) policyRoutes() (all []route) {
	for _, r := range govern.Routes() {
		need := Read
		if r.Changes {
			need = Operate
		}
		all = append(all, route{r.Method, r.Path, need, func(w http.ResponseWriter, q *http.Request) error { return a.govern(w, q, r) }})
	}
	return all
}

// govern answers a request about the policy.
func (a *API) govern(w http.ResponseWriter, r *http.Request, to govern.Route) error {
	values, err := query(r, to.Query...)
	if err != nil {
		return err
	}
	if a.rules == nil {
		return &problem{http.StatusNotFound, "no_policy", "there is no policy here"}
	}
	_, v := visiting(r)
	ctx, cancel := a.changing(r, askTimeout)
	defer cancel()
	answer, err := to.Handle(ctx, a.rules, govern.Call{
		Who: v.who.Name, Query: func(name string) string { return values[name] }, Path: r.PathValue, Decode: func(to any) error { return decode(r, to) },
		Ref: a.reference,
	})
	switch {
	case err != nil:
	case to.Answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		reply(w, to.Status(), answer)
	}
	return err
}
