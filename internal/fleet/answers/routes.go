// Package answers makes one answer of those that several mirrors gave to the same question to the admin API.
//
// It promises that no figure is counted twice or left out, and no item of a list lost between two parts of
// it. It works on JSON: fields that it does not know are taken from the mirror that was asked, or added up
// where their place says that figures are.
package answers

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Route says how answers of several mirrors become one.
type Route struct {
	Changes bool // it asks for a change, which takes its time
	Kept    bool // mirrors that are away do it when they are back
	merge   rule
	// lists are the fields whose items get the name of their mirror.
	lists []string
	// prepare changes the parameters for all mirrors; nil leaves them.
	prepare func(url.Values)
}

// stamp writes the name of the mirror into the items of lists. IDs of jobs are one mirror's, and get it, too.
func (r Route) stamp(v any, name string) any {
	fields, _ := v.(map[string]any)
	for _, field := range r.lists {
		list, _ := fields[field].([]any)
		for _, one := range list {
			if item, ok := one.(map[string]any); ok {
				item["mirror"] = name
				if id, ok := item["id"].(string); ok && field == "jobs" {
					item["id"] = id + "@" + name
				}
			}
		}
	}
	return v
}

// Prepare changes parameters into those that all mirrors understand.
func (r Route) Prepare(q url.Values) {
	if r.prepare != nil {
		r.prepare(q)
	}
}

// One makes one answer of several, each with the name of its mirror. What is no object counts for nothing.
func (r Route) One(names []string, values []any) map[string]any {
	var all []any
	for i, v := range values {
		if _, ok := v.(map[string]any); ok {
			all = append(all, r.stamp(v, names[i]))
		}
	}
	if len(all) == 0 {
		return map[string]any{}
	}
	out, _ := r.merge(all).(map[string]any)
	return out
}

// Of returns how a request to the admin API is answered by all mirrors; path begins behind its prefix. What is
// not in the table is answered by the mirror that is asked, for itself.
func Of(method, path string) (Route, bool) {
	r, ok := routes()[method+" "+path]
	switch {
	case ok:
	case strings.HasPrefix(path, "/snapshots/") && (method == http.MethodDelete || method == http.MethodPost && strings.HasSuffix(path, "/promote")):
		return Route{merge: first, Changes: true, Kept: true}, true
	case strings.HasPrefix(path, "/fills/") && method == http.MethodDelete:
		return Route{merge: first, Changes: true}, true
	}
	return r, ok
}

