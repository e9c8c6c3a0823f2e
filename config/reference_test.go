package config

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/config/key"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

func TestReferenceIsUpToDate(t *testing.T) {
	const name = "../docs/configuration.md"
	var got bytes.Buffer
	if err := Reference(&got); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s is not what Reference writes; run go test ./config -run TestReference -update (-file +now):\n%s", name, diff)
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	var check func(path string, fields []field)
	check = func(path string, fields []field) {
		for _, f := range fields {
			at := join(path, f.Name)
			if f.Doc == "" {
				t.Errorf("%s has no explanation", at)
			}
			if f.Kind != key.Section && f.What == "" {
				t.Errorf("%s does not say what is allowed", at)
			}
			check(at, f.Fields)
		}
	}
	u := defaultUpstream("a.b")
	check("", defaults().fields())
	check("upstreams.NAME", u.fields())
}
