package hubtest

import "strings"

// Role is one server of the hub. In a [Rule] or [Query] it may also be [CDN] or "*".
type Role string

const (
	RoleRegistry Role = "registry"
	RoleAuth     Role = "auth"
	RoleCF       Role = "cdn-cf"  // Cloudflare: verify=
	RoleR2       Role = "cdn-r2"  // R2: SigV4 query, signed for one method
	RoleCFR      Role = "cdn-cfr" // CloudFront: Expires, Signature, Key-Pair-Id
	RoleAlt      Role = "cdn-alt" // a CDN on the registry's own host, another port
	RoleSub      Role = "cdn-sub" // a CDN on a subdomain of the registry's host
	RoleHubAPI   Role = "hubapi"
	RoleEvil     Role = "evil" // records everything, answers 200
	RoleMeta     Role = "meta" // stands for the cloud metadata address, records everything

	// CDN stands for all CDN roles in a Rule or Query.
	CDN Role = "cdn-*"
)

// covers reports whether the pattern want matches a role.
func (want Role) covers(got Role) bool {
	if prefix, ok := strings.CutSuffix(string(want), "*"); ok {
		return strings.HasPrefix(string(got), prefix)
	}
	return want == "" || want == got
}

func (r Role) servesBlobs() bool { return strings.HasPrefix(string(r), "cdn-") }

// roleSite is where a role lives.
type roleSite struct {
	role Role
	name string // production host name
	ip   string // loopback address
	port string // production port, and port of the in-memory address
}

func roleSites() []roleSite {
	return []roleSite{
		{RoleRegistry, "registry-1.docker.io", "127.0.0.2", "443"},
		{RoleAuth, "auth.docker.io", "127.0.0.3", "443"},
		{RoleCF, "production.cloudflare.docker.com", "127.0.0.4", "443"},
		{RoleR2, "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com", "127.0.0.5", "443"},
		{RoleCFR, "production.cloudfront.docker.com", "127.0.0.6", "443"},
		{RoleHubAPI, "hub.docker.com", "127.0.0.7", "443"},
		{RoleEvil, "attacker.example", "127.0.0.8", "443"},
		{RoleMeta, "169.254.169.254", "127.0.0.9", "80"},
		{RoleAlt, "registry-1.docker.io", "127.0.0.2", "5443"},
		{RoleSub, "cdn01.registry-1.docker.io", "127.0.0.10", "443"},
	}
}