func routes() map[string]Route {
	usage := func(all []any) any {
		return ratios(object(map[string]rule{"since": least, "price_per_gib": first, "hit_ratio": first, "byte_ratio": first}, total)(all))
	}
	bucket := object(map[string]rule{"objects": most, "object_bytes": most, "max_bytes": most, "survey": first, "calls": items([]string{"operation", "outcome"}, object(map[string]rule{"within": first}, total)), "refs_behind_since": least}, total)
	stats := object(map[string]rule{"repositories": most, "tags": most, "links": most, "evicted_idle_seconds": most, "scrub": first, "bucket": bucket}, total)
	upstream := object(map[string]rule{
		"state": worst("unknown", "offline", "answers", "degraded", "limited", "fails"), "last_asked": most,
		"budgets": items([]string{"host", "credential"}, budget), "endpoints": items([]string{"url"}, object(map[string]rule{"failures": most, "open": anyTrue, "next_probe": most, "paused_until": most}, first)),
	}, total)
	status := object(map[string]rule{
		"troubles":   items([]string{"id"}, object(map[string]rule{"mirror": names, "since": least}, first)),
		"started_at": least, "uptime_seconds": most, "stats": stats, "usage": usage,
		"upstreams": items([]string{"name"}, upstream), "fills": items(nil, first), "jobs": items(nil, first, "-started"),
	}, first)
	used := []string{"upstream", "repository"}
	use := object(map[string]rule{"last_seen": most}, total)
	client := object(map[string]rule{"last_seen": most, "since": least, "error_at": most, "repositories": items(used, use, "-bytes")}, total)
	image := object(map[string]rule{"mirror": names, "checked_at": most, "used_at": most, "changed_at": least, "kept_bytes": most, "missing_bytes": least, "state": worst("unknown", "incomplete", "complete"), "pinned": anyTrue}, first)
	listOf := func(field string, list rule) rule { return object(map[string]rule{field: list}, first) }
	decision := Route{merge: first, Changes: true, Kept: true}
	return map[string]Route{
		"GET /status":       {merge: status, lists: []string{"troubles", "fills", "jobs"}},
		"GET /stats":        {merge: stats},
		"GET /series":       {merge: slots(map[string]rule{"budgets": leastKnown, "hit_p50_us": most, "hit_p95_us": most, "miss_p50_us": most, "miss_p95_us": most, "p50_us": most, "p95_us": most})},
		"GET /clients":      {merge: object(map[string]rule{"since": least, "clients": items([]string{"address"}, client, "-bytes"), "repositories": items(used, use, "-bytes")}, first)},
		"GET /events":       {merge: events, lists: []string{"events"}, prepare: untilTime},
		"GET /repositories": {merge: pages("repositories", items(used, object(nil, most)))},
		"GET /images":       {merge: pages("images", items([]string{"upstream", "repository", "tag", "digest"}, image)), lists: []string{"images"}},
		"GET /image":        {merge: first},
		"GET /history":      {merge: listOf("bindings", items([]string{"digest"}, object(map[string]rule{"first_seen": least, "last_seen": most, "kept": anyTrue}, first), "-last_seen"))},
		"GET /pins": {merge: object(map[string]rule{
			"pins":  items([]string{"ref"}, object(map[string]rule{"mirror": names, "at": least, "missing_bytes": most}, first), "ref"),
			"bytes": most, "limit_bytes": least,
		}, first), lists: []string{"pins"}},
		"GET /wanted":   {merge: listOf("wanted", items([]string{"ref"}, object(map[string]rule{"first": least, "last": most}, total), "ref"))},
		"GET /vanished": {merge: listOf("vanished", items([]string{"ref"}, object(map[string]rule{"since": least, "last": most, "asked": add, "served": anyTrue}, first), "ref"))},
		"GET /jobs":     {merge: listOf("jobs", items(nil, first, "-started")), lists: []string{"jobs"}},
		"GET /replicas": {merge: listOf("replicas", items([]string{"id"}, first, "name"))},

		"POST /purge":        {merge: total, Changes: true, Kept: true},
		"POST /pins":         decision,
		"DELETE /pins":       decision,
		"POST /promotions":   decision,
		"DELETE /promotions": decision,
		"POST /freezes":      decision,
		"DELETE /freezes":    decision,
		"POST /snapshots":    decision,
		"DELETE /vanished":   decision,
		// What is only for those that are there.
		"POST /refresh":  {merge: first, Changes: true},
		"DELETE /wanted": {merge: total, Changes: true},
		"POST /drill":    {merge: first, Changes: true},
		"DELETE /drill":  {merge: first, Changes: true},
	}
}

// leastKnown is the least number that is known: a registry counts for all mirrors, and who heard last heard
// the least.
func leastKnown(all []any) any {
	var known []any
	for _, v := range all {
		if n, ok := v.(json.Number); ok && !strings.HasPrefix(n.String(), "-") {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return all[0]
	}
	return least(known)
}

// untilTime makes of where a list of events of the fleet goes on, which is a time in microseconds, what each
// mirror understands: its own numbers mean nothing to others.
func untilTime(q url.Values) {
	if us, err := strconv.ParseInt(q.Get("before"), 10, 64); err == nil && us > 0 {
		q.Del("before")
		q.Set("until", time.UnixMicro(us).UTC().Format(time.RFC3339Nano))
	}
}

// events merges parts of logs by time. What is older than the end of a part of which there is more is left
// for later.
func events(all []any) any {
	end, more := time.Time{}, false
	when := func(v any) time.Time {
		item, _ := v.(map[string]any)
		text, _ := item["at"].(string)
		t, _ := time.Parse(time.RFC3339Nano, text) // else it is the oldest
		return t
	}
	for _, one := range all {
		fields, _ := one.(map[string]any)
		list, _ := fields["events"].([]any)
		if fields["before"] == nil || len(list) == 0 {
			continue
		}
		if t := when(list[len(list)-1]); !more || t.After(end) {
			end, more = t, true
		}
	}
	out, _ := object(map[string]rule{"events": items(nil, first, "-at")}, first)(all).(map[string]any)
	delete(out, "before")
	if !more {
		return out
	}
	list, _ := out["events"].([]any)
	kept := make([]any, 0, len(list))
	for _, v := range list {
		if !when(v).Before(end.Truncate(time.Microsecond)) {
			kept = append(kept, v)
		}
	}
	out["events"], out["before"] = kept, json.Number(strconv.FormatInt(end.UnixMicro(), 10))
	return out
}
