package hubtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RepoOpts are the properties of a repository.
type RepoOpts struct {
	Private        bool // only accounts that may read it get a token for it
	UnlimitedPulls bool // a verified publisher: never charged, no rate-limit headers
}

// repo is one repository. All fields are guarded by Hub.mu.
type repo struct {
	name      string
	opts      RepoOpts
	tags      map[string]string      // tag to digest
	changes   map[string][]tagChange // of tags, oldest first
	manifests map[string]storedBytes // by digest
	blobs     map[string]bool        // digests that the repository holds
	referrers map[string][]Descriptor
}

type storedBytes struct {
	mediaType string
	raw       []byte
}

// AddRepo makes a repository, or changes the properties of one that exists.
func (h *Hub) AddRepo(name string, opts RepoOpts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repoLocked(name).opts = opts
}

func (h *Hub) repoLocked(name string) *repo {
	r := h.repos[name]
	if r == nil {
		r = &repo{
			name:      name,
			tags:      map[string]string{},
			changes:   map[string][]tagChange{},
			manifests: map[string]storedBytes{},
			blobs:     map[string]bool{},
			referrers: map[string][]Descriptor{},
		}
		h.repos[name] = r
	}
	return r
}

// PutBlob stores b in a repository, which is made if needed, and returns its sha256 digest.
// The caller must not change b afterwards.
func (h *Hub) PutBlob(repo string, b []byte) string { return h.putBlob(repo, Digest(b), memory(b)) }

// PutBlobBy is PutBlob with a digest by an algorithm: see [DigestBy].
func (h *Hub) PutBlobBy(algorithm, repo string, b []byte) string {
	return h.putBlob(repo, DigestBy(algorithm, b), memory(b))
}

// PutVirtualBlob puts the virtual blob (seed, size) into a repository and returns
// its sha256 digest. It takes no memory; see [VirtualDigest] and [VirtualReader].
func (h *Hub) PutVirtualBlob(repo string, seed uint64, size int64) string {
	v := virtual{seed, size}
	return h.putBlob(repo, v.digest("sha256"), v)
}

func (h *Hub) putBlob(repo, digest string, c content) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contents[digest] = c
	h.repoLocked(repo).blobs[digest] = true
	return digest
}

// LinkBlob makes a blob that the hub holds part of one more repository.
func (h *Hub) LinkBlob(repo, digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repoLocked(repo).blobs[digest] = true
}

// PutManifest stores raw as a manifest of a repository, tags it unless tag is "",
// and returns its sha256 digest. Nothing checks raw: it may be nonsense.
func (h *Hub) PutManifest(repo, tag, mediaType string, raw []byte) string {
	return h.PutManifestBy("sha256", repo, tag, mediaType, raw)
}

// PutManifestBy is PutManifest with a digest by an algorithm: see [DigestBy].
func (h *Hub) PutManifestBy(algorithm, repo, tag, mediaType string, raw []byte) string {
	digest := DigestBy(algorithm, raw)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repoLocked(repo)
	r.manifests[digest] = storedBytes{mediaType, raw}
	if tag != "" {
		h.pointLocked(r, tag, digest)
	}
	return digest
}

// MoveTag makes a tag of a repository point at digest.
func (h *Hub) MoveTag(repo, tag, digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pointLocked(h.repoLocked(repo), tag, digest)
}

// pointLocked binds a tag, or unbinds it if digest is "", and remembers when.
func (h *Hub) pointLocked(r *repo, tag, digest string) {
	r.tags[tag] = digest
	if digest == "" {
		delete(r.tags, tag)
	}
	r.changes[tag] = append(r.changes[tag], tagChange{h.Now(), digest})
}

// DeleteTag removes a tag. The manifest stays.
func (h *Hub) DeleteTag(repo, tag string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pointLocked(h.repoLocked(repo), tag, "")
}

// DeleteManifest removes a manifest and the tags that point at it.
func (h *Hub) DeleteManifest(repo, digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repoLocked(repo)
	delete(r.manifests, digest)
	for tag, d := range r.tags {
		if d == digest {
			h.pointLocked(r, tag, "")
		}
	}
}

// DeleteRepo removes a repository and all that it links to.
func (h *Hub) DeleteRepo(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.repos, name)
}

// DeleteBlob takes a blob out of a repository. Other repositories keep it.
func (h *Hub) DeleteBlob(repo, digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.repoLocked(repo).blobs, digest)
}

