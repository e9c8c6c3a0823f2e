// Package section is what the configuration says in sections that stand for themselves: their values and keys.
//
// It promises that whatever it takes can be used as it is. It reads no files.
package section

import (
	"fmt"
	"net/url"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/internal/secret"
)

// Target is one that is told by HTTP what happened.
type Target struct {
	Name                             string
	URL, Secret, Headers             secret.Text // each from the file of that name, too
	URLFile, SecretFile, HeadersFile string
	Events                           []string // kinds of events. Default: those that somebody may have to act on
	Images                           []string // patterns of names. Default: all
	Template                         string   // of the body. Default: JSON
	ContentType                      string   // of what Template makes
	CAFile                           string   // PEM
}

// Fields returns the keys.
func (t *Target) Fields() []key.Key {
	return []key.Key{
		{Name: "name", What: "a word", Doc: "What logs and metrics call the target: letters, digits, `-`, `_` and `.`.",
			Set: key.Into(&t.Name, parse.Word), Get: func() []string { return []string{t.Name} }},
		{Name: "url", What: "a URL", Doc: "Where it is: `https://`, or `http://`, which is unencrypted. It may be on a private address. Prefer `url_file` where whoever knows it can post, as with those of chats.",
			Secret: t.URL.Reveal, Set: key.Into(&t.URL, HookURL), Get: func() []string { return []string{t.URL.String()} }},
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

// HookURL reads a URL that may be secret as a whole.
func HookURL(s string) (secret.Text, error) {
	if u, err := url.Parse(s); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return secret.Text{}, fmt.Errorf("is no URL to post to: use https:// and a host, and headers for a user or token") // which may be secret
	}
	return secret.New(s), nil
}
