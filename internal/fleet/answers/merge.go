package answers

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// rule makes one JSON value of those that mirrors gave. There is at least one. Values are as
// [encoding/json] decodes them into any, with [json.Number].
type rule func(all []any) any

// Decode decodes a value without loss of digits.
func Decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// first takes what the mirror says that was asked.
func first(all []any) any { return all[0] }

// add adds numbers, of which the negative ones mean that nothing is known.
func add(all []any) any {
	var whole int64
	var broken float64
	known, exact := false, true
	for _, v := range all {
		n, ok := v.(json.Number)
		if !ok || strings.HasPrefix(n.String(), "-") {
			continue
		}
		known = true
		if i, err := n.Int64(); err == nil {
			whole += i
		} else if f, err := n.Float64(); err == nil {
			broken, exact = broken+f, false
		}
	}
	switch {
	case !known:
		return all[0]
	case exact:
		return json.Number(fmt.Sprint(whole))
	}
	return json.Number(fmt.Sprint(float64(whole) + broken))
}

// compare orders numbers and times; what is neither is equal.
func compare(a, b any) int {
	switch x := a.(type) {
	case json.Number:
		y, _ := b.(json.Number)
		m, _ := x.Float64()
		n, _ := y.Float64()
		return cmp.Compare(m, n)
	case string:
		y, _ := b.(string)
		s, errA := time.Parse(time.RFC3339Nano, x)
		t, errB := time.Parse(time.RFC3339Nano, y)
		if errA == nil && errB == nil {
			return s.Compare(t)
		}
		return strings.Compare(x, y)
	}
	return 0
}

func most(all []any) any  { return slices.MaxFunc(all, compare) }
func least(all []any) any { return slices.MinFunc(all, compare) }

// worst takes the last one in the order that is given.
func worst(order ...string) rule {
	return func(all []any) any {
		return slices.MaxFunc(all, func(a, b any) int {
			x, _ := a.(string)
			y, _ := b.(string)
			return slices.Index(order, x) - slices.Index(order, y)
		})
	}
}

