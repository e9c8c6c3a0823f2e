package config

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

// signersField is the list of signers.
func signersField(p *[]Signer) field {
	return key.Mappings("signers",
		"Who signs images, for `signed_by` of `policies`: by keys of cosign, by certificates for one signing (keyless), or as notation does. Files are read at the start and at SIGHUP. See docs/policies.md.",
		p, Signer{}, (*Signer).fields)
}

func (s *Signer) fields() []field {
	return []field{
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

// checkSigners finds signers that sign in no way or in two; what is in their files is looked at later.
func (d *decoder) checkSigners() {
	names := map[string]bool{}
	for i := range d.config.Signers {
		s, at := &d.config.Signers[i], nth("signers", i)
		fault := func(format string, args ...any) { d.Add(d.config.origins[at], at, format, args...) }
		given := 0
		for _, is := range []bool{len(s.Keys) > 0, s.Issuer+s.Subject+s.SubjectRegexp != "", s.Notation != ""} {
			if is {
				given++
			}
		}
		switch {
		case s.Name == "":
			fault("needs a name")
		case names[s.Name]:
			fault("%s is there twice: give each signer a name of its own", s.Name)
		case given != 1:
			fault("needs one of keys, issuer with subject, and notation")
		}
		names[s.Name] = true
	}
}
