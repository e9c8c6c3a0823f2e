package imageset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnitsOfPodman(t *testing.T) {
	for text, want := range map[string][]string{
		"[Unit]\nDescription=x\n[Container]\nImage=quay.io/o/a:1\nMount=type=image,source=b:1,destination=/b\nMount=type=bind,source=/c,dst=/c\nExec=Image=no\n[Service]\nImage=no:1\n": {
			"4 quay.io/o/a:1", "5 docker.io/library/b:1"},
		"# a\n[Image]\nImage = docker://a:1\nArch=aarch64\n":                        {"3 docker.io/library/a:1 linux/arm64"},
		"[Volume]\nDriver=image\nImage=a:1\n":                                       {"3 docker.io/library/a:1"},
		"[Container]\nEnvironment=A=1 \\\n  Image=no\n;Image=no\nImage= \\\n a:1\n": {"5 docker.io/library/a:1"},
	} {
		wants(t, text, Options{}, want...)
	}
	images, notes := told(t, "[Container]\nImage=a.image\n[Build]\nFile=./Containerfile\n", Options{})
	if diff := cmp.Diff([]string{"f:4: ./Containerfile is a file of its own", "f:2: a.image is a file of its own"}, notes); diff != "" || images != nil {
		t.Errorf("images %q, notes (-want +got):\n%s", images, diff)
	}
	if _, err := read(t, "[Container]\nImage=a:%i\n", Options{}); err == nil || !strings.Contains(err.Error(), "f:2: \"a:%i\" has a specifier") {
		t.Errorf("a template: %v", err)
	}
}
