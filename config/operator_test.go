package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFaultsOfTheOperatorsKeys(t *testing.T) {
	for text, want := range map[string][]string{
		"admin_token: short":                                             {`forebay.yaml:1:14: admin_token: needs at least 16 characters and no blanks`},
		"admin_token: sixteen letters or":                                {`forebay.yaml:1:14: admin_token: needs at least 16 characters and no blanks`},
		"admin_token: 0123456789abcdef":                                  nil,
		"operators: {read: [anyone]}":                                    {`forebay.yaml:1:20: operators.read: "anyone" proves nothing, so that a web page could ask in its name: use known, group:NAME, certificate:NAME, or the name of a user or a token`},
		"operators: {admin: ['network:ci']}":                             {`forebay.yaml:1:21: operators.admin: "network:ci" proves nothing, so that a web page could ask in its name: use known, group:NAME, certificate:NAME, or the name of a user or a token`},
		"operators: {read: [alice]}":                                     {`forebay.yaml:1:19: operators.read: needs a way to prove who one is: set auth.htpasswd_file, auth.tokens_file, auth.issuers or admin_client_ca_file`},
		"operators: {read: [alice]}\nauth: {networks: {ci: 10.0.0.0/8}}": {`forebay.yaml:1:19: operators.read: needs a way to prove who one is: set auth.htpasswd_file, auth.tokens_file, auth.issuers or admin_client_ca_file`},
		"operators: {read: [known, 'group:a']}\nauth: {issuers: [{url: 'https://i.lan', audience: a}]}": nil,
		"admin_client_ca_file: /nowhere":                         {`forebay.yaml:1:23: admin_client_ca_file: needs admin_tls beside it: certificates of operators need TLS`},
		"admin_token_file: /nowhere":                             {`forebay.yaml:1:19: admin_token_file: open /nowhere: no such file or directory`},
		"scrub: {interval: -1d}":                                 {`forebay.yaml:1:19: scrub.interval: "-1d" is negative: use a number with a unit, such as 500ms, 30s, 5m, 2h or 1d`},
		"scrub: {interval: 0}":                                   nil,
		"pins: ['docker://nginx:1']":                             {`forebay.yaml:1:8: pins: "docker://nginx:1" has a scheme: leave it out`},
		"pins: ['index.docker.io/acme/*:v*']":                    {`forebay.yaml:1:8: pins: "index.docker.io/acme/*:v*" matches nothing: write docker.io in the place of index.docker.io`},
		"access: [{what: [index.docker.io/acme/*], deny: true}]": {`forebay.yaml:1:18: access[1].what: "index.docker.io/acme/*" matches nothing: write docker.io in the place of index.docker.io`},
		"pins: [nginx]":                                          {`forebay.yaml:1:8: pins: "nginx" names no tag: add one, or :* for all tags`},
		"pins: ['']":                                             {`forebay.yaml:1:8: pins: is empty: use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*`},
		"pins: ['a b:c']":                                        {`forebay.yaml:1:8: pins: "a b:c" is not a pattern of image names: use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*`},
		"pins: ['a:[z-a]']":                                      {`forebay.yaml:1:8: pins: "a:[z-a]" has no set of characters between [ and ]: use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*`},
		"pins: ['a:[']":                                          {`forebay.yaml:1:8: pins: "a:[" has no set of characters between [ and ]: use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*`},
		"pins: ['a:]', 'a:[]']":                                  {`forebay.yaml:1:8: pins: "a:]" has no set of characters between [ and ]: use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*`, `forebay.yaml:1:15: pins: "a:[]" has no set of characters between [ and ]: use a name such as nginx:1.27, or a pattern such as ghcr.io/owner/*:v*`},
		"pins: ['a:1', 'ghcr.io/*', 'x:[0-9]*']":                 nil,
		"trusted_networks: [10.0.0.0/8, 192.0.2.1, '2001:db8::/32', '::1']": nil,
		"trusted_networks: [10.0.0.1/8]":                                    {`forebay.yaml:1:20: trusted_networks: "10.0.0.1/8" has bits behind its mask: use 10.0.0.0/8, or the address alone`},
		"trusted_networks: [mirror.lan, '::ffff:10.0.0.1', 'fe80::1%eth0']": {`forebay.yaml:1:20: trusted_networks: "mirror.lan" is not a network: use one such as 10.20.0.0/16, or an address`, `forebay.yaml:1:32: trusted_networks: "::ffff:10.0.0.1" is not a network: use one such as 10.20.0.0/16, or an address`, `forebay.yaml:1:51: trusted_networks: "fe80::1%eth0" is not a network: use one such as 10.20.0.0/16, or an address`},
		"trusted_networks: [10.0.0.1, 10.0.0.1/32]":                         {`forebay.yaml:1:30: trusted_networks: "10.0.0.1/32" is there twice`},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := load(t, text)
			if want == nil {
				if err != nil {
					t.Errorf("Load = %v", err)
				}
				return
			}
			if diff := cmp.Diff(want, faultLines(t, text, err)); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAdminTokenIsMaskedAndReadFromItsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, "", "FOREBAY_ADMIN_TOKEN_FILE="+name, "FOREBAY_ADMIN=127.0.0.1:1")
	if got := c.AdminToken.Reveal(); got != "0123456789abcdef" {
		t.Errorf("admin token = %q", got)
	}
}
