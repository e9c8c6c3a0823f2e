package wire

import (
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/registries"
)

// Hub is [registries.Hub], whose one-word names mean library/NAME.
const Hub = registries.Hub

// Resource is what a path asks for.
type Resource uint8

// The resources. The zero value is a path that is none of them.
const (
	NoResource Resource = iota
	Ping
	Catalog
	Manifests
	Blobs
	Tags
	Referrers
	History
)

func (r Resource) String() string {
	switch r {
	case Ping:
		return "ping"
	case Catalog:
		return "catalog"
	case Manifests:
		return "manifest"
	case Blobs:
		return "blob"
	case Tags:
		return "tags"
	case Referrers:
		return "referrers"
	case History:
		return "history"
	default:
		return "none"
	}
}

// Prefix says where a path names its registry.
type Prefix uint8

// The places of a registry's name in a path.
const (
	NoPrefix   Prefix = iota
	PathPrefix        // /v2/ghcr.io/owner/app/…
	RootPrefix        // /ghcr.io/v2/owner/app/…
)

// Route is what a request means.
type Route struct {
	Resource   Resource
	Upstream   string  // canonical registry name; empty for a ping or catalog that names none
	Repository string  // canonical; empty for ping and catalog
	Name       string  // the repository as the client wrote it, prefix and all
	Reference  string  // tag or digest; for blobs and referrers always a digest
	Digest     v1.Hash // Reference when it is a digest, else zero
	Host       string  // canonical name of the registry that the Host header is mapped to; empty for none
	Namespace  string  // what the client sent as ns, as it was spelt; may be an alias
	Prefix     Prefix
	AsOf       string // time or snapshot whose tags are asked for; empty: those of today
}

// Fault says why a request means nothing to us.
type Fault uint8

// The faults.
const (
	NoRoute         Fault = iota // no resource has such a path
	UnknownRegistry              // the registry is not configured
	Disagreement                 // prefix and ns name different registries
	BadName                      // not a repository name
	BadDigest                    // a reference with a colon that is no digest
	BadTag                       // a reference without a colon that is no tag
	BadAsOf                      // neither a time nor the name of a snapshot
)

// RouteError says why a request means nothing to us. Its text may be shown to the client.
type RouteError struct {
	Fault Fault
	Text  string
}

func (e *RouteError) Error() string { return e.Text }

func faultf(f Fault, format string, args ...any) *RouteError {
	return &RouteError{Fault: f, Text: fmt.Sprintf(format, args...)}
}

// Registries are all names of registries that a request may use. A name that is not among
// them is refused: nothing that a client sends is ever dialled.
type Registries struct {
	// Default is the canonical name of the registry of a request that names none; "" refuses it.
	Default string
	// Names maps each name and alias, as [Host] returns it and with its port if it has one,
	// to the canonical name.
	Names map[string]string
	// Hosts maps values of the Host header, as [Host] returns them, with or without a port, to
	// canonical names. It may be nil.
	Hosts map[string]string
	// Others says what a host that is not among Names is the name of, if anything. It is asked for
	// what may be a host only. nil means nothing.
	Others func(host string) (canonical string, ok bool)
}

// Route returns what a request for the escaped path means, given its Host header and
// its ns parameter (empty if none). On an error, which is always a [RouteError], the
// route holds what was understood before it.
//
// The registry is named by ns, else before /v2/, else by the first element of the
// repository if it is configured, else by the Host header, else it is the default.
// ns and a prefix may come together and then must agree; the prefix is taken off once.
func (g *Registries) Route(host, escapedPath, ns string) (Route, error) {
	path, ok := plainPath(escapedPath)
	if !ok {
		return Route{}, faultf(BadName, "the path must not be escaped")
	}
	root, rest, ok := cutVersion(path)
	if !ok {
		return Route{}, faultf(NoRoute, "no such path: the registry API starts at /v2/")
	}
	var r Route
	r.Host = g.byHost(host)
	root, rest, err := r.asOf(root, rest)
	if err != nil {
		return r, err
	}
	return g.of(r, root, rest, ns)
}

