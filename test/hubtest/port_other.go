//go:build !unix

package hubtest

import "io"

// holdPort does nothing here: the port is free while the hub is switched off.
func holdPort(string) io.Closer { return nil }
