// Package e2e has the end-to-end tests: real clients, real daemons and a real
// registry around the real forebay binary.
//
// It needs root and Linux, since the clients run containers. Everything it
// starts lives in namespaces of its own (sandbox_test.go): there is no network
// in them but loopback, and nothing outlives them.
package e2e
