package config

import (
	"fmt"
	"net/url"
	"strings"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/internal/secret"
)

// Target is one that is told by HTTP what happened.
type Target struct {
	Name                             string
	URL, Secret, Headers             Secret // each from the file of that name, too
	URLFile, SecretFile, HeadersFile string
	Events                           []string // kinds of events. Default: those that somebody may have to act on
	Images                           []string // patterns of names. Default: all
	Template                         string   // of the body. Default: JSON
	ContentType                      string   // of what Template makes
	CAFile                           string   // PEM
}

// notifyField is the list of targets.
func notifyField(p *[]Target) field {
	return key.Mappings("notify",
		"Who is told by an HTTP POST what happens, such as a chat, an alert manager or a pipeline. What does not arrive is tried again for some ten minutes; up to 256 messages wait for each target, and are lost when the mirror ends. Redirects are not followed. `forebay notify NAME` sends a sample. See docs/notify.md.",
		p, Target{}, (*Target).fields)
}

func (t *Target) fields() []field {
	return []field{
		{Name: "name", What: "a word", Doc: "What logs and metrics call the target: letters, digits, `-`, `_` and `.`.",
			Set: key.Into(&t.Name, parse.Word), Get: func() []string { return []string{t.Name} }},
		{Name: "url", What: "a URL", Doc: "Where it is: `https://`, or `http://`, which is unencrypted. It may be on a private address. Prefer `url_file` where whoever knows it can post, as with those of chats.",
			Secret: t.URL.Reveal, Set: key.Into(&t.URL, hookURL), Get: func() []string { return []string{t.URL.String()} }},
		key.SecretFile("url_file", &t.URLFile, "File with that URL; a line break at its end is dropped."),
		key.Secret("secret", &t.Secret, "Signs each message by HMAC-SHA256, in the headers `Webhook-Signature` (Standard Webhooks) and `X-Hub-Signature-256`. At least 16 characters; what begins with `whsec_` is base64. Empty: they are not signed. Prefer `secret_file`."),
		key.SecretFile("secret_file", &t.SecretFile, "File with that secret; a line break at its end is dropped."),
		key.Secret("headers", &t.Headers, "Headers that it wants, as `name=value` pairs separated by commas. Prefer `headers_file`."),
		key.SecretFile("headers_file", &t.HeadersFile, "File with those pairs, all in one line."),
		key.Texts("events", &t.Events, "kinds of events", parse.Kind, "What it is told of, such as `release_moved` or `vanished`; `forebay notify --kinds` lists all. Default: those that somebody may have to act on."),
		key.Texts("images", &t.Images, "patterns", parse.PinPattern, "Of events about images, only those of these are told: patterns as in `pins`. Default: all."),
		{Name: "template", What: "a text", Set: key.Into(&t.Template, func(s string) (string, error) { return s, nil }), Get: func() []string { return []string{t.Template} }, Doc: "Template of the body, in the language of Go's text/template, such as `{\"text\": {{json .Text}}}` for many chats. Default: JSON with all that is known."},
		key.Text("content_type", &t.ContentType, "Content-Type of the body. Default: application/json."),
		key.File("ca_file", &t.CAFile, "PEM certificates to trust beside the system's."),
	}
}

// hookURL reads a URL that may be secret as a whole.
func hookURL(s string) (Secret, error) {
	if u, err := url.Parse(s); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return Secret{}, fmt.Errorf("is no URL to post to: use https:// and a host, and headers for a user or token") // which may be secret
	}
	return secret.New(s), nil
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
		_, hook := hookURL(t.URL.Reveal())
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
