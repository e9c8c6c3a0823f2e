package wire

import "strings"

// Client is a family of registry clients that react alike to a status. It is used only
// to choose between answers that are equally right, never to allow anything.
type Client uint8

// The families.
const (
	OtherClient         Client = iota
	DockerGraph                // dockerd with the graph-driver store
	DockerImages               // dockerd with the containerd image store
	Containerd                 // containerd, its CRI, k3s
	BuildKit                   // BuildKit
	ContainersImage            // podman, CRI-O, Buildah
	Skopeo                     // skopeo: the same library as podman, pulled with directly
	Kaniko                     // kaniko
	GoContainerRegistry        // crane, ko, cosign, Flux, Tekton
	ORAS                       // oras and its library
	Helm                       // helm
	RegClient                  // regctl, regsync
	Forebay                    // another Forebay
)

func (c Client) String() string {
	switch c {
	case DockerGraph:
		return "docker"
	case DockerImages:
		return "docker-containerd"
	case Containerd:
		return "containerd"
	case BuildKit:
		return "buildkit"
	case ContainersImage:
		return "containers"
	case Skopeo:
		return "skopeo"
	case Kaniko:
		return "kaniko"
	case GoContainerRegistry:
		return "go-containerregistry"
	case ORAS:
		return "oras"
	case Helm:
		return "helm"
	case RegClient:
		return "regclient"
	case Forebay:
		return "forebay"
	default:
		return "other"
	}
}

// Image reports whether c is built on containers/image, which decides by its first
// manifest where the whole pull goes and waits half a minute after a 429.
func (c Client) Image() bool { return c == ContainersImage || c == Skopeo }

// ParseClient returns the family of a User-Agent header.
func ParseClient(agent string) Client {
	product, _, _ := strings.Cut(agent, "/")
	switch product {
	case "docker":
		if strings.Contains(agent, "containerd-client/") {
			return DockerImages
		}
		return DockerGraph
	case "containerd":
		return Containerd
	case "buildkit":
		return BuildKit
	case "containers", "cri-o", "Buildah", "libpod", "podman":
		return ContainersImage
	case "skopeo":
		return Skopeo
	case "kaniko":
		return Kaniko
	case "forebay":
		return Forebay
	case "oras", "oras-go":
		return ORAS
	case "Helm":
		return Helm
	case "regclient":
		return RegClient
	}
	// skopeo can be told to put a prefix before its own name; users of
	// go-containerregistry put theirs before the library's.
	switch {
	case strings.Contains(agent, "skopeo/"):
		return Skopeo
	case strings.HasPrefix(agent, "kaniko"):
		return Kaniko
	case strings.Contains(agent, "go-containerregistry"):
		return GoContainerRegistry
	case strings.HasPrefix(agent, "regclient"):
		return RegClient
	default:
		return OtherClient
	}
}
