package config

import (
	"cmp"
	"net/url"
	"os"
	"slices"
	"strings"

	"forebay/config/fault"
	"forebay/config/key"
	"forebay/config/parse"
	"forebay/internal/registries"
)

// Warnings returns what works and may not be meant: passwords and tokens that go over plain
// HTTP, credentials that serve whoever reaches the listener, files with secrets that others
// can read, a store without room, rules about no image, what nobody expands, and variables that mean nothing. None of them
// holds a secret.
func (c *Config) Warnings() []Fault {
	w := warner{config: c, Collector: fault.Collector{Faults: slices.Clone(c.foreign)}}
	w.listeners()
	for i := range c.Upstreams {
		w.upstream(&c.Upstreams[i])
	}
	if s := c.Storage; s.MaxSize > 0 && s.MaxSize < sizeSound && s.IndexDir == "" {
		w.add("storage.max_size", "the index takes up to 64MiB of it, which leaves little for blobs: set %dMiB or more, or storage.index_dir", sizeSound>>20)
	}
	if parse.PlainHTTP(c.Tracing.Endpoint) && !c.Tracing.Headers.Empty() {
		w.add("tracing.endpoint", "%s gets the headers unencrypted: use https://", c.Tracing.Endpoint)
	}
	for i, issuer := range c.Auth.Issuers {
		if parse.PlainHTTP(issuer.URL) {
			w.add(nth("auth.issuers", i)+".url", "%s says unencrypted whose tokens are right: use https://", issuer.URL)
		}
	}
	w.notify()
	w.policies()
	w.files()
	slices.SortStableFunc(w.Faults, func(a, b Fault) int { return cmp.Compare(a.Key, b.Key) })
	return w.Faults
}

type warner struct {
	fault.Collector
	config *Config
}

func (w *warner) add(key, format string, args ...any) {
	w.Collector.Add(w.config.origins[key], key, format, args...)
}

// listeners warns of what comes in unencrypted, and of what goes out to everybody.
func (w *warner) listeners() {
	c := w.config
	if open := c.AdminListen != "" && !OnLoopback(c.AdminListen); open && !c.AdminTLS.Enabled() {
		if !c.AdminToken.Empty() || c.Operators.Given() {
			w.add("admin_listen", "what operators show comes to %s unencrypted: set admin_tls, or listen on a loopback address", c.AdminListen)
		}
		if !c.Webhooks.Secret.Empty() {
			w.add("webhooks.secret", "unless it signs, it comes to %s unencrypted: set admin_tls, or have a proxy on this machine that speaks TLS", c.AdminListen)
		}
	}
	for _, key := range c.plainDoors() {
		w.add(key, "passwords and tokens of clients come in unencrypted: set tls, or have a proxy on this machine that speaks TLS")
	}
	if OnLoopback(c.Listen) {
		return
	}
	if c.Webhooks.OnListen && !c.Webhooks.Secret.Empty() && !c.TLS.Enabled() {
		w.add("webhooks.on_listen", "unless it signs, the secret comes to %s unencrypted: set tls, or have a proxy on this machine that speaks TLS", c.Listen)
	}
	var names []string
	for i := range c.Upstreams {
		if u := &c.Upstreams[i]; !u.Offline && u.Credentialed() && u.Access != AccessUpstream {
			names = append(names, u.Name)
		}
	}
	if len(names) > 0 && !c.Restricted() {
		w.add("listen", "whoever reaches %s can pull what the credentials of %s may read: say who may by access, let only those reach it, or listen on a loopback address",
			c.Listen, strings.Join(names, ", "))
	}
}

// upstream warns of passwords that go out unencrypted, and of what is no registry.
func (w *warner) upstream(u *Upstream) {
	path := "upstreams." + u.Name
	for i := range u.Endpoints {
		e := &u.Endpoints[i]
		if at, err := url.Parse(e.URL); err == nil && (at.Host == registries.Hub || at.Host == "hub.docker.com") {
			w.add(join(path, "endpoints"), "%s is a web site and no registry: write %s", e.URL, registries.Find(registries.Hub).Endpoint)
		}
		if gets := e.StandIn && e.Account.named() || !e.StandIn && u.named(); gets && parse.PlainHTTP(e.URL) {
			w.add(join(path, "endpoints"), "%s gets the password unencrypted: use https://", e.URL)
		}
	}
	if u.ProxyUsername != "" && parse.PlainHTTP(u.Proxy) {
		w.add(join(path, "proxy"), "%s gets the password unencrypted: use https://", u.Proxy)
	}
}

// policies warns of rules about registries that are no upstreams: a slip of the pen protects nobody.
func (w *warner) policies() {
	for i, r := range w.config.Policies {
		for _, pattern := range r.Match {
			host, _, found := strings.Cut(pattern, "/")
			named := strings.ContainsAny(host, ".:") && !strings.ContainsAny(host, "*?[")
			if found && named && !slices.ContainsFunc(w.config.Upstreams, func(u Upstream) bool { return u.Name == host }) {
				w.add(nth("policies", i)+".match", "%s is about no image: %s is not among upstreams", pattern, host)
			}
		}
	}
}

// files warns of files with secrets that others can read, and of what a shell was to make of a value.
func (w *warner) files() {
	c := w.config
	inFile := ""
	check := func(path string, f field) {
		texts := f.Get()
		if f.Secret != nil {
			texts = []string{f.Secret()}
		}
		if slices.ContainsFunc(texts, parse.Unexpanded) {
			w.add(path, "looks like a variable or ~, which nobody expands here: write what it stands for, or set the key by its own variable")
		}
		switch {
		case f.Secret != nil && f.Get()[0] != "" && c.origins[path].Source == fault.FromFile:
			inFile = cmp.Or(inFile, path)
		case f.Private && f.Get()[0] != "":
			w.file(path, f.Get()[0])
		}
	}
	walk("", c.fields(), check)
	for path, u := range c.configured() {
		walk(path, u.fields(), check)
	}
	if inFile != "" {
		w.file(inFile, c.File)
	}
}

// file warns if others can read a file. One that cannot be looked at is somebody else's to tell.
func (w *warner) file(path, name string) {
	name = registries.LoginFile(name) // the one key that may name a folder is docker_config
	info, err := os.Stat(name)
	if err != nil {
		return
	}
	const group, others = 0o060, 0o006 // who can write can read: what is written is what is used
	var who string
	switch mode := info.Mode().Perm(); {
	case mode&others != 0:
		who = "every user of this machine"
	case mode&group != 0:
		who = "its group"
	default:
		return
	}
	w.add(path, "%q can be read by %s (mode %04o): chmod 600", name, who, info.Mode().Perm())
}

// walk calls fn with every field that has a value of its own, and its path.
func walk(path string, fields []field, fn func(path string, f field)) {
	for _, f := range fields {
		at := join(path, f.Name)
		switch f.Kind {
		case key.Section:
			walk(at, f.Fields, fn)
		case key.Records:
			fn(at, f)
			for i, e := range f.Elements() {
				walk(nth(at, i), e.Fields, fn)
			}
		default:
			fn(at, f)
		}
	}
}
