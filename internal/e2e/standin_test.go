package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestStandIn(t *testing.T) {
	s := time.Now()
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("catalogue %s", time.Since(s))
	trap := startTrap(t)
	r := startRegistry(t)
	for repo, img := range images {
		s := time.Now()
		r.push(t, repo, img, catalogueTag)
		r.push(t, "docker.io/"+repo, img, catalogueTag)
		t.Logf("push %s %d bytes %s", repo, img.size(), time.Since(s))
	}
	addr := strings.TrimPrefix(r.url, "http://")
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			s := time.Now()
			st := c.open(t, addr)
			t.Logf("open %s", time.Since(s))
			for repo, img := range images {
				s := time.Now()
				d, err := st.pull(t.Context(), repo+":"+catalogueTag)
				if err != nil {
					t.Errorf("pull %s: %v", repo, err)
					continue
				}
				took := time.Since(s)
				if !strings.Contains(d, img.digest.String()) {
					t.Errorf("%s digest %s want %s", repo, d, img.digest)
				}
				s = time.Now()
				if rn, ok := st.(runner); ok {
					got, err := rn.run(t.Context(), repo+":"+catalogueTag)
					if err != nil || got != img.prints {
						t.Errorf("run %s = %q, %v want %q", repo, got, err, img.prints)
					}
				}
				t.Logf("%s pull %s run %s", repo, took, time.Since(s))
			}
			if calls := trap.take(); len(calls) > 0 {
				t.Errorf("went to Hub: %v", calls)
			}
		})
	}
}
