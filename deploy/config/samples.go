// Package config has configurations to start from: one for each way of running a mirror that
// people ask for, all started and pulled through by a test.
package config

import "embed"

// Files are the configurations, by NAME.yaml.
//
//go:embed *.yaml
var Files embed.FS
