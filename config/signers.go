package config

import (
	"forebay/config/key"
	"forebay/config/rule"
)

// Signer is whose signatures a policy accepts.
type Signer = rule.Signer

// signersField is the list of signers.
func signersField(p *[]Signer) field {
	return key.Mappings("signers",
		"Who signs images, for `signed_by` of `policies`: by keys of cosign, by certificates for one signing (keyless), or as notation does. Files are read at the start and at SIGHUP. See docs/policies.md.",
		p, Signer{}, (*Signer).Fields)
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
