package hubtest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// Profile is the registry that the hub imitates. What is not named here is as at Docker Hub.
type Profile string

const (
	DockerHub Profile = ""
	// Plain is a registry without authentication that sends blobs itself, with a digest header.
	Plain Profile = "plain"
	// GHCR: the ping's scope is a placeholder, and the token endpoint refuses what is
	// private or missing. No referrers API.
	GHCR Profile = "ghcr"
	// Quay: 302 with a body of HTML to a subdomain, HEAD of a blob answered by the registry,
	// token answers without an expiry.
	Quay Profile = "quay"
	// GAR is Artifact Registry: the ping's challenge has a realm only, a rejected token no
	// challenge at all, and blobs a relative Location.
	GAR Profile = "gar"
	// K8s is registry.k8s.io: no authentication, manifests redirected to another host.
	K8s Profile = "k8s"
	// ECR: Basic authentication.
	ECR Profile = "ecr"
	// ECRPublic: one scope for everything, 401 to HEAD of a blob, 400 to a bad token.
	ECRPublic Profile = "ecr-public"
	// MCR: no authentication, blobs on a subdomain under a path with a double slash.
	MCR Profile = "mcr"
	// ACR: token answers with an access_token only.
	ACR Profile = "acr"
	// GitLab: the realm is on another host with another path; CDNs forbid caching.
	GitLab Profile = "gitlab"
	// DHI is dhi.io: Docker Hub's service behind a realm of its own, nothing without a login, and no
	// challenge for a bad token.
	DHI Profile = "dhi"
)

// profile is how a registry differs from Docker Hub.
type profile struct {
	service   string
	realmPath string
	ownRealm  bool // the token endpoint is on the registry's own host
	noAuth    bool // everything public is open
	openPing  bool // /v2/ is 200 without a token
	openScope bool // any good token pulls anything public
	basic     bool // Basic instead of tokens
	login     bool // what is public is so for those who log in

	manifestsElsewhere bool // manifest requests are redirected to RoleSub
	doubleSlash        bool // in the path of signed URLs
	cdnCacheControl    string

	ping      string                                      // challenge of the ping; "" means realm and service
	scopeText string                                      // scope of every challenge; "" means the resource's own
	badToken  func() *Reply                               // answer to a bad token; nil means a challenge
	blobReply func(h *Hub, x *exchange, c content) *Reply // nil means a signed redirect
	shape     func(body map[string]any)                   // changes the token answer
	refuse    bool                                        // the token endpoint refuses what may not be read
}

func profiles() map[Profile]*profile {
	return map[Profile]*profile{
		DockerHub: {service: tokenAudience, realmPath: "/token"},
		Plain:     {noAuth: true, openPing: true, blobReply: plainBlob},
		GHCR: {
			service: "ghcr.io", realmPath: "/token", ownRealm: true, refuse: true,
			ping: `Bearer realm="{registry}/token",service="ghcr.io",scope="repository:user/image:pull"`,
		},
		Quay: {
			service: "quay.io", realmPath: "/v2/auth", ownRealm: true, blobReply: quayBlob,
			shape: func(body map[string]any) { keepOnly(body, "token") },
		},
		GAR: {
			service: "gar.dev", realmPath: "/v2/token", ownRealm: true, refuse: true,
			ping:      `Bearer realm="{registry}/v2/token"`,
			badToken:  func() *Reply { return unauthorized(nil) },
			blobReply: relativeBlob,
		},
		K8s: {noAuth: true, openPing: true, manifestsElsewhere: true},
		ECR: {basic: true, service: "ecr.amazonaws.com"},
		ECRPublic: {
			service: "public.ecr.aws", realmPath: "/token/", ownRealm: true, openScope: true, scopeText: "aws",
			badToken: func() *Reply {
				return denied(http.StatusBadRequest, "Your authorization token has expired. Reauthenticate and try again.")
			},
			blobReply: ecrPublicBlob,
		},
		MCR: {noAuth: true, openPing: true, doubleSlash: true, blobReply: subdomainBlob},
		ACR: {
			service: "acr", realmPath: "/oauth2/token", ownRealm: true,
			shape: func(body map[string]any) { keepOnly(body, "access_token", "refresh_token") },
		},
		DHI: {
			service: tokenAudience, realmPath: "/token", ownRealm: true, login: true,
			badToken: func() *Reply { return unauthorized(nil) },
		},
		GitLab: {service: "container_registry", realmPath: "/jwt/auth", cdnCacheControl: "private, max-age=0"},
	}
}