// asOf takes the past that a path names off what stands before its /v2/, or off what follows.
func (r *Route) asOf(root, rest string) (string, string, error) {
	past, remainder, _ := strings.Cut(rest, "/")
	before, isBefore := strings.CutPrefix(root, "@")
	past, isPast := strings.CutPrefix(past, "@")
	switch {
	case isBefore && isPast && before != past:
		return "", "", faultf(Disagreement, "the path names %s and %s: whose tags are meant?", clip(before), clip(past))
	case isPast:
		rest = remainder
	case isBefore:
		past = before
	default:
		return root, rest, nil
	}
	if isBefore {
		root = ""
	}
	if r.AsOf = past; !ValidAsOf(past) {
		return "", "", faultf(BadAsOf, "@%s is neither a time, such as @2026-11-01T12:00Z, nor the name of a snapshot", clip(past))
	}
	return root, rest, nil
}

// of is Route for a request whose past is known.
func (g *Registries) of(r Route, root, rest, ns string) (Route, error) {
	named, err := g.named(&r, root, ns)
	if err != nil {
		return r, err
	}
	switch rest {
	case "":
		r.Resource, r.Upstream = Ping, named
		return r, nil
	case "_catalog":
		r.Resource, r.Upstream = Catalog, named
		return r, nil
	}
	if r.Resource, r.Name, r.Reference = splitResource(rest); r.Resource == NoResource {
		return r, faultf(NoRoute, "no such path in the registry API")
	}
	if err := g.repository(&r, named); err != nil {
		return r, err
	}
	return r, r.parseReference()
}

// named sets the namespace and the root prefix and returns the registry that they
// name, if any.
func (g *Registries) named(r *Route, root, ns string) (string, error) {
	var named string
	if ns != "" {
		r.Namespace = ns
		var ok bool
		if named, ok = g.registry(strings.ToLower(ns)); !ok {
			r.Namespace = ""
			return "", unknown(ns)
		}
	}
	if root == "" {
		return named, nil
	}
	r.Prefix = RootPrefix
	before, ok := g.registry(root)
	switch {
	case !ok:
		return "", unknown(root)
	case named != "" && named != before:
		return "", faultf(Disagreement, "the path names registry %s but ns names %s", before, named)
	}
	return before, nil
}

// repository finds the upstream and the canonical repository of r.Name. named is the
// registry that the request names outside the repository, if any.
func (g *Registries) repository(r *Route, named string) error {
	if err := g.locate(r, named); err != nil {
		return err
	}
	if !validRepository(r.Repository) {
		return faultf(BadName, "%q is not a valid repository name", clip(r.Repository))
	}
	return nil
}

// locate is repository for a name that may not be valid. Requests and people's names are
// both read by it, so that a name means the same to all.
func (g *Registries) locate(r *Route, named string) error {
	r.Upstream, r.Repository = named, r.Name
	first, remainder, several := strings.Cut(r.Name, "/")
	if r.Prefix == NoPrefix {
		switch prefix, _ := g.registry(first); {
		case prefix != "" && !several:
			return faultf(BadName, "%q is a registry, not a repository", first)
		case prefix != "" && named != "" && prefix != named:
			return faultf(Disagreement, "the path names registry %s but ns names %s", prefix, named)
		case prefix != "":
			r.Prefix, r.Upstream, r.Repository = PathPrefix, prefix, remainder
		}
	}
	if r.Upstream == "" {
		r.Upstream = r.Host
	}
	if r.Upstream == "" {
		// Docker's own rule for image names: a first element with a dot or a colon is a
		// registry. Asking the default registry for it would tell a stranger our names.
		if several && looksLikeHost(first) {
			return unknown(first)
		}
		if g.Default == "" {
			return faultf(UnknownRegistry, "the request names no registry, and %s is not mirrored here", Hub)
		}
		r.Upstream = g.Default
	}
	if r.Upstream == Hub && !strings.Contains(r.Repository, "/") {
		r.Repository = "library/" + r.Repository
	}
	return nil
}

