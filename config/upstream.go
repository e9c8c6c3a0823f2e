package config

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/config/unit"
	"forebay/internal/registries"
)

// Endpoint is a base URL of a registry, or of another registry that stands in for it.
type Endpoint struct {
	URL string // scheme, host, port, what comes before /v2/
	// StandIn says that it is another registry, which carries the same content. What
	// follows is for stand-ins only.
	StandIn  bool
	From, To string // of names of repositories: From begins those that it carries, To stands in its place there
	Tags     bool   // its tags are as good as the registry's own
	Account  Account
}

// Account is who we are at a registry. The zero value is anonymous.
type Account struct {
	Username     string
	Password     Secret // from Password or PasswordFile
	PasswordFile string
	DockerConfig string // path of a docker config.json with credentials or helpers
	Match        string // of FallbackCredentials: a pattern of the repositories that it is for; empty: all
}

// TagRule gives tags that match a time to live of their own.
type TagRule struct {
	Match string        // pattern of REPOSITORY:TAG, with *, ? and [sets]
	TTL   time.Duration // 0 means always ask, Forever never again
}

// Forever is a duration without end.
const Forever = time.Duration(math.MaxInt64)

// OnGone says what becomes of a tag that the registry does not have any more.
type OnGone string

// GoneKeep goes on serving it until it is evicted, GoneDrop forgets it.
const (
	GoneKeep OnGone = "keep"
	GoneDrop OnGone = "drop"
)

// Limited says what becomes of a request that the registry limits.
type Limited string

// LimitedRefuse answers it at once, LimitedWait holds it for a while.
const (
	LimitedRefuse Limited = "refuse"
	LimitedWait   Limited = "wait"
)

// Credentialed reports whether the registry, or one that stands in for it, gives us more than it may
// give others.
func (u *Upstream) Credentialed() bool {
	return u.named() || u.ClientCertFile != "" || slices.ContainsFunc(u.Endpoints, func(e Endpoint) bool { return e.Account.named() })
}

// named reports whether the registry itself is ever given a password.
func (u *Upstream) named() bool {
	return platforms[u.Credentials].names != nil || u.Account.named() || slices.ContainsFunc(u.FallbackCredentials, Account.named)
}

func (a Account) named() bool { return a != Account{} }

// publicDomain is the trust domain of public registries that are asked anonymously. No
// configured name can be it.
const publicDomain = "*public"

// TrustDomain returns the name of the upstreams that believe each other, this one among them.
func (u *Upstream) TrustDomain() string {
	if u.Trust != "" {
		return u.Trust
	}
	public := !u.Credentialed() && u.Access != AccessUpstream && registries.WellKnown(u.Name)
	for _, e := range u.Endpoints {
		at, err := url.Parse(e.URL)
		public = public && err == nil && registries.WellKnown(at.Host)
	}
	if public {
		return publicDomain
	}
	return u.Name
}

// freshnessFields are the keys that say what is asked for again, and when.
func (u *Upstream) freshnessFields() []field {
	return []field{
		key.Duration("tag_ttl", &u.TagTTL, 0, 365*parse.Day,
			"How long a tag is served without asking the registry whether it moved. Asking is one HEAD, which no registry counts as a pull. 0 asks every time."),
		rulesField(&u.TagRules),
		{Name: "refresh_ahead", Kind: key.Section, Doc: "Tags that are checked before their time is over, so that no client waits.", Fields: []field{
			key.Int("min_pulls", &u.RefreshMinPulls, 0, 1_000_000,
				"How often a tag must be pulled within its last two times to live to be checked in the background before it expires. It stops when the budget is low or nobody pulls any more. 0 turns it off."),
		}},
		foreverField("stale_if_error", &u.StaleIfError,
			"How old a tag may be that is served while the registry fails or limits, counted from when it was last confirmed. 0 serves none."),
		key.Choice("on_gone", &u.OnGone, []OnGone{GoneKeep, GoneDrop},
			"What becomes of a tag that the registry says it does not have any more: `keep` serves it, and pins it once that is certain (see `forebay vanished`); so it does with a repository that was read without credentials and is denied for good. `drop` forgets it. A registry that fails says nothing of the kind."),
		key.Duration("access_ttl", &u.AccessTTL, 0, 365*parse.Day,
			"How long the right to a repository holds that was last proven with the credentials. Then one HEAD proves it anew, and a refusal (401 or 403) stops serving what is kept of it; an outage does not. Without credentials there is nothing to prove. 0 never asks."),
		key.Choice("access", &u.Access, []Access{AccessMirror, AccessUpstream},
			"Who says what a client may have where no rule of `access` does. `mirror`: what the credentials of the mirror can read is for whom a rule names, and without credentials for everybody. `upstream`: the registry, which is asked by one HEAD with the user name and password that the client shows for it, or as nobody; its word holds for `access_ttl`, for that client and repository. They go to no other host than the registry and its token server. A client shows them when it is challenged by Basic. They are taken for those of the registry where that is told: by `ns`, by a name of the mirror in `hosts`, or because no other upstream of the listener is set so; others are taken for the mirror's own."),
		key.Bool("pass_through", &u.PassThrough, "With `access: upstream`: what a client may have and is not here is fetched with its own credentials, so that the mirror needs none."),
		key.Bool("offline", &u.Offline, "Never contacts this registry. What is kept is served, all else is not found."),
	}
}

