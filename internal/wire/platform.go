package wire

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/containerd/platforms"
)

// platformMax bounds the name of a platform. The longest that is known has 30 bytes:
// windows(10.0.20348.2227)/amd64.
const platformMax = 64

// Platform returns the usual name of a platform as people and files write it: arm64,
// linux/aarch64 and linux/arm64/v8 are linux/arm64, as for docker and containerd. Whatever
// names a platform is read by it.
func Platform(s string) (string, error) {
	full := s
	// Where an architecture comes first, images are for Linux, wherever a command runs:
	// containerd knows arm64 alone, and the manual of GitLab has arm64/v8.
	first, _, _ := strings.Cut(s, "/")
	if p, err := platforms.Parse(first); err == nil && !strings.HasPrefix(strings.ToLower(first), p.OS) && !strings.EqualFold(first, "macos") {
		full = "linux/" + s
	}
	p, err := platforms.Parse(full)
	if err != nil || len(s) > platformMax {
		return "", fmt.Errorf("%q is not a platform: write OS/ARCHITECTURE, such as linux/arm64", clip(s))
	}
	return platforms.FormatAll(platforms.Normalize(p)), nil
}

// MachinePlatform returns the platform of images for this machine. Images are for Linux,
// whatever the machine runs.
func MachinePlatform() string {
	if runtime.GOARCH == "arm" {
		return "linux/arm/v7"
	}
	return "linux/" + runtime.GOARCH
}
