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
// name without a registry is of the default one. A registry that is not configured is
// an error, which is always a [RouteError].
func (g *Registries) Reference(s string) (Reference, error) {
	var r Reference
	rest := s
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
	if err := g.locate(&r, rest); err != nil {
		return r, err
	}
	if r.Upstream == Hub && !strings.Contains(r.Repository, "/") {
		r.Repository = "library/" + r.Repository
	}
	if !validRepository(r.Repository) {
		return r, faultf(BadName, "%q is not a valid image name: write NAME, NAME:TAG or NAME@DIGEST", clip(s))
	}
	return r, nil
}

// locate finds the registry of a name without tag and digest.
func (g *Registries) locate(r *Reference, name string) error {
	first, remainder, several := strings.Cut(name, "/")
	host := strings.ToLower(first)
	upstream, known := g.Names[host]
	if !known {
		upstream = g.byHost(host)
	}
	switch {
	case upstream != "" && several:
		r.Upstream, r.Repository = upstream, remainder
	case upstream != "":
		return faultf(BadName, "%q is a registry, not an image", clip(first))
	case several && (looksLikeHost(first) || first != host):
		return faultf(UnknownRegistry, "registry %q is not configured here", clip(first))
	default:
		r.Upstream, r.Repository = g.Default, name
	}
	return nil
}
