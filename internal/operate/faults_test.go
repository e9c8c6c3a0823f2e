package operate

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A registry that fails says so once, and not for each layer of an image.
func TestFaultsOfOneCauseAreToldOnce(t *testing.T) {
	blob := func(n int, verb, why string) string {
		return fmt.Sprintf("docker.io: %s blob library/x@sha256:%064d: unavailable: %s", verb, n, why)
	}
	got := alike([]string{
		blob(1, "get", "r:5000 failed 11 times in a row"), blob(2, "head", "r:5000 failed 12 times in a row"), blob(3, "get", "not there"), blob(4, "get", "r:5000 failed 9 times in a row"),
	})
	want := []string{blob(1, "get", "r:5000 failed 11 times in a row") + " (2 more of its parts alike: --json names them)", blob(3, "get", "not there")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
