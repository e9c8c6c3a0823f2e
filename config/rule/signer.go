package rule

import (
	"forebay/config/key"
	"forebay/config/parse"
)

// Signer is whose signatures a policy accepts: one of Keys, Issuer and Notation.
type Signer struct {
	Name                   string
	Keys                   []string // PEM files
	Issuer                 string
	Subject, SubjectRegexp string
	TrustedRoot            string // file
	Notation               string // folder
}

// Fields returns the keys.
func (s *Signer) Fields() []key.Key {
	return []key.Key{
		{Name: "name", What: "a word", Doc: "What `signed_by` calls it: letters, digits, `-`, `_` and `.`.",
			Set: key.Into(&s.Name, parse.Word), Get: func() []string { return []string{s.Name} }},
		{Name: "keys", Kind: key.List, What: "a list of file names", File: true, Doc: "PEM files with public keys of cosign, of which one must have signed.",
			Set: func(text string) error { s.Keys = append(s.Keys, text); return nil }, Clear: func() { s.Keys = nil }, Get: func() []string { return s.Keys }},
		key.Text("issuer", &s.Issuer, "Keyless: who told the certificate authority who the signer is, such as `https://token.actions.githubusercontent.com`."),
		key.Text("subject", &s.Subject, "Keyless: who the signer is, as a pattern in which `*` stands for any text: `https://github.com/owner/*/.github/workflows/release.yml@refs/tags/*`."),
		key.Text("subject_regexp", &s.SubjectRegexp, "Keyless: the same as a regular expression of the whole."),
		key.File("trusted_root", &s.TrustedRoot, "File that says whose certificates, logs and timestamps count (`trusted_root.json` of sigstore, which `cosign trusted-root create` makes for one's own). Keyless needs it. Beside `keys`, what they signed must be in one of its logs; without it no log is asked for."),
		key.File("notation", &s.Notation, "Folder with `truststore/` and `trustpolicy.json`, as notation's own. Revocation is asked for where the policy wants that."),
	}
}
