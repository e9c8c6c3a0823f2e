package wire

import "testing"

func TestParseClient(t *testing.T) {
	rows := []struct {
		agent string
		want  Client
	}{
		{"docker/20.10.24+dfsg1 go/go1.19.8 git-commit/5d6db84 os/linux arch/amd64 UpstreamClient(Docker-Client/28.2.2 \\(linux\\))", DockerGraph},
		{"docker/29.0.0 go/go1.25 containerd-client/2.3.4+unknown storage-driver/overlayfs", DockerImages},
		{"containerd/2.3.4+unknown", Containerd},
		{"containerd/v1.7.34", Containerd},
		{"buildkit/v0.25", BuildKit},
		{"containers/5.40.0 (github.com/containers/image)", ContainersImage},
		{"cri-o/1.33.0 go/go1.24 os/linux arch/amd64", ContainersImage},
		{"Buildah/1.40.0", ContainersImage},
		{"libpod/4.3.1", ContainersImage},
		{"skopeo/1.9.3", Skopeo},
		{"corp skopeo/1.20.0", Skopeo},
		{"kaniko/v1.23 go-containerregistry/v0.20", Kaniko},
		{"crane/v0.22 go-containerregistry/v0.22.1", GoContainerRegistry},
		{"cosign/v3.0 (linux; amd64) go-containerregistry/v0.20", GoContainerRegistry},
		{"oras/1.3.0", ORAS},
		{"Helm/3.18.0", Helm},
		{"regclient/regctl (v0.9)", RegClient},
		{"Go-http-client/1.1", OtherClient},
		{"", OtherClient},
	}
	for _, row := range rows {
		if got := ParseClient(row.agent); got != row.want {
			t.Errorf("ParseClient(%q) = %s, want %s", row.agent, got, row.want)
		}
	}
}

func FuzzParseClient(f *testing.F) {
	f.Add("docker/1 containerd-client/2")
	f.Fuzz(func(t *testing.T, agent string) {
		if c := ParseClient(agent); c.String() == "" {
			t.Errorf("ParseClient(%q) = %d without a name", agent, c)
		}
	})
}
