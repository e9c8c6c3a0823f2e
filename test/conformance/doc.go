// Package conformance asks a whole mirror, over HTTP and nothing else, whether it keeps
// what it promises to clients: the pull and discovery requirements of the OCI distribution
// specification, the incompatibilities that real clients have met, and the acceptance cases
// of a mirror of Docker Hub.
//
// Each test's name begins with what it stands for: OCI with a subject for the
// specification, T with a number for a thread of a client (facts/clients.md 14),
// M with a number for an acceptance case (facts/hub.md 4.9). It has tests only.
package conformance