// Bytes returns the content of a blob or manifest that the hub holds, or nil.
func (h *Hub) Bytes(digest string) []byte {
	h.mu.RLock()
	c := h.contents[digest]
	if c == nil {
		for _, r := range h.repos {
			if m, ok := r.manifests[digest]; ok {
				c = memory(m.raw)
				break
			}
		}
	}
	h.mu.RUnlock()
	if c == nil {
		return nil
	}
	b, err := readAll(context.Background(), c)
	if err != nil {
		return nil
	}
	return b
}

// Tag returns the digest that a tag points at, or "".
func (h *Hub) Tag(repo, tag string) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if r := h.repos[repo]; r != nil {
		return r.tags[tag]
	}
	return ""
}

// AddReferrer stores raw as a manifest that refers to subject, and lists it in the
// referrers of subject. It returns the digest of raw.
func (h *Hub) AddReferrer(repo, subject, artifactType, mediaType string, raw []byte) string {
	digest := h.PutManifest(repo, "", mediaType, raw)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repoLocked(repo)
	r.referrers[subject] = append(r.referrers[subject], Descriptor{
		MediaType: mediaType, Digest: digest, Size: int64(len(raw)), ArtifactType: artifactType,
	})
	return digest
}

// User is an account at the hub.
type User struct {
	Name    string
	Plan    Plan     // zero means 200 an hour
	Secrets []string // passwords, PATs, and OATs ("dckr_oat_…"); each is good
	// SecondFactor is the code that a login at the Hub API needs beside a password, but
	// not beside an access token ("dckr_…"); "" means none.
	SecondFactor string
	PublicOnly   []string // PATs whose scope is repo:public_read
	// Repos are the private repositories that it may pull, "acme/app" or "acme/*".
	// Its own namespace needs no entry. An OAT reaches these and nothing else.
	Repos []string
}

func (u *User) mayRead(repo string) bool {
	return strings.HasPrefix(repo, u.Name+"/") || u.lists(repo)
}

func (u *User) lists(repo string) bool {
	return slices.ContainsFunc(u.Repos, func(pattern string) bool {
		namespace, wild := strings.CutSuffix(pattern, "*")
		return pattern == repo || wild && strings.HasPrefix(repo, namespace)
	})
}

// AddUser makes an account, or replaces it.
func (h *Hub) AddUser(u User) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users[u.Name] = &u
	h.limiter.setPlan(u.Name, u.Plan)
}

// visible returns the repository if it exists here or at the backend, with its properties.
func (h *Hub) visible(ctx context.Context, name string) (RepoOpts, bool) {
	h.mu.RLock()
	r := h.repos[name]
	var opts RepoOpts
	if r != nil {
		opts = r.opts
	}
	h.mu.RUnlock()
	if r != nil {
		return opts, true
	}
	return RepoOpts{}, h.backend.hasRepo(ctx, name)
}

// manifest finds a manifest by tag or digest. It returns its digest, and false when
// there is none.
func (h *Hub) manifest(ctx context.Context, name, ref string) (storedBytes, string, bool) {
	h.mu.RLock()
	digest := ref
	var m storedBytes
	var ok bool
	if r := h.repos[name]; r != nil {
		if !strings.Contains(ref, ":") {
			digest = r.tags[ref]
		}
		m, ok = r.manifests[digest]
	}
	h.mu.RUnlock()
	if ok {
		return m, digest, true
	}
	return h.backend.manifest(ctx, name, ref)
}

// blob finds a blob of a repository.
func (h *Hub) blob(ctx context.Context, name, digest string) (content, bool) {
	h.mu.RLock()
	r := h.repos[name]
	linked := r != nil && r.blobs[digest]
	c := h.contents[digest]
	h.mu.RUnlock()
	if linked && c != nil {
		return c, true
	}
	return h.backend.blob(ctx, name, digest)
}

// tagList returns the tags of a repository in lexical order.
func (h *Hub) tagList(ctx context.Context, name string) []string {
	h.mu.RLock()
	var tags []string
	if r := h.repos[name]; r != nil {
		tags = slices.Collect(maps.Keys(r.tags))
	}
	h.mu.RUnlock()
	for _, t := range h.backend.tags(ctx, name) {
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	slices.Sort(tags)
	return tags
}

func (h *Hub) referrers(name, digest string) []Descriptor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if r := h.repos[name]; r != nil {
		return slices.Clone(r.referrers[digest])
	}
	return nil
}

// Descriptor points at content, as in the OCI image specification.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// Platform is what an image runs on.
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

func parsePlatform(s string) Platform {
	part := strings.Split(s, "/")
	if len(part) < 2 || len(part) > 3 {
		panic(fmt.Sprintf("hubtest: platform %q is not os/architecture[/variant]", s))
	}
	p := Platform{OS: part[0], Architecture: part[1]}
	if len(part) == 3 {
		p.Variant = part[2]
	}
	return p
}
