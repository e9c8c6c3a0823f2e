package operate

import "testing"

func TestHubNames(t *testing.T) {
	for name, want := range map[string]string{
		"nginx": "library/nginx ", "nginx:1.27": "library/nginx 1.27", "library/nginx": "library/nginx ", "docker.io/acme/app:v1": "acme/app v1",
		"index.docker.io/library/nginx": "library/nginx ", "docker.io/nginx": "library/nginx ",
		"": "", "a/b/c": "", "ghcr.io/acme/app": "", "nginx:": "", "Nginx": "", "nginx@sha256:00": "", "nginx:a b": "",
	} {
		repo, tag, err := hubName(name)
		if got := repo + " " + tag; (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("hubName(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}