// mannersFields are the keys that say how much is asked of the registry.
func (u *Upstream) mannersFields() []field {
	return []field{
		{Name: "budget", Kind: key.Section, Doc: "What is left of a pull limit.", Fields: []field{
			key.Percent("reserve", &u.Reserve,
				"Share of the limit that is kept for what nobody has yet. When less remains, nothing is checked in the background, and known tags are asked for by HEAD only, which costs nothing: those that moved are served stale. It matters only where the registry tells its limit, as Docker Hub does. 0% turns it off."),
		}},
		key.Choice("limited", &u.Limited, []Limited{LimitedRefuse, LimitedWait},
			"What becomes of a request for something new while the registry limits us: `refuse` answers 429 at once, upon which dockerd goes to the registry itself; `wait` holds it for up to `limited_wait`, if it may go through by then."),
		key.Duration("limited_wait", &u.LimitedWait, time.Second, limitedWaitMost,
			"How long `limited: wait` holds a request. At most 17s: clients are answered within 20s."),
	}
}

// limitedWaitMost leaves two of the 19 s in which the proxy answers for the request itself.
const limitedWaitMost = 17 * time.Second

// endpointsField is a list of URLs and of mappings for stand-ins.
func endpointsField(p *[]Endpoint) field {
	return field{Name: "endpoints", Kind: key.Records, What: "a list of URLs and mappings",
		Doc: "Where the registry is, tried in order, those that fail last: base URLs (what comes before /v2/). Default: https://NAME, and https://registry-1.docker.io for docker.io. A URL is the registry itself and gets its credentials. A mapping is another registry that stands in for it: it is asked for content by digest, which is verified, and never gets the registry's credentials.",
		Set: func(s string) error {
			v, err := parse.Endpoint(s)
			if err != nil {
				return err
			}
			for _, have := range *p {
				if have.URL == v {
					return fmt.Errorf("%q is there twice", parse.Clip(v))
				}
			}
			*p = append(*p, Endpoint{URL: v})
			return nil
		},
		Clear: func() { *p = nil },
		Get: func() []string {
			var list []string
			for _, e := range *p {
				list = append(list, e.URL)
			}
			return list
		},
		Element: func() []field {
			*p = append(*p, Endpoint{StandIn: true})
			return (&(*p)[len(*p)-1]).fields()
		},
		Elements: func() []key.Element {
			var list []key.Element
			for i := range *p {
				if e := &(*p)[i]; e.StandIn {
					list = append(list, key.Element{Fields: e.fields()})
				} else {
					list = append(list, key.Element{Text: e.URL})
				}
			}
			return list
		},
		Fields: (&Endpoint{}).fields()}
}

// fields returns the keys of a stand-in.
func (e *Endpoint) fields() []field {
	return append([]field{
		{Name: "url", What: "a URL", Doc: "Its base URL.",
			Set: key.Into(&e.URL, parse.Endpoint), Get: func() []string { return []string{e.URL} }},
		{Name: "rewrite", Kind: key.Section, Doc: "How it names repositories.", Fields: []field{
			prefixField("from", &e.From, "What the names begin with of the repositories that it carries, such as `library/`. It is not asked for others. Empty: all."),
			prefixField("to", &e.To, "What stands in that place there, such as `docker/library/`."),
		}},
		key.Bool("tags", &e.Tags, "Takes its word for what tags point to and for lists. Without it only digests are asked of it."),
	}, e.Account.fields()...)
}

// fields returns the keys of an account.
func (a *Account) fields() []field {
	return []field{
		key.Text("username", &a.Username, "User for the registry or its token server. Without one pulls are anonymous."),
		key.Secret("password", &a.Password, "Password or access token of `username`. Prefer `password_file`."),
		key.SecretFile("password_file", &a.PasswordFile, "File with the password; a line break at its end is dropped."),
		key.SecretFile("docker_config", &a.DockerConfig, "A file or its folder to take credentials from, in place of `username`: docker's config.json with its credential helpers, podman's auth.json, a mounted pull secret of Kubernetes, or the Secret as YAML or JSON. Keys for a part of the registry (`quay.io/team`) serve the repositories below it. Nothing in it for this registry is warned of at start."),
	}
}

// anonymous is an account without a name, as a text.
const anonymous = "anonymous"

