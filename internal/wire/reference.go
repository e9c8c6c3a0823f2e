package wire

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Reference is the meaning of an image's name as people write it.
type Reference struct {
	Upstream   string  // canonical registry name
	Repository string  // canonical: "library/nginx"
	Tag        string  // empty when none was written
	Digest     v1.Hash // zero when none was written
}

// Name returns the repository with its registry: "docker.io/library/nginx".
func (r Reference) Name() string { return r.Upstream + "/" + r.Repository }

// HasDigest reports whether the name has a digest, which then counts instead of the tag.
func (r Reference) HasDigest() bool { return r.Digest != v1.Hash{} }

func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.HasDigest() {
		s += "@" + r.Digest.String()
	}
	return s
}

// Reference returns what a name means: "nginx", "nginx:1.27", "ghcr.io/owner/app@sha256:…".
// As for docker, a first element with a dot, a colon or a capital is a registry, and a
// name without a registry is of the default one. A name of the mirror itself, by its hosts,
// means what it means in a request. A registry that is not configured is an error, which is
// always a [RouteError].
func (g *Registries) Reference(s string) (Reference, error) {
	var r Reference
	rest, err := withoutScheme(s)
	if err != nil {
		return r, err
	}
	if isID(rest) {
		return r, faultf(BadName, "%q is the id that an image has on one machine: write NAME, NAME:TAG or NAME@DIGEST", clip(s))
	}
	if before, digest, ok := strings.Cut(rest, "@"); ok {
		d, err := ParseDigest(digest)
		if err != nil {
			return r, &RouteError{Fault: BadDigest, Text: err.Error()}
		}
		r.Digest, rest = d, before
	}
	if slash, colon := strings.LastIndexByte(rest, '/'), strings.LastIndexByte(rest, ':'); colon > slash {
		// host:port alone has no slash and looks like name:tag, as it does for docker.
		r.Tag, rest = rest[colon+1:], rest[:colon]
		if !validTag(r.Tag) {
			return r, faultf(BadTag, "%q has no valid tag after its colon", clip(s))
		}
	}
	if rest == "" {
		return r, faultf(BadName, "%q names no image: write NAME, NAME:TAG or NAME@DIGEST", clip(s))
	}
	route, err := g.routeOf(rest)
	if err != nil {
		return r, err
	}
	r.Upstream, r.Repository = route.Upstream, route.Repository
	if !validRepository(r.Repository) {
		return r, faultf(BadName, "%q is not a valid image name: write NAME, NAME:TAG or NAME@DIGEST", clip(s))
	}
	return r, nil
}

// routeOf returns what a request for a name without tag and digest would mean.
func (g *Registries) routeOf(name string) (Route, error) {
	first, remainder, several := strings.Cut(name, "/")
	lower := strings.ToLower(first) // people write hosts with capitals
	r := Route{Name: name}
	_, named := g.registry(lower)
	switch {
	case named && several:
		r.Name = lower + "/" + remainder
	case named:
		r.Name = lower
	case g.byHost(lower) != "" && several:
		r.Name, r.Host = remainder, g.byHost(lower)
	case g.byHost(lower) != "":
		return r, faultf(BadName, "%q is a registry, not an image", clip(first))
	case several && first != lower:
		return r, unknown(first)
	}
	err := g.locate(&r, "")
	if second, _, _ := strings.Cut(remainder, "/"); err != nil && g.Names[second] != "" { // as in a path of a mirror
		err = faultf(UnknownRegistry, "registry %q is not configured here, and no name of this mirror by its hosts", clip(first))
	}
	return r, err
}

// withoutScheme takes off what some programs write before the name of an image in a
// registry: docker:// (skopeo, GitHub Actions), docker-pullable:// (the status of pods),
// docker-image:// (BuildKit), oci:// (Helm, Flux). What names another place is refused.
func withoutScheme(s string) (string, error) {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		switch strings.ToLower(scheme) {
		case "docker", "docker-pullable", "docker-image", "oci":
			return rest, nil
		case "http", "https":
			return "", faultf(BadName, "%q is an address, not a name: write the name alone, such as ghcr.io/owner/app:1", clip(s))
		}
		return "", faultf(BadName, "%q names no image in a registry: write the name alone, such as ghcr.io/owner/app:1", clip(s))
	}
	// Of containers/image: what names no registry, and none of them an image of Docker Hub.
	scheme, rest, _ := strings.Cut(s, ":")
	switch scheme {
	case "oci", "dir", "ostree", "sif", "tarball":
		if !strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, ".") {
			return s, nil // a tag
		}
	case "containers-storage", "docker-daemon", "docker-archive", "oci-archive":
		if rest == "" {
			return s, nil
		}
	default:
		return s, nil
	}
	return "", faultf(BadName, "%q names an image on one machine, not in a registry", clip(s))
}

// isID reports whether a text is what runtimes call an image that has no name there: its
// digest alone, or 64 hexadecimal digits, which docker takes for an id as well.
func isID(s string) bool {
	if _, err := ParseDigest(s); err == nil {
		return true
	}
	_, err := ParseDigest("sha256:" + s)
	return err == nil
}
