package prefetch

import (
	"runtime"
)

// MachinePlatform returns the platform of images for this machine. Images are for Linux,
// whatever the machine runs.
func MachinePlatform() string {
	if runtime.GOARCH == "arm" {
		return "linux/arm/v7"
	}
	return "linux/" + runtime.GOARCH
}
