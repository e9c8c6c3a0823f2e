package hubtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// answerRegistry serves /v2/.
func (h *Hub) answerRegistry(x *exchange) *Reply {
	a := h.registryReply(x)
	a.Header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	a.Header.Set("Strict-Transport-Security", "max-age=31536000")
	return a
}

func (h *Hub) registryReply(x *exchange) *Reply {
	switch {
	case x.Route == RouteOther:
		return newReply(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
	case x.Route == RouteBlob && x.Repo == "":
		return h.ownBlob(x)
	case x.Route == RouteInvalid:
		return errorReply(http.StatusBadRequest, "NAME_INVALID", "invalid repository name", nil)
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		h.book.wrote()
		return h.challenge(x, "pull,push", "")
	}
	switch x.Route {
	case RoutePing:
		return h.ping(x)
	case RouteCatalog:
		return h.catalog(x)
	}
	if a := h.refuse(x); a != nil {
		return a
	}
	switch x.Route {
	case RouteManifestTag, RouteManifestDigest:
		if h.profile().manifestsElsewhere && x.Role == RoleRegistry {
			return redirect(http.StatusTemporaryRedirect, h.URL(RoleSub)+x.r.RequestURI)
		}
		return h.manifestReply(x)
	case RouteBlob:
		return h.blobReply(x)
	case RouteTags:
		return h.tagsReply(x)
	case RouteReferrers:
		return h.referrersReply(x)
	}
	return newReply(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
}

// unauthorized is the body of a 401: 87 bytes for the ping (exchange of 2023-06-04).
func unauthorized(detail any) *Reply {
	return errorReply(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required", detail)
}

func (h *Hub) ping(x *exchange) *Reply {
	if x.claim != nil || h.profile().openPing {
		return newReply(http.StatusOK, "application/json", []byte("{}"))
	}
	a := unauthorized(nil)
	a.Header.Set("Www-Authenticate", h.profile().pingChallenge(h))
	return a
}

func (h *Hub) catalog(x *exchange) *Reply {
	a := unauthorized([]any{map[string]string{"Type": "registry", "Class": "", "Name": "catalog", "Action": "*"}})
	c := fmt.Sprintf(`Bearer realm="%s",service="%s",scope="registry:catalog:*"`, h.realm(), h.profile().service)
	if x.claim != nil {
		c += `,error="insufficient_scope"`
	}
	a.Header.Set("Www-Authenticate", c)
	return a
}

// realm is the token endpoint's URL.
func (h *Hub) realm() string {
	if h.profile().ownRealm {
		return h.RegistryURL() + h.profile().realmPath
	}
	return h.URL(RoleAuth) + h.profile().realmPath
}

// challenge is the 401 of a resource.
func (h *Hub) challenge(x *exchange, actions, problem string) *Reply {
	type detail struct{ Type, Class, Name, Action string }
	var list []detail
	for _, action := range strings.Split(actions, ",") {
		list = append(list, detail{"repository", "", x.Repo, action})
	}
	a := unauthorized(list)
	scope := h.profile().scope(x.Repo, actions)
	c := fmt.Sprintf(`Bearer realm="%s",service="%s",scope="%s"`, h.realm(), h.profile().service, scope)
	if problem != "" {
		c += fmt.Sprintf(`,error="%s"`, problem)
	}
	a.Header.Set("Www-Authenticate", c)
	a.Header.Set("Docker-Ratelimit-Source", x.Address)
	return a
}

// refuse returns the 401 for a request without the right to pull, else nil.
func (h *Hub) refuse(x *exchange) *Reply {
	p := h.profile()
	opts, exists := h.visible(x.r.Context(), x.Repo)
	if p.noAuth {
		if exists && !opts.Private {
			return nil
		}
		return errorReply(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry", nil)
	}
	authorization := x.r.Header.Get("Authorization")
	switch {
	case p.basic:
		return h.refuseBasic(x, opts, exists)
	case authorization == "":
		return h.challenge(x, "pull", "")
	case x.claim == nil:
		if p.badToken != nil {
			return p.badToken()
		}
		return h.challenge(x, "pull", "invalid_token")
	case p.openScope && exists && !opts.Private:
		return nil
	case x.claim.Narrow:
		a := h.challenge(x, "pull", "insufficient_scope")
		a.SetBody(errorDocument("UNAUTHORIZED", "access token has insufficient scopes", nil))
		return a
	case !x.claim.allows("repository", x.Repo, "pull"):
		return h.challenge(x, "pull", "insufficient_scope")
	case !exists:
		return h.challenge(x, "pull", "insufficient_scope")
	}
	return nil
}

// accepts reports whether one of the Accept headers names a media type. A wildcard
// does not count: registries treat it as a client that knows only schema 1.
func accepts(r *http.Request, mediaType string) bool {
	for _, line := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(line, ",") {
			item, _, _ = strings.Cut(item, ";")
			if strings.TrimSpace(item) == mediaType {
				return true
			}
		}
	}
	return false
}

func (h *Hub) manifestReply(x *exchange) *Reply {
	if x.Route == RouteManifestDigest && !validDigest(x.Ref) {
		return errorReply(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content", nil)
	}
	if x.Route == RouteManifestTag && !tagPattern.MatchString(x.Ref) {
		return errorReply(http.StatusBadRequest, "TAG_INVALID", "manifest tag did not match URI", nil)
	}
	opts, _ := h.visible(x.r.Context(), x.Repo)
	m, digest, ok := h.manifest(x.r.Context(), x.Repo, x.Ref)
	if !ok {
		a := h.manifestUnknown(x)
		h.rateHeaders(x, a, opts)
		return a
	}
	m, digest, refused := h.negotiate(x, m, digest)
	if refused != nil {
		h.rateHeaders(x, refused, opts)
		return refused
	}
	if !h.charge(x, m, opts) {
		a := h.limitReply(x)
		h.rateHeaders(x, a, opts)
		return a
	}
	a := newReply(http.StatusOK, m.mediaType, m.raw)
	a.digest = digest
	a.Header.Set("Docker-Content-Digest", digest)
	a.Header.Set("Etag", `"`+digest+`"`)
	if match := x.r.Header.Get("If-None-Match"); match != "" && strings.Trim(match, `"`) == digest {
		a.Status, a.body = http.StatusNotModified, nil
		a.Header.Del("Content-Length")
	}
	h.rateHeaders(x, a, opts)
	return a
}

// charge books a manifest GET. It reports false when the limit is reached.
func (h *Hub) charge(x *exchange, m storedBytes, opts RepoOpts) bool {
	if x.r.Method != http.MethodGet || opts.UnlimitedPulls {
		return true
	}
	if h.opts().NoCharge304 && x.r.Header.Get("If-None-Match") != "" {
		if _, digest, ok := h.manifest(x.r.Context(), x.Repo, x.Ref); ok &&
			strings.Trim(x.r.Header.Get("If-None-Match"), `"`) == digest {
			return true
		}
	}
	return h.take(x.Principal, h.plan(x.Principal), isIndexType(m.mediaType))
}

func isIndexType(mediaType string) bool { return mediaType == OCIIndex || mediaType == DockerList }

func (h *Hub) manifestUnknown(x *exchange) *Reply {
	var detail any = map[string]string{"Name": x.Repo, "Revision": x.Ref}
	if x.Route == RouteManifestTag {
		detail = map[string]string{"Tag": x.Ref}
		if h.opts().TagDetail == TagDetailString {
			detail = "unknown tag=" + x.Ref
		}
	}
	return errorReply(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown", detail)
}

// negotiate applies Accept. It returns what to send, or the answer that refuses.
func (h *Hub) negotiate(x *exchange, m storedBytes, digest string) (storedBytes, string, *Reply) {
	if accepts(x.r, m.mediaType) {
		return m, digest, nil
	}
	switch m.mediaType {
	case OCIIndex:
		return m, digest, errorReply(http.StatusNotFound, "MANIFEST_UNKNOWN",
			"OCI index found, but accept header does not support OCI indexes", nil)
	case OCIManifest:
		return m, digest, errorReply(http.StatusNotFound, "MANIFEST_UNKNOWN",
			"OCI manifest found, but accept header does not support OCI manifests", nil)
	case DockerList:
		if x.Route == RouteManifestDigest {
			return m, digest, nil // what a digest names cannot be converted
		}
		if h.opts().Schema1Downgrade {
			raw := schema1(x.Repo, x.Ref)
			return storedBytes{DockerSchema1, raw}, Digest(raw), nil
		}
		return h.defaultChild(x, m, digest)
	}
	return m, digest, nil
}

// defaultChild is the linux/amd64 child of a Docker list, for clients that know no lists.
func (h *Hub) defaultChild(x *exchange, m storedBytes, digest string) (storedBytes, string, *Reply) {
	var list index
	if err := json.Unmarshal(m.raw, &list); err != nil {
		return m, digest, nil
	}
	for _, d := range list.Manifests {
		if d.Platform == nil || d.Platform.OS != "linux" || d.Platform.Architecture != "amd64" {
			continue
		}
		if child, childDigest, ok := h.manifest(x.r.Context(), x.Repo, d.Digest); ok {
			return child, childDigest, nil
		}
	}
	return m, digest, h.manifestUnknown(x)
}

func schema1(repo, tag string) []byte {
	b, err := json.MarshalIndent(map[string]any{
		"schemaVersion": 1, "name": repo, "tag": tag, "architecture": "amd64",
		"fsLayers": []any{}, "history": []any{}, "signatures": []any{},
	}, "", "   ")
	must(err)
	return b
}

func (h *Hub) blobReply(x *exchange) *Reply {
	if !validDigest(x.Ref) {
		return errorReply(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content", nil)
	}
	c, ok := h.blob(x.r.Context(), x.Repo, x.Ref)
	if !ok {
		return errorReply(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry", x.Ref)
	}
	h.mu.Lock()
	h.holders[x.Ref] = x.Repo // where a CDN finds it, if it is at the backend
	h.mu.Unlock()
	if special := h.profile().blobReply; special != nil {
		return special(h, x, c)
	}
	return h.redirectBlob(x, http.StatusTemporaryRedirect, h.pickCDN())
}

func (h *Hub) redirectBlob(x *exchange, code int, role Role) *Reply {
	h.book.redirected(x.Ref)
	return redirect(code, h.signedURL(role, x.r.Method, x.Ref))
}

func (h *Hub) tagsReply(x *exchange) *Reply {
	tags := h.tagList(x.r.Context(), x.Repo)
	q := x.r.URL.Query()
	paging := h.opts().TagsPaging
	n, err := strconv.Atoi(q.Get("n"))
	if q.Has("broken") {
		return errorReply(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "broken page", nil)
	}
	if paging == PagingIgnore || err != nil || n <= 0 {
		return tagPage(x.Repo, tags)
	}
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(tags, last)
		if found {
			i++
		}
		tags = tags[i:]
	}
	if len(tags) <= n && paging != PagingLoop {
		return tagPage(x.Repo, tags)
	}
	tags = tags[:min(n, len(tags))]
	a := tagPage(x.Repo, tags)
	next := x.r.RequestURI
	if paging != PagingLoop {
		v := url.Values{"last": {tags[len(tags)-1]}, "n": {strconv.Itoa(n)}}
		next = "/v2/" + x.Repo + "/tags/list?" + v.Encode()
	}
	switch paging {
	case PagingAbsolute:
		next = h.RegistryURL() + next
	case PagingForeign:
		next = h.URL(RoleEvil) + next
	}
	link := "<" + next + `>; rel="next"`
	switch _, query, _ := strings.Cut(next, "?"); paging {
	case PagingInner:
		link = "<http://registry.internal:8080/repository/proxy/v2/" + x.Repo + "/tags/list?" + query + `>; rel="next"`
	case PagingBare:
		link = next + "; rel=next"
	case PagingRelative:
		link = `<?n=1>; rel="first", <?` + query + `>; type="a,b"; Rel = NEXT, <?last=zzz>; rel=last`
	case PagingNoRel:
		link = "<" + next + ">"
	case PagingNothing:
		link = `<>; rel="next"`
	case PagingBroken:
		link = "<" + strings.Replace(next, "n=", "broken=1&n=", 1) + `>; rel="next"`
	}
	a.Header.Set("Link", link)
	return a
}

func tagPage(repo string, tags []string) *Reply {
	if tags == nil {
		tags = []string{}
	}
	type page struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	return jsonReply(http.StatusOK, page{repo, tags})
}

// hugeReferrers is how many descriptors ReferrersHuge lists.
const hugeReferrers = 100_000

func (h *Hub) referrersReply(x *exchange) *Reply {
	if !validDigest(x.Ref) {
		return errorReply(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content", nil)
	}
	list := h.referrers(x.Repo, x.Ref)
	mode := h.opts().Referrers
	if h.fixed.Profile == GHCR {
		mode = ReferrersOff
	}
	switch mode {
	case ReferrersOff:
		return newReply(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
	case ReferrersHTML:
		a := newReply(http.StatusFound, "text/html; charset=utf-8", []byte("<a href=\"/login\">Found</a>.\n"))
		a.Header.Set("Location", h.URL(RoleEvil)+"/login")
		return a
	case ReferrersHuge:
		list = make([]Descriptor, hugeReferrers)
		for i := range list {
			list[i] = Descriptor{MediaType: OCIManifest, Digest: Digest(fmt.Append(nil, i)), Size: int64(i + 1)}
		}
	}
	filter := x.r.URL.Query().Get("artifactType")
	if filter != "" {
		list = slices.DeleteFunc(list, func(d Descriptor) bool { return d.ArtifactType != filter })
	}
	if list == nil {
		list = []Descriptor{}
	}
	a := newReply(http.StatusOK, OCIIndex, encode(index{SchemaVersion: 2, MediaType: OCIIndex, Manifests: list}))
	if filter != "" {
		a.Header.Set("Oci-Filters-Applied", "artifactType")
	}
	return a
}