func keepOnly(body map[string]any, keys ...string) {
	maps.DeleteFunc(body, func(k string, _ any) bool { return !slices.Contains(keys, k) })
}

func denied(status int, message string) *Reply { return errorReply(status, "DENIED", message, nil) }

// plainBlob sends a blob from the registry itself.
func plainBlob(_ *Hub, x *exchange, c content) *Reply {
	a := blobBody(x, c, `"`+x.Ref+`"`)
	a.Header.Set("Docker-Content-Digest", x.Ref)
	return a
}

// quayBlob: captured redirects have 302, HTML and an immortal Cache-Control, although
// the signature in them dies within minutes.
func quayBlob(h *Hub, x *exchange, c content) *Reply {
	if x.r.Method == http.MethodHead {
		return plainBlob(h, x, c)
	}
	a := h.redirectBlob(x, http.StatusFound, RoleSub)
	a.Header.Set("Content-Type", "text/html; charset=utf-8")
	a.SetBody([]byte("<!doctype html><p>You should be redirected automatically.\n"))
	a.Header.Set("Docker-Content-Digest", x.Ref)
	a.Header.Set("Accept-Ranges", "bytes")
	a.Header.Set("Cache-Control", "max-age=31536000")
	return a
}

func relativeBlob(h *Hub, x *exchange, _ content) *Reply {
	h.book.redirected(x.Ref)
	return redirect(http.StatusFound, signedPath(x, RoleRegistry))
}

func ecrPublicBlob(h *Hub, x *exchange, _ content) *Reply {
	if x.r.Method == http.MethodHead {
		return unauthorized(nil)
	}
	return h.redirectBlob(x, http.StatusTemporaryRedirect, RoleCFR)
}

func subdomainBlob(h *Hub, x *exchange, _ content) *Reply {
	return h.redirectBlob(x, http.StatusTemporaryRedirect, RoleSub)
}

func (h *Hub) profile() *profile { return h.style }

func (p *profile) pingChallenge(h *Hub) string {
	if p.ping != "" {
		return h.expand(p.ping)
	}
	return fmt.Sprintf(`Bearer realm="%s",service="%s"`, h.realm(), p.service)
}

func (p *profile) scope(repo, actions string) string {
	if p.scopeText != "" {
		return p.scopeText
	}
	return "repository:" + repo + ":" + actions
}

func (p *profile) shapeToken(body map[string]any) {
	if p.shape != nil {
		p.shape(body)
	}
}

// refuseScope answers for a profile that refuses at the token endpoint. It returns
// nil when a token is given.
func (p *profile) refuseScope(ctx context.Context, h *Hub, id identity, scopes []string) *Reply {
	if !p.refuse {
		return nil
	}
	for _, s := range scopes {
		var c claims
		h.addAccess(ctx, &c, id, s)
		_, _, actions, _ := splitScope(s)
		if len(c.Access) == 0 || len(actions) > 1 {
			return denied(http.StatusForbidden, "requested access to the resource is denied (or it may not exist)")
		}
	}
	return nil
}

// refuseBasic is refuse for a registry with Basic authentication.
func (h *Hub) refuseBasic(x *exchange, opts RepoOpts, exists bool) *Reply {
	id, ok := h.basic(x.r)
	if !ok || id.user == nil {
		a := newReply(http.StatusUnauthorized, "text/plain; charset=utf-8", []byte("Not Authorized\n"))
		a.Header.Set("Www-Authenticate", fmt.Sprintf(`Basic realm="%s/",service="%s"`, h.RegistryURL(), h.profile().service))
		return a
	}
	if !exists || opts.Private && !id.user.mayRead(x.Repo) {
		return errorReply(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry", nil)
	}
	return nil
}
