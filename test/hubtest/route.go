package hubtest

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Route is what a request asks for. RouteManifest in a [Rule] or [Query] stands for
// both manifest routes.
type Route string

const (
	RoutePing           Route = "ping"
	RouteManifest       Route = "manifest"
	RouteManifestTag    Route = "manifest-tag"
	RouteManifestDigest Route = "manifest-digest"
	RouteBlob           Route = "blob" // at the registry and at the CDNs
	RouteTags           Route = "tags"
	RouteReferrers      Route = "referrers"
	RouteCatalog        Route = "catalog"
	RouteUpload         Route = "upload"
	RouteToken          Route = "token"
	RouteHubLogin       Route = "hub-login"
	RouteHubAPI         Route = "hub-api"
	RouteInvalid        Route = "invalid" // a repository name or reference outside the grammar
	RouteOther          Route = "other"
)

func (want Route) covers(got Route) bool {
	return want == "" || want == got ||
		want == RouteManifest && (got == RouteManifestTag || got == RouteManifestDigest)
}

// Grammar of the OCI distribution specification v1.1, "Pulling manifests".
var (
	repoPattern = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// place is a parsed registry path.
type place struct {
	route Route
	repo  string
	ref   string // tag or digest
}

// rawPath returns the path of r as it was sent. Only the escape of the digest's
// colon is undone, since clients send it; anything else escaped stays visible.
func rawPath(r *http.Request) string {
	p, _, _ := strings.Cut(r.RequestURI, "?")
	if i := strings.Index(p, "://"); i >= 0 { // absolute form, RFC 9112 section 3.2.2
		if j := strings.IndexByte(p[i+3:], '/'); j >= 0 {
			p = p[i+3+j:]
		}
	}
	return strings.NewReplacer("%3A", ":", "%3a", ":").Replace(p)
}

// parseRegistryPath reads a path under /v2/ from the right, since a repository name
// may itself contain the components manifests, blobs and tags.
func parseRegistryPath(path string) place {
	if path == "/v2/" || path == "/v2" {
		return place{route: RoutePing}
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return place{route: RouteOther}
	}
	if rest == "_catalog" {
		return place{route: RouteCatalog}
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return checked(place{RouteTags, name, ""})
	}
	if i := strings.LastIndex(rest, "/blobs/uploads/"); i >= 0 {
		return checked(place{RouteUpload, rest[:i], ""})
	}
	cut := strings.LastIndexByte(rest, '/')
	if cut < 0 {
		return place{route: RouteOther}
	}
	head, ref := rest[:cut], rest[cut+1:]
	cut = strings.LastIndexByte(head, '/')
	if cut < 0 {
		return place{route: RouteOther}
	}
	name, kind := head[:cut], head[cut+1:]
	switch {
	case kind == "manifests" && strings.Contains(ref, ":"):
		return checked(place{RouteManifestDigest, name, ref})
	case kind == "manifests":
		return checked(place{RouteManifestTag, name, ref})
	case kind == "blobs":
		return checked(place{RouteBlob, name, ref})
	case kind == "referrers":
		return checked(place{RouteReferrers, name, ref})
	}
	return place{route: RouteOther}
}

// checked turns a place outside the grammar into RouteInvalid (bad name) or keeps
// it with an invalid reference, which its handler refuses.
func checked(p place) place {
	if len(p.repo) > 255 || !repoPattern.MatchString(p.repo) {
		return place{route: RouteInvalid, repo: p.repo, ref: p.ref}
	}
	return p
}

// cdnDigest returns the digest that a CDN path names.
func cdnDigest(path string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(path, doubleSlash), cdnPrefix)
	if !ok {
		return "", false
	}
	part := strings.Split(rest, "/")
	if len(part) != 4 || part[3] != "data" || !strings.HasPrefix(part[2], part[1]) {
		return "", false
	}
	d := part[0] + ":" + part[2]
	return d, validDigest(d)
}

// cdnPrefix is the path that Docker Hub's CDNs serve (exchange recorded 2023-06-04).
const cdnPrefix = "/registry-v2/docker/registry/v2/blobs/"

// doubleSlash, put before cdnPrefix, makes a path like those of mcr.microsoft.com,
// which lose their meaning when they are cleaned.
const doubleSlash = "/0123456789abcdef-hubtest/"

func cdnPath(digest string) string {
	algorithm, digits, _ := strings.Cut(digest, ":")
	return cdnPrefix + algorithm + "/" + digits[:2] + "/" + digits + "/data"
}

// placeOf parses r for a role.
func placeOf(role Role, r *http.Request) place {
	path := rawPath(r)
	switch {
	case role == RoleRegistry:
		if d, ok := cdnDigest(path); ok {
			return place{route: RouteBlob, ref: d}
		}
		return parseRegistryPath(path)
	case role == RoleAuth && tokenPaths[path]:
		return place{route: RouteToken}
	case role.servesBlobs():
		if d, ok := cdnDigest(path); ok {
			return place{route: RouteBlob, ref: d}
		}
	case role == RoleHubAPI:
		return hubAPIPlace(path)
	}
	return place{route: RouteOther}
}

// tokenPaths are the token endpoints of Docker Hub and of the other registries that
// a [Profile] imitates.
var tokenPaths = map[string]bool{
	"/token": true, "/token/": true, "/v2/auth": true, "/v2/token": true, "/jwt/auth": true, "/oauth2/token": true,
}

func hubAPIPlace(path string) place {
	p, err := url.PathUnescape(path)
	if err != nil {
		return place{route: RouteOther}
	}
	switch strings.TrimSuffix(p, "/") {
	case "/v2/auth/token", "/v2/users/login", "/v2/users/2fa-login":
		return place{route: RouteHubLogin}
	}
	return place{route: RouteHubAPI, ref: p}
}