// names lists different texts.
func names(all []any) any {
	var out []string
	for _, v := range all {
		if s, ok := v.(string); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}

func ruleOr(r, rest rule) rule {
	if r != nil {
		return r
	}
	return rest
}

// anyTrue is true if one is.
func anyTrue(all []any) any { return slices.Contains(all, any(true)) }

// total adds up all figures, in whatever objects they are, is true if one is, and else takes what the
// mirror says that was asked.
func total(all []any) any {
	switch all[0].(type) {
	case json.Number:
		return add(all)
	case bool:
		return anyTrue(all)
	case map[string]any:
		return object(nil, total)(all)
	}
	return all[0]
}

// object merges objects field by field: by the rule of its name, else by rest.
func object(fields map[string]rule, rest rule) rule {
	return func(all []any) any {
		values := map[string][]any{}
		for _, one := range all {
			fields, _ := one.(map[string]any)
			for name, v := range fields {
				if v != nil {
					values[name] = append(values[name], v)
				}
			}
		}
		out := map[string]any{}
		for name, list := range values {
			out[name] = ruleOr(fields[name], rest)(list)
		}
		return out
	}
}

// items puts lists together. What has the same values in the fields of key is one thing, merged by same,
// and the fields that are in order before all say what comes first: "-at" the largest. Without a key all
// stay.
func items(key []string, same rule, order ...string) rule {
	return func(all []any) any {
		out, at := []any{}, map[string]int{}
		var alike [][]any
		for _, one := range all {
			list, _ := one.([]any)
			for _, v := range list {
				fields, ok := v.(map[string]any)
				if !ok {
					continue
				}
				id := ""
				for _, name := range key {
					id += fmt.Sprint(fields[name]) + "\x00"
				}
				i, known := at[id]
				if !known || len(key) == 0 {
					i = len(alike)
					at[id], alike = i, append(alike, nil)
				}
				alike[i] = append(alike[i], v)
			}
		}
		for _, list := range alike {
			out = append(out, same(list))
		}
		slices.SortStableFunc(out, func(a, b any) int {
			x, _ := a.(map[string]any)
			y, _ := b.(map[string]any)
			for _, name := range order {
				field, down := strings.CutPrefix(name, "-")
				n := compare(x[field], y[field])
				if down {
					n = -n
				}
				if n != 0 {
					return n
				}
			}
			return 0
		})
		return out
	}
}

// slots merges a history, columns by the times of their steps: with the rule of a column's name, else by
// adding. steps are those of all; a column has a value for each.
func slots(columns map[string]rule) rule {
	var merge func(name string, values []any, times [][]any, steps []any) any
	merge = func(name string, values []any, times [][]any, steps []any) any {
		switch values[0].(type) {
		case map[string]any:
			out := map[string]any{}
			names := map[string]bool{}
			for _, v := range values {
				fields, _ := v.(map[string]any)
				for field := range fields {
					names[field] = true
				}
			}
			for field := range names {
				var of []any
				var at [][]any
				for i, v := range values {
					fields, _ := v.(map[string]any)
					if fields[field] != nil {
						of, at = append(of, fields[field]), append(at, times[i])
					}
				}
				inner := field
				if columns[name] != nil {
					inner = name // of upstreams, under their names
				}
				out[field] = merge(inner, of, at, steps)
			}
			return out
		case []any:
			by := map[any][]any{}
			for i, v := range values {
				list, _ := v.([]any)
				for j, n := range list {
					if j < len(times[i]) {
						by[times[i][j]] = append(by[times[i][j]], n)
					}
				}
			}
			column := make([]any, len(steps))
			for i, step := range steps {
				column[i] = json.Number("0")
				if list := by[step]; len(list) > 0 {
					column[i] = ruleOr(columns[name], add)(list)
				}
			}
			return column
		}
		return total(values)
	}
	return func(all []any) any {
		seen := map[any]bool{}
		times := make([][]any, len(all))
		for i, one := range all {
			fields, _ := one.(map[string]any)
			times[i], _ = fields["times"].([]any)
			for _, t := range times[i] {
				seen[t] = true
			}
		}
		steps := slices.SortedFunc(maps.Keys(seen), compare)
		out, _ := merge("", all, times, steps).(map[string]any)
		out["times"] = steps
		asked, _ := all[0].(map[string]any)
		out["span"], out["step_seconds"] = asked["span"], asked["step_seconds"]
		return out
	}
}

// pages merges parts of lists that are in one order by the names of things: what comes after the end of a
// part of which there is more is left for later, so that nothing is left out.
func pages(field string, list rule) rule {
	return func(all []any) any {
		next, end := "", ""
		for _, one := range all {
			fields, _ := one.(map[string]any)
			if n, _ := fields["next"].(string); n != "" && (next == "" || place(n) < end) {
				next, end = n, place(n)
			}
		}
		out, _ := object(map[string]rule{field: list}, first)(all).(map[string]any)
		delete(out, "next")
		kept, _ := out[field].([]any)
		slices.SortStableFunc(kept, func(a, b any) int { return strings.Compare(place(nameOf(a)), place(nameOf(b))) })
		if next != "" {
			out["next"] = next
			out[field] = slices.DeleteFunc(kept, func(v any) bool { return place(nameOf(v)) > end })
		}
		return out
	}
}

// nameOf is the name of a repository or an image of a list, after which a list goes on.
func nameOf(v any) string {
	item, _ := v.(map[string]any)
	text := func(name string) string {
		s, _ := item[name].(string)
		return s
	}
	name := text("upstream") + "/" + text("repository")
	switch {
	case text("tag") != "":
		return name + ":" + text("tag")
	case text("digest") != "":
		return name + "@" + text("digest")
	}
	return name
}

// place is where a name stands in such a list: by upstream, repository, tag, and those without a tag last.
func place(name string) string {
	upstream, rest, _ := strings.Cut(name, "/")
	repository, tag := rest, ""
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		repository, tag = rest[:i], "\x02"+rest[i+1:]
	} else if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		repository, tag = rest[:i], "\x01"+rest[i+1:]
	}
	return upstream + "\x00" + repository + "\x00" + tag
}

// budget merges what mirrors know of one: the latest word of its registry, and what all spent.
func budget(all []any) any {
	newest, _ := slices.MaxFunc(all, func(a, b any) int {
		x, _ := a.(map[string]any)
		y, _ := b.(map[string]any)
		return compare(x["seen_at"], y["seen_at"])
	}).(map[string]any)
	spent := items([]string{"name"}, total, "-pulls")
	out, _ := object(map[string]rule{"spent_here": add, "spent_by_client": spent, "spent_by_repository": spent, "spent": items([]string{"client", "repository"}, total, "-pulls"), "per_hour": add}, first)(all).(map[string]any)
	number := func(o map[string]any, name string) int64 {
		v, _ := o[name].(json.Number)
		n, _ := v.Int64()
		return n
	}
	for name, v := range newest {
		switch name {
		case "elsewhere": // what others of the fleet spent is not
			out[name] = json.Number(fmt.Sprint(max(0, number(newest, name)-number(out, "spent_here")+number(newest, "spent_here"))))
		case "spent_here", "spent_by_client", "spent_by_repository", "spent", "per_hour":
		default:
			out[name] = v
		}
	}
	return out
}

// ratios says again what are shares of what was added up.
func ratios(merged any) any {
	u, ok := merged.(map[string]any)
	if !ok {
		return merged
	}
	n := func(name string) float64 {
		v, _ := u[name].(json.Number)
		f, _ := v.Float64()
		return f
	}
	share := func(part, whole float64) json.Number {
		if whole <= 0 {
			return "-1"
		}
		return json.Number(fmt.Sprint(part / whole))
	}
	kept := n("hit") + n("joined") + n("stale")
	u["hit_ratio"] = share(kept, kept+n("miss")+n("passed")+n("error"))
	u["byte_ratio"] = share(n("saved_bytes"), n("client_bytes"))
	return u
}
