package admin

import "time"

// glance gathers a Status.
func (a *API) glance() (*Status, error) {
	stats, err := a.keeper.Stats()
	if err != nil {
		return nil, err
	}
	s := &Status{
		Troubles: orNone(a.trouble.List()), Version: a.version, Name: a.name, Address: a.address, StartedAt: a.started, UptimeSeconds: int64(time.Since(a.started).Seconds()),
		Stats: stats, Upstreams: []Upstream{}, Fills: a.keeper.Cache.Fills().List(), Jobs: []Job{}, Usage: a.activity.Usage(a.price, a.currency),
	}
	for _, u := range a.keeper.Cache.Upstreams() {
		one := Upstream{Name: u.Name, State: string(a.trouble.State(u)), LastAsked: u.LastAsked, Sparing: u.Sparing}
		if a.upstream != nil {
			one.RegistryStatus = a.upstream(u.Name)
		}
		one.fillIn()
		s.Upstreams = append(s.Upstreams, one)
	}
	for _, j := range a.jobs.all() {
		if j.State == Running {
			s.Jobs = append(s.Jobs, j)
		}
	}
	return s, nil
}

// fillIn makes lists that are not there empty ones.
func (s *RegistryStatus) fillIn() {
	if s.Budgets == nil {
		s.Budgets = []Budget{}
	}
	for i := range s.Budgets {
		b := &s.Budgets[i]
		b.Spent, b.SpentByClient, b.SpentByRepository = orNone(b.Spent), orNone(b.SpentByClient), orNone(b.SpentByRepository)
	}
	if s.Endpoints == nil {
		s.Endpoints = []Endpoint{}
	}
	if s.Limited == nil {
		s.Limited = map[string]int64{}
	}
}

func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (a *API) stats() (Stats, error) {
	stats, err := a.keeper.Stats()
	return stats, err
}
