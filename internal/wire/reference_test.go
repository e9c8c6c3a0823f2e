package wire

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func world() *Registries {
	return &Registries{
		Default: Hub,
		Names: map[string]string{
			"docker.io": Hub, "index.docker.io": Hub, "ghcr.io": "ghcr.io",
			"registry.example.com:5000": "registry.example.com:5000", "inhouse": "inhouse",
			"[2001:db8::5]:5000": "[2001:db8::5]:5000",
		},
		Hosts: map[string]string{"ghcr.mirror.lan": "ghcr.io", "mirror.lan": Hub, "[2001:db8::1]": "ghcr.io"},
	}
}

func TestReferencesMeanWhatTheyMeanToClients(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                                  "docker.io/library/nginx",
		"nginx:1.27":                             "docker.io/library/nginx:1.27",
		"nginx@" + someDigest:                    "docker.io/library/nginx@" + someDigest,
		"nginx:1.27@" + someDigest:               "docker.io/library/nginx:1.27@" + someDigest,
		"library/nginx":                          "docker.io/library/nginx",
		"bitnami/redis:7":                        "docker.io/bitnami/redis:7",
		"docker.io/nginx":                        "docker.io/library/nginx",
		"index.docker.io/library/nginx:1":        "docker.io/library/nginx:1",
		"ghcr.io/owner/app@" + someDigest:        "ghcr.io/owner/app@" + someDigest,
		"GHCR.io/owner/app":                      "ghcr.io/owner/app",
		"ghcr.mirror.lan/owner/app:x":            "ghcr.io/owner/app:x",
		"registry.example.com:5000/team/app":     "registry.example.com:5000/team/app",
		"registry.example.com:5000/team/app:1.0": "registry.example.com:5000/team/app:1.0",
		"inhouse/app":                            "inhouse/app",
		"[2001:db8::5]:5000/team/app":            "[2001:db8::5]:5000/team/app",
		"[2001:DB8:0::5]:5000/team/app:1.0":      "[2001:db8::5]:5000/team/app:1.0",
		"[2001:db8::1]/owner/app@" + someDigest:  "ghcr.io/owner/app@" + someDigest,
		"[2001:db8::1]:5000/owner/app:1":         "ghcr.io/owner/app:1",
		"[2001:db8::1]:5000/docker.io/nginx:1":   "docker.io/library/nginx:1",
		// Names of the mirror itself mean what they mean in a request.
		"ghcr.mirror.lan:5000/owner/app:x":            "ghcr.io/owner/app:x",
		"GHCR.mirror.lan:5000/owner/app":              "ghcr.io/owner/app",
		"mirror.lan/nginx":                            "docker.io/library/nginx",
		"mirror.lan:5000/library/nginx:1":             "docker.io/library/nginx:1",
		"mirror.lan:5000/ghcr.io/owner/app:x":         "ghcr.io/owner/app:x",
		"mirror.lan/docker.io/nginx@" + someDigest:    "docker.io/library/nginx@" + someDigest,
		"ghcr.mirror.lan/registry.example.com:5000/a": "registry.example.com:5000/a",
		"docker.io/ghcr.io/a":                         "docker.io/ghcr.io/a", // taken off once
		// What programs write before a name.
		"docker://nginx": "docker.io/library/nginx",
		"docker-pullable://ghcr.io/o/a@" + someDigest: "ghcr.io/o/a@" + someDigest,
		"docker-image://alpine:3":                     "docker.io/library/alpine:3",
		"oci://ghcr.io/o/charts/app:1.2.3":            "ghcr.io/o/charts/app:1.2.3",
		"oci:1":                                       "docker.io/library/oci:1",
		"dir":                                         "docker.io/library/dir",
	} {
		got, err := world().Reference(in)
		if err != nil || got.String() != want {
			t.Errorf("Reference(%q) = %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestReferencesThatMeanNothingAreRefused(t *testing.T) {
	for in, want := range map[string]struct {
		fault Fault
		text  string
	}{
		"mirror.lan":                      {BadName, "is a registry"},
		"mirror.lan:5000":                 {BadName, "is a registry"},
		"ghcr.mirror.lan/x/Y":             {BadName, "not a valid image name"},
		"https://ghcr.io/o/a":             {BadName, "is an address"},
		"http://localhost:5000/a":         {BadName, "is an address"},
		"docker://":                       {BadName, "names no image"},
		"docker://docker://a":             {UnknownRegistry, "not configured"},
		"oci://quay.io/x/y":               {UnknownRegistry, "not configured"},
		"s3://bucket/a":                   {BadName, "no image in a registry"},
		"containers-storage:alpine":       {BadName, "on one machine"},
		"docker-daemon:alpine:3":          {BadName, "on one machine"},
		"docker-archive:/tmp/a.tar":       {BadName, "on one machine"},
		"oci-archive:a.tar":               {BadName, "on one machine"},
		"oci:/tmp/layout:tag":             {BadName, "on one machine"},
		"dir:./a":                         {BadName, "on one machine"},
		someDigest:                        {BadName, "is the id"},
		someDigest[7:]:                    {BadName, "is the id"},
		"docker-pullable://" + someDigest: {BadName, "is the id"},
		"":                                {BadName, "names no image"},
		":latest":                         {BadName, "names no image"},
		"@" + someDigest:                  {BadName, "names no image"},
		"nginx:":                          {BadTag, "no valid tag"},
		"nginx:-x":                        {BadTag, "no valid tag"},
		"nginx@sha256:12":                 {BadDigest, "hexadecimal digits"},
		"nginx@md5:12":                    {BadDigest, "not supported"},
		"Nginx":                           {BadName, "not a valid image name"},
		"ghcr.io":                         {BadName, "is a registry"},
		"quay.io/x/y":                     {UnknownRegistry, "not configured"},
		"localhost/x":                     {UnknownRegistry, "not configured"},
		"QUAY/x":                          {UnknownRegistry, "not configured"},
		"a//b":                            {BadName, "not a valid image name"},
		"../../etc/passwd":                {UnknownRegistry, "not configured"},
		"a b":                             {BadName, "not a valid image name"},
		strings.Repeat("a", 300):          {BadName, "not a valid image name"},
		"nginx:1@" + someDigest + "@":     {BadDigest, ""},
	} {
		_, err := world().Reference(in)
		var fault *RouteError
		if !errors.As(err, &fault) || fault.Fault != want.fault || !strings.Contains(fault.Text, want.text) {
			t.Errorf("Reference(%q) = %v, want fault %d with %q", in, err, want.fault, want.text)
		}
	}
}

// Another parser of the same names, by other people, is asked too.
func FuzzReference(f *testing.F) {
	for _, s := range []string{
		"nginx", "nginx:1.27", "a/b:c@" + someDigest, "ghcr.io/owner/app@" + someDigest, "registry.example.com:5000/x:y", "localhost:1/a", "x@y@z", "::", "a:b:c", "ghcr.io/", "/",
		"mirror.lan:5000/ghcr.io/a", "docker://a", "oci:1", "dir:/a", someDigest, "docker-pullable://ghcr.io/o/a@" + someDigest,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := world().Reference(s)
		var fault *RouteError
		if err != nil {
			if !errors.As(err, &fault) || fault.Text == "" {
				t.Fatalf("Reference(%q) = %v, which is no RouteError", s, err)
			}
			return
		}
		if !ValidRepository(got.Repository) || got.Tag != "" && !ValidTag(got.Tag) {
			t.Fatalf("Reference(%q) = %+v, which cannot be", s, got)
		}
		again, err := world().Reference(got.String())
		if err != nil || again != got {
			t.Fatalf("Reference(%q) = %s, %v, which is read as %s", got.String(), again, err, got)
		}
		agrees(t, s, got)
	})
}

// agrees compares with go-containerregistry, where that accepts the name. It knows
// Docker Hub as index.docker.io, and neither our hosts, nor schemes, nor registries without a dot.
func agrees(t *testing.T, s string, got Reference) {
	first, _, _ := strings.Cut(s, "/")
	if first == "inhouse" || strings.Contains(first, "mirror.lan") || first != strings.ToLower(first) || strings.Contains(s, "://") {
		return
	}
	other, err := name.ParseReference(s)
	if err != nil {
		return
	}
	registry := other.Context().RegistryStr()
	if registry == name.DefaultRegistry {
		registry = Hub
	}
	if registry != got.Upstream || other.Context().RepositoryStr() != got.Repository {
		t.Errorf("Reference(%q) = %s, others read %s/%s", s, got, registry, other.Context().RepositoryStr())
	}
	switch o := other.(type) {
	case name.Digest:
		if o.DigestStr() != got.Digest.String() {
			t.Errorf("Reference(%q) has digest %s, others read %s", s, got.Digest, o.DigestStr())
		}
	case name.Tag:
		if got.HasDigest() || got.Tag != "" && o.TagStr() != got.Tag || got.Tag == "" && o.TagStr() != name.DefaultTag {
			t.Errorf("Reference(%q) has tag %q, others read %q", s, got.Tag, o.TagStr())
		}
	}
}
