package hubtest

import (
	"context"
	"fmt"
	"net/http"
)

// Profile is the registry that the hub imitates.
type Profile string

const (
	DockerHub Profile = ""
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

	pathPrefix string // before the path of signed URLs

	ping         string                           // challenge of the ping; "" means realm and service
	scopeText    string                           // scope of every challenge; "" means the resource's own
	expiredToken func() *Reply                    // answer to a bad token; nil means a challenge
	blobReply    func(h *Hub, x *exchange) *Reply // nil, or returning nil, means a signed redirect
	shape        func(body map[string]any)        // changes the token answer
	refuse       func(h *Hub, ok bool) *Reply     // refuses at the token endpoint; ok: scope is readable
}

func profiles() map[Profile]*profile {
	return map[Profile]*profile{
		DockerHub: {service: tokenAudience, realmPath: "/token"},
	}
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

// refuseScope lets a profile refuse at the token endpoint. It returns nil when the
// token is given.
func (p *profile) refuseScope(h *Hub, ctx context.Context, id identity, scopes []string) *Reply {
	if p.refuse == nil {
		return nil
	}
	ok := len(scopes) > 0
	for _, s := range scopes {
		var c claims
		h.addAccess(ctx, &c, id, s)
		ok = ok && len(c.Access) > 0
	}
	return p.refuse(h, ok)
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
