package prefetch

import (
	"runtime"
)

// MachinePlatform is that of the machine, as an image for it is called. Images are for
// Linux, whatever the machine runs.
func MachinePlatform() string {
	if runtime.GOARCH == "arm" {
		return "linux/arm/v7"
	}
	return "linux/" + runtime.GOARCH
}
