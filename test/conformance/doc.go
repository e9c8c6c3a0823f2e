// Package conformance asks a whole mirror, over HTTP and nothing else, whether it keeps
// what it promises to clients: the pull and discovery requirements of the OCI distribution
// specification, the incompatibilities that real clients have met, and the acceptance cases
// of a mirror of Docker Hub.
//
// Each test's name begins with what it stands for: OCI with a subject for the
// specification, T or M with a number for a case of docs/clients.md: T is what a client has
// met, M what a mirror of Docker Hub must do. It has tests only.
package conformance
