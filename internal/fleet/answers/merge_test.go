package answers

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnswersOfMirrorsBecomeOne(t *testing.T) {
	for name, c := range map[string]struct {
		route string
		all   []string
		want  string
	}{
		"figures are added up, and shares made anew": {
			"GET /status", []string{
				`{"version":"1","usage":{"since":"2026-01-02T00:00:00Z","hit":3,"miss":1,"joined":0,"stale":0,"passed":0,"error":0,"client_bytes":10,"saved_bytes":5,"price_per_gib":2,"hit_ratio":0.75,"byte_ratio":0.5,"upstreams":{"a":{"hit":3}}}}`,
				`{"version":"2","usage":{"since":"2026-01-01T00:00:00Z","hit":0,"miss":4,"joined":0,"stale":0,"passed":0,"error":0,"client_bytes":30,"saved_bytes":15,"price_per_gib":2,"hit_ratio":0,"byte_ratio":0.5,"upstreams":{"b":{"hit":1}}}}`,
			},
			`{"version":"1","usage":{"since":"2026-01-01T00:00:00Z","hit":3,"miss":5,"joined":0,"stale":0,"passed":0,"error":0,"client_bytes":40,"saved_bytes":20,"price_per_gib":2,"hit_ratio":0.375,"byte_ratio":0.5,"upstreams":{"a":{"hit":3},"b":{"hit":1}}}}`,
		},
		"one trouble of two mirrors is one, with the worst state and what is left by the latest word": {
			"GET /status", []string{
				`{"troubles":[{"id":"x","what":"A","since":"2026-01-02T00:00:00Z","mirror":"m1"}],"upstreams":[{"name":"u","state":"answers","budgets":[{"host":"h","credential":"c","remaining":90,"seen_at":"2026-01-01T00:00:00Z","spent_here":2,"elsewhere":8,"spent_by_client":[{"name":"k","pulls":2}],"spent_by_repository":[],"spent":[],"per_hour":1}]}]}`,
				`{"troubles":[{"id":"x","what":"A","since":"2026-01-01T00:00:00Z","mirror":"m2"}],"upstreams":[{"name":"u","state":"fails","budgets":[{"host":"h","credential":"c","remaining":80,"seen_at":"2026-01-02T00:00:00Z","spent_here":5,"elsewhere":15,"spent_by_client":[{"name":"k","pulls":5}],"spent_by_repository":[],"spent":[],"per_hour":2}]}]}`,
			},
			`{"troubles":[{"id":"x","what":"A","since":"2026-01-01T00:00:00Z","mirror":"m1, m2"}],"upstreams":[{"name":"u","state":"fails","budgets":[{"host":"h","credential":"c","remaining":80,"seen_at":"2026-01-02T00:00:00Z","spent_here":7,"elsewhere":13,"spent_by_client":[{"name":"k","pulls":7}],"spent_by_repository":[],"spent":[],"per_hour":3}]}]}`,
		},
		"a history is added up step by step": {
			"GET /series", []string{
				`{"span":"hour","step_seconds":10,"times":[10,20],"hit":[1,2],"hit_p50_us":[5,6],"budgets":{"u":[-1,7]},"upstreams":{"u":{"asked":[1,1],"p50_us":[1,2]}},"sum":{"hit":3}}`,
				`{"span":"hour","step_seconds":10,"times":[20,30],"hit":[4,8],"hit_p50_us":[9,1],"budgets":{"u":[5,-1]},"upstreams":{"v":{"asked":[2,2],"p50_us":[1,2]}},"sum":{"hit":12}}`,
			},
			`{"span":"hour","step_seconds":10,"times":[10,20,30],"hit":[1,6,8],"hit_p50_us":[5,9,1],"budgets":{"u":[-1,5,-1]},"upstreams":{"u":{"asked":[1,1,0],"p50_us":[1,2,0]},"v":{"asked":[0,2,2],"p50_us":[0,1,2]}},"sum":{"hit":15}}`,
		},
		"a part of a list ends where the shortest part does": {
			"GET /images", []string{
				`{"images":[{"upstream":"u","repository":"app","tag":"1","digest":"d","mirror":"m1"},{"upstream":"u","repository":"app2","tag":"1","digest":"d","mirror":"m1"}],"next":"u/app2:1"}`,
				`{"images":[{"upstream":"u","repository":"app","tag":"1","digest":"d","mirror":"m2"},{"upstream":"u","repository":"app","digest":"e","mirror":"m2"},{"upstream":"u","repository":"zoo","tag":"1","digest":"d","mirror":"m2"}]}`,
			},
			`{"images":[{"upstream":"u","repository":"app","tag":"1","digest":"d","mirror":"m1, m2"},{"upstream":"u","repository":"app","digest":"e","mirror":"m2"},{"upstream":"u","repository":"app2","tag":"1","digest":"d","mirror":"m1"}],"next":"u/app2:1"}`,
		},
		"events come by time, and none is left out": {
			"GET /events", []string{
				`{"events":[{"id":9,"at":"2026-01-01T00:00:09Z","mirror":"m1"},{"id":8,"at":"2026-01-01T00:00:05Z","mirror":"m1"}],"before":8}`,
				`{"events":[{"id":3,"at":"2026-01-01T00:00:07Z","mirror":"m2"},{"id":2,"at":"2026-01-01T00:00:01Z","mirror":"m2"}]}`,
			},
			`{"events":[{"id":9,"at":"2026-01-01T00:00:09Z","mirror":"m1"},{"id":3,"at":"2026-01-01T00:00:07Z","mirror":"m2"},{"id":8,"at":"2026-01-01T00:00:05Z","mirror":"m1"}],"before":1767225605000000}`,
		},
		"nothing of nothing":   {"GET /status", []string{`{"troubles":[],"jobs":[]}`, `{}`}, `{"troubles":[],"jobs":[]}`},
		"lists of other types": {"GET /pins", []string{`{"pins":[1,{"ref":"a"}]}`, `{"pins":"x"}`}, `{"pins":[{"ref":"a"}]}`},
	} {
		var all []any
		for _, text := range c.all {
			v, err := Decode([]byte(text))
			if err != nil {
				t.Fatal(name, err)
			}
			all = append(all, v)
		}
		got, err := json.Marshal(routes()[c.route].merge(all))
		if err != nil {
			t.Fatal(name, err)
		}
		var a, b any
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatal(name, err)
		}
		if err := json.Unmarshal([]byte(c.want), &b); err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(b, a); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