// fallbackField is a list of accounts.
func fallbackField(p *[]Account) field {
	return field{Name: "fallback_credentials", Kind: key.Records, What: "a list of mappings, or the word `anonymous`",
		Doc: "Further credentials, each used only while those before it are refused or have no pulls left. It is not for getting round limits by rotating accounts. One with `match` is for the repositories that it fits, such as the robot of a team, and is used for them before all others.",
		Set: func(s string) error {
			if s != anonymous {
				return fmt.Errorf("%q is not usable: use %s, or a mapping with username and password_file", parse.Clip(s), anonymous)
			}
			*p = append(*p, Account{})
			return nil
		},
		Clear: func() { *p = nil },
		Get: func() []string {
			var list []string
			for _, a := range *p {
				if a == (Account{}) {
					list = append(list, anonymous)
				} else {
					list = append(list, a.Username+a.DockerConfig)
				}
			}
			return list
		},
		Element: func() []field {
			*p = append(*p, Account{})
			return (&(*p)[len(*p)-1]).further()
		},
		Elements: func() []key.Element {
			var list []key.Element
			for i := range *p {
				if a := &(*p)[i]; *a == (Account{}) {
					list = append(list, key.Element{Text: anonymous})
				} else {
					list = append(list, key.Element{Fields: a.further()})
				}
			}
			return list
		},
		Fields: (&Account{}).further()}
}

// further returns the keys of an account beside the first.
func (a *Account) further() []field {
	return append([]field{{Name: "match", What: "a pattern", Doc: "Pattern of repositories, without the name of the registry: `*` stands for any text, slashes too. `teama/*`. Empty: all.",
		Set: key.Into(&a.Match, parse.Match), Get: func() []string { return []string{a.Match} }}}, a.fields()...)
}

// rulesField is a list of tag rules, as mappings or MATCH=TTL.
func rulesField(p *[]TagRule) field {
	return field{Name: "tag_rules", Kind: key.Records, What: "a list of mappings, or of MATCH=TTL pairs",
		Doc: "Times to live for tags that match, in place of `tag_ttl`; the first match decides.",
		Set: func(s string) error {
			at := strings.LastIndex(s, "=")
			if at < 0 {
				return fmt.Errorf("%q is not a rule: use MATCH=TTL, such as library/*:latest=30s", parse.Clip(s))
			}
			match, err := parse.Match(strings.TrimSpace(s[:at]))
			if err != nil {
				return err
			}
			ttl, err := parseForever(strings.TrimSpace(s[at+1:]))
			if err != nil {
				return err
			}
			*p = append(*p, TagRule{match, ttl})
			return nil
		},
		Clear: func() { *p = nil },
		Get: func() []string {
			var list []string
			for _, r := range *p {
				list = append(list, r.Match+"="+formatForever(r.TTL))
			}
			return list
		},
		Element: func() []field {
			*p = append(*p, TagRule{TTL: unsetTTL})
			return (&(*p)[len(*p)-1]).fields()
		},
		Elements: func() []key.Element {
			var list []key.Element
			for i := range *p {
				list = append(list, key.Element{Fields: (&(*p)[i]).fields()})
			}
			return list
		},
		Fields: (&TagRule{}).fields()}
}

// unsetTTL is that of a rule that names none, until check refuses it.
const unsetTTL = time.Duration(-1)

func (r *TagRule) fields() []field {
	return []field{
		{Name: "match", What: "a pattern",
			Doc: "Pattern of REPOSITORY:TAG, or of REPOSITORY@DIGEST for the referrers of a digest: `*` stands for any text, slashes too, `?` for one character, `[0-9]` for one of a set. `library/*:latest`, `*:v[0-9]*.[0-9]*.[0-9]*`",
			Set: key.Into(&r.Match, parse.Match), Get: func() []string { return []string{r.Match} }},
		foreverField("ttl", &r.TTL, "As `tag_ttl`. 0 asks every time."),
	}
}

// foreverField is a duration that may have no end.
func foreverField(name string, p *time.Duration, doc string) field {
	return field{Name: name, What: "a duration or `forever`", Doc: doc,
		Set: key.Into(p, parseForever), Get: func() []string { return []string{formatForever(*p)} }}
}

func parseForever(s string) (time.Duration, error) {
	if s == "forever" {
		return Forever, nil
	}
	d, err := unit.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%w, or forever", err)
	}
	return d, nil
}

func formatForever(d time.Duration) string {
	switch d {
	case Forever:
		return "forever"
	case unsetTTL:
		return ""
	}
	return unit.FormatDuration(d)
}

// prefixPattern is the beginning of a repository's name.
var prefixPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._/:-]*$`)

func prefixField(name string, p *string, doc string) field {
	return field{Name: name, What: "the beginning of a repository's name", Doc: doc,
		Set: key.Into(p, func(s string) (string, error) {
			if s != "" && (!prefixPattern.MatchString(s) || strings.Contains(s, "//") || strings.Contains(s, "..")) {
				return "", fmt.Errorf("%q does not begin a repository's name: use lower-case letters, digits and slashes, such as library/", parse.Clip(s))
			}
			return s, nil
		}),
		Get: func() []string { return []string{*p} }}
}
