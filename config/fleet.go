package config

import "forebay/config/section"

// secretLeast is how long the secret of a fleet must be at least: what is signed by it can be tried offline.
const secretLeast = 32

// Fleet is what several mirrors know together.
type Fleet = section.Fleet

func (d *decoder) checkFleet() {
	f := &d.config.Fleet
	d.password("fleet", "password", &f.Password, "password_file", &f.PasswordFile)
	d.password("fleet", "secret", &f.Secret, "secret_file", &f.SecretFile)
	name := "fleet.secret"
	if f.SecretFile != "" {
		name = "fleet.secret_file"
	}
	at := d.config.origins[name]
	switch n := len(f.Secret.Reveal()); {
	case f.Engine == "" && (n > 0 || !f.Password.Empty()):
		d.Add(at, name, "there is no engine that it is for: set fleet.engine")
	case f.Engine != "" && n == 0:
		d.Add(d.config.origins["fleet.engine"], "fleet.engine", "without a secret anybody who can write there could move tags: set fleet.secret_file, to the same text for all mirrors")
	case n > 0 && n < secretLeast:
		d.Add(at, name, "has %d characters, want at least %d: openssl rand -hex 32 prints some", n, secretLeast)
	}
}
