package section

import (
	"fmt"
	"strconv"
	"strings"

	"forebay/config/key"
	"forebay/config/parse"
	"forebay/internal/secret"
	"forebay/internal/wire"
)

// Fleet is what several mirrors know together.
type Fleet struct {
	Engine       string      // URL; empty: a mirror is alone
	Password     secret.Text // from Password or PasswordFile: of the engine
	PasswordFile string
	Secret       secret.Text // from Secret or SecretFile: one for all mirrors
	SecretFile   string
	Listen       string // for the other mirrors; "off" for none. Default ":5002"
	Advertise    string // HOST or HOST:PORT by which they reach it; empty: that from which the engine is reached
	Zone         string
	Fanout       int // mirrors of a zone that get the same thing from one at a time
}

// FleetOff is the Listen of a mirror that shares tags with the others and nothing else.
const FleetOff = "off"

// Fields returns the keys.
func (f *Fleet) Fields() []key.Key {
	return []key.Key{
		{Name: "engine", What: "a URL",
			Doc: "Server of the Redis protocol, 7.0 or later, or Valkey, that all mirrors share: `valkey://HOST:6379`, `redis://`, with TLS `valkeys://` or `rediss://`, or `sentinel://HOST,HOST/MASTER`; `USER@` before the host where it has users. It may be lost at any time: then each mirror asks registries by itself. Empty: this mirror is alone.",
			Set: key.Into(&f.Engine, func(s string) (string, error) {
				_, err := parse.EngineOf(s)
				return s, err
			}), Get: func() []string { return []string{f.Engine} }},
		key.Secret("password", &f.Password, "Password for the engine. Prefer `password_file`."),
		key.SecretFile("password_file", &f.PasswordFile, "File with that password; a line break at its end is dropped."),
		key.Secret("secret", &f.Secret, "Text that all mirrors of the fleet have and nobody else, of at least 32 characters, such as `openssl rand -hex 32` prints. What is in the engine is believed only if it was signed by it. Prefer `secret_file`."),
		{Name: "listen", What: "an address", Doc: "Where the other mirrors get blobs and manifests from this one while it fetches them, and afterwards: host:port, or `off`. Encrypted, for those who have the secret. Default `:5002`.",
			Set: key.Into(&f.Listen, func(s string) (string, error) {
				if s == FleetOff {
					return s, nil
				}
				return parse.Address(s)
			}), Get: func() []string { return []string{f.Listen} }},
		{Name: "advertise", What: "a host", Doc: "How the others reach that listener: a host or address, and a port if it is another one. Default: the address from which the engine is reached.",
			Set: key.Into(&f.Advertise, reachable), Get: func() []string { return []string{f.Advertise} }},
		key.Text("zone", &f.Zone, "Where this mirror is, such as a zone of a cloud: what comes from another zone comes once. Default: all are in one."),
		{Name: "fanout", What: "a number", Doc: "How many mirrors of a zone get the same thing from one mirror at a time; further ones get it from these. Default 4.",
			Set: key.Into(&f.Fanout, func(s string) (int, error) {
				n, err := strconv.Atoi(s)
				if err != nil || n < 1 || n > 100 {
					return 0, fmt.Errorf("%q is no number of mirrors: use 1 to 100", parse.Clip(s))
				}
				return n, nil
			}), Get: func() []string { return []string{strconv.Itoa(f.Fanout)} }},
		key.SecretFile("secret_file", &f.SecretFile, "File with that text; a line break at its end is dropped."),
	}
}

// reachable checks where other mirrors are to connect to.
func reachable(s string) (string, error) {
	host, err := parse.Host(s)
	if err != nil {
		return "", err
	}
	if name, _ := wire.Host(host); parse.EveryAddress(strings.Trim(name, "[]")) {
		return "", fmt.Errorf("%q is where one listens and not where one connects to: use an address of this machine, or its name", parse.Clip(s))
	}
	return host, nil
}