func unknown(registry string) *RouteError {
	return faultf(UnknownRegistry, "registry %q is not configured here", clip(registry))
}

func (r *Route) parseReference() error {
	switch r.Resource {
	case Tags:
		return nil
	case History:
		if !validTag(r.Reference) {
			return faultf(BadTag, "%q is not a valid tag", clip(r.Reference))
		}
		return nil
	case Manifests:
		if strings.IndexByte(r.Reference, ':') < 0 {
			if !validTag(r.Reference) {
				return faultf(BadTag, "%q is not a valid tag", clip(r.Reference))
			}
			return nil
		}
	}
	d, err := ParseDigest(r.Reference)
	if err != nil {
		return &RouteError{Fault: BadDigest, Text: err.Error()}
	}
	r.Digest = d
	return nil
}

// plainPath unescapes path. Names, tags and digests need no escaping; only the colon is
// escaped by some clients, and the brackets of an IPv6 address by all that are written in Go.
// Every other escape (of slashes, dots, percent signs) is refused rather than decoded, so that
// nothing can be hidden in one.
func plainPath(path string) (string, bool) {
	if strings.IndexByte(path, '%') < 0 {
		return path, true
	}
	path = plain.Replace(path)
	return path, strings.IndexByte(path, '%') < 0
}

var plain = strings.NewReplacer("%3A", ":", "%3a", ":", "%5B", "[", "%5b", "[", "%5D", "]", "%5d", "]")

// cutVersion splits a path at its /v2/ into what stands before, at most one element,
// and after. A ping has nothing after.
func cutVersion(path string) (root, rest string, ok bool) {
	if !strings.HasPrefix(path, "/") {
		return "", "", false
	}
	path = strings.TrimLeft(path, "/") // a client or balancer whose base ends with a slash puts another there
	first, after, _ := strings.Cut(path, "/")
	if first == "v2" {
		return "", after, true
	}
	version, rest, _ := strings.Cut(after, "/")
	return first, rest, first != "" && version == "v2"
}

// Extension is what our own resources stand below (OCI distribution specification, "API extensions").
const Extension = "_forebay"

// splitResource reads from the right, since a repository may hold the elements
// manifests, blobs and tags itself.
func splitResource(rest string) (what Resource, name, reference string) {
	i := strings.LastIndexByte(rest, '/')
	if i < 0 || i == len(rest)-1 {
		return NoResource, "", ""
	}
	j := strings.LastIndexByte(rest[:i], '/')
	if j <= 0 {
		return NoResource, "", ""
	}
	name, reference = rest[:j], rest[i+1:]
	switch rest[j+1 : i] {
	case "manifests":
		return Manifests, name, reference
	case "blobs":
		return Blobs, name, reference
	case "referrers":
		return Referrers, name, reference
	case "history":
		if name, ok := strings.CutSuffix(name, "/"+Extension); ok && name != "" {
			return History, name, reference
		}
	case "tags":
		if reference == "list" {
			return Tags, name, ""
		}
	}
	return NoResource, "", ""
}

func looksLikeHost(element string) bool {
	return strings.ContainsAny(element, ".:") || element == "localhost"
}

// validRepository is [ValidRepository] without its pattern, for the path that every
// request takes. A fuzz target holds the two together.
func validRepository(s string) bool {
	if len(s) > nameMax {
		return false
	}
	// sep is the separator that s[i] follows; the start of the name counts as one.
	sep, run := byte('/'), 1
	for i := range len(s) {
		switch c := s[i]; c {
		case '/', '.', '_', '-':
			switch {
			case sep == 0:
				run = 0
			case sep != c || c == '/' || c == '.' || c == '_' && run == 2:
				return false
			}
			sep = c
			run++
		default:
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return false
			}
			sep = 0
		}
	}
	return sep == 0
}

// validTag is [ValidTag] without its pattern.
func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !word && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
