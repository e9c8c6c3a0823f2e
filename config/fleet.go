package config

import (
	"forebay/config/key"
	"forebay/config/parse"
)

// secretLeast is how long the secret of a fleet must be at least: what is signed by it can be tried offline.
const secretLeast = 32

// Fleet is what several mirrors know together.
type Fleet struct {
	Engine       string // URL; empty: a mirror is alone
	Password     Secret // from Password or PasswordFile: of the engine
	PasswordFile string
	Secret       Secret // from Secret or SecretFile: one for all mirrors
	SecretFile   string
}

func (f *Fleet) fields() []field {
	return []field{
		{Name: "engine", What: "a URL",
			Doc: "Server of the Redis protocol, 7.0 or later, or Valkey, that all mirrors share: `valkey://HOST:6379`, `redis://`, with TLS `valkeys://` or `rediss://`, or `sentinel://HOST,HOST/MASTER`; `USER@` before the host where it has users. It may be lost at any time: then each mirror asks registries by itself. Empty: this mirror is alone.",
			Set: key.Into(&f.Engine, func(s string) (string, error) {
				_, err := parse.EngineOf(s)
				return s, err
			}), Get: func() []string { return []string{f.Engine} }},
		key.Secret("password", &f.Password, "Password for the engine. Prefer `password_file`."),
		key.SecretFile("password_file", &f.PasswordFile, "File with that password; a line break at its end is dropped."),
		key.Secret("secret", &f.Secret, "Text that all mirrors of the fleet have and nobody else, of at least 32 characters, such as `openssl rand -hex 32` prints. What is in the engine is believed only if it was signed by it. Prefer `secret_file`."),
		key.SecretFile("secret_file", &f.SecretFile, "File with that text; a line break at its end is dropped."),
	}
}

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
