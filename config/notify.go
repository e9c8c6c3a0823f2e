package config

import (
	"net/url"
	"strings"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/config/section"
)

// Target is one that is told by HTTP what happened.
type Target = section.Target

// notifyField is the list of targets.
func notifyField(p *[]Target) field {
	return key.Mappings("notify",
		"Who is told by an HTTP POST what happens, such as a chat, an alert manager or a pipeline. What does not arrive is tried again for some ten minutes; up to 256 messages wait for each target, and are lost when the mirror ends. Redirects are not followed. `forebay notify NAME` sends a sample. See docs/notify.md.",
		p, Target{}, (*Target).Fields)
}

// checkNotify reads the secrets of the targets and finds what is missing.
func (d *decoder) checkNotify() {
	names := map[string]bool{}
	for i := range d.config.Notify {
		t, at := &d.config.Notify[i], nth("notify", i)
		fault := func(format string, args ...any) { d.Add(d.config.origins[at], at, format, args...) }
		before := len(d.Faults)
		d.password(at, "url", &t.URL, "url_file", &t.URLFile)
		d.password(at, "secret", &t.Secret, "secret_file", &t.SecretFile)
		d.password(at, "headers", &t.Headers, "headers_file", &t.HeadersFile)
		if len(d.Faults) > before {
			continue
		}
		_, headers := parse.HeaderPairs(t.Headers.Reveal())
		_, hook := section.HookURL(t.URL.Reveal())
		switch {
		case t.Name == "":
			fault("needs a name")
		case names[t.Name]:
			fault("%s is there twice: give each target a name of its own", t.Name)
		case t.URL.Empty():
			fault("needs url or url_file")
		case hook != nil:
			fault("url_file: %s", hook)
		case headers != nil:
			fault("headers: %s", headers)
		case !t.Secret.Empty() && len(t.Secret.Reveal()) < 16:
			fault("its secret is easily guessed: use at least 16 characters")
		}
		names[t.Name] = true
	}
}

// FaultAt returns what is wrong with a key, where it stands.
func (c *Config) FaultAt(key string, err error) Fault {
	return Fault{Where: c.origins[key], Key: key, Problem: err.Error()}
}

// notify warns of what is told unencrypted.
func (w *warner) notify() {
	for i, t := range w.config.Notify {
		u, err := url.Parse(t.URL.Reveal())
		if err == nil && u.Scheme == "http" && !parse.Loopback(u.Hostname()) && (t.URLFile != "" || !t.Headers.Empty() || strings.Contains(u.RawQuery, "=")) {
			w.add(nth("notify", i), "%s is told over plain HTTP, its headers and path included: use https://", t.Name)
		}
	}
}
