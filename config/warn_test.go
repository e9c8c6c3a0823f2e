package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// warned returns the warnings of a configuration, without where they come from.
func warned(t *testing.T, text string, env ...string) []string {
	t.Helper()
	var all []string
	for _, w := range mustLoad(t, text, env...).Warnings() {
		w.Where = Origin{}
		all = append(all, w.String())
	}
	return all
}

func TestWhatNobodyExpandsIsWarnedOf(t *testing.T) {
	const said = ": looks like a variable or ~, which nobody expands here: write what it stands for, or set the key by its own variable"
	account := func(password string) string {
		return "listen: 127.0.0.1:5000\nupstreams: {docker.io: {username: u, password: '" + password + "'}}"
	}
	for text, want := range map[string][]string{
		account("$HUB_PASSWORD"):           {"upstreams.docker.io.password" + said},
		account("${HUB_PASSWORD}"):         {"upstreams.docker.io.password" + said},
		account("pa$word"):                 nil,
		account("$1a/~x"):                  nil,
		"storage: {dir: ~/cache}":          {"storage.dir" + said},
		"storage: {dir: /srv/$HOST/cache}": {"storage.dir" + said},
		"storage: {dir: '${HOME}/cache'}":  {"storage.dir" + said},
		"storage: {dir: /srv/a~b}":         nil,
	} {
		if diff := cmp.Diff(want, warned(t, text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if diff := cmp.Diff([]string{"storage.dir" + said}, warned(t, "", "FOREBAY_STORAGE_DIR=~/x")); diff != "" {
		t.Errorf("from the environment (-want +got):\n%s", diff)
	}
}

func TestSecretsInTheClearAreWarnedOf(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2"
	account := "{username: u, password: " + secret + "}"
	const private = "listen: 127.0.0.1:5000\n"
	open := func(addr, names string) string {
		return "listen: whoever reaches " + addr + " can pull what the credentials of " + names + " may read: say who may by access, let only those reach it, or listen on a loopback address"
	}
	plain := func(key, url string) string { return key + ": " + url + " gets the password unencrypted: use https://" }
	for text, want := range map[string][]string{
		"": nil,
		"upstreams: {docker.io: " + account + "}": {open(":5000", "docker.io")},
		"listen: 10.0.0.1:5000\nupstreams: {ghcr.io: " + account + ", docker.io: {}, quay.io: " + account + "}": {open("10.0.0.1:5000", "ghcr.io, quay.io")},
		"upstreams: {docker.io: {fallback_credentials: [anonymous]}}":                                           nil,
		"upstreams: {docker.io: {fallback_credentials: [" + account + "]}}":                                     {open(":5000", "docker.io")},
		"upstreams: {public.ecr.aws: {credentials: aws}}":                                                       {open(":5000", "public.ecr.aws")},
		"offline: true\nupstreams: {docker.io: " + account + "}":                                                nil,
		private + "upstreams: {docker.io: " + account + "}":                                                     nil,
		"listen: localhost:5000\nupstreams: {docker.io: " + account + "}":                                       nil,
		"listen: '[::1]:5000'\nupstreams: {docker.io: " + account + "}":                                         nil,

		private + "upstreams: {r.lan: {endpoints: ['http://r.lan:5000', 'https://r.lan'], username: u, password: " + secret + "}}":                          {plain("upstreams.r.lan.endpoints", "http://r.lan:5000")},
		private + "upstreams: {r.lan: {endpoints: ['http://10.1.1.1'], fallback_credentials: [" + account + "]}}":                                           {plain("upstreams.r.lan.endpoints", "http://10.1.1.1")},
		private + "upstreams: {r.lan: {endpoints: ['http://r.lan'], fallback_credentials: [anonymous]}}":                                                    nil,
		private + "upstreams: {r.lan: {endpoints: ['http://r.lan']}}":                                                                                       nil,
		private + "upstreams: {r.lan: {endpoints: ['http://127.0.0.1:5000', 'http://localhost', 'http://[::1]:1'], username: u, password: " + secret + "}}": nil,
		private + "upstreams: {r.lan: {endpoints: ['https://r.lan', {url: 'http://other.lan', username: u, password: " + secret + "}]}}":                    {plain("upstreams.r.lan.endpoints", "http://other.lan")},
		private + "upstreams: {r.lan: {endpoints: ['https://r.lan', {url: 'http://other.lan'}], username: u, password: " + secret + "}}":                    nil,
		"upstreams: {r.lan: {endpoints: ['https://r.lan', {url: 'https://other.lan', username: u, password: " + secret + "}]}}":                             {open(":5000", "r.lan")},
		private + "upstreams: {r.lan: {proxy: 'http://p.lan:3128', proxy_username: u, proxy_password: " + secret + "}}":                                     {plain("upstreams.r.lan.proxy", "http://p.lan:3128")},
		private + "upstreams: {r.lan: {proxy: 'http://127.0.0.1:3128', proxy_username: u, proxy_password: " + secret + "}}":                                 nil,
		private + "upstreams: {r.lan: {proxy: 'http://p.lan:3128'}}":                                                                                        nil,

		private + "upstreams: {docker.io: {}, 'r.lan:5000': {endpoints: ['https://r.lan:5000']}}\npolicies: [{name: a, age: 1d, match: [docker.io/*, nginx, o/a, '*.lan:5000/*', 'r.lan:5000/*', ghrc.io/o/*]}]\n": {
			"policies[1].match: ghrc.io/o/* is about no image: ghrc.io is not among upstreams"},
		"upstreams: {docker.io: {endpoints: ['https://docker.io']}, hub.docker.com: {}}": {
			"upstreams.docker.io.endpoints: https://docker.io is a web site and no registry: write https://registry-1.docker.io",
			"upstreams.hub.docker.com.endpoints: https://hub.docker.com is a web site and no registry: write https://registry-1.docker.io",
		},
		"upstreams: {docker.io: {endpoints: ['https://index.docker.io']}}": nil,

		"tls: {acme: {hosts: [a.b]}}\nauth: {issuers: [{url: 'http://i.lan', audience: a}, {url: 'http://127.0.0.1', audience: a}]}": {"auth.issuers[1].url: http://i.lan says unencrypted whose tokens are right: use https://"},

		"storage: {max_size: 255MiB}":                 {"storage.max_size: the index takes up to 64MiB of it, which leaves little for blobs: set 256MiB or more, or storage.index_dir"},
		"storage: {max_size: 255MiB, index_dir: /ix}": nil,
		"storage: {max_size: 256MiB}":                 nil,

		"admin_listen: :5001\nadmin_token: " + secret: {"admin_listen: what operators show comes to :5001 unencrypted: set admin_tls, or listen on a loopback address"},
		"admin_listen: :5001\noperators: {read: [known]}\nauth: {issuers: [{url: 'https://i.lan', audience: a}]}\nlisten: 127.0.0.1:5000": {"admin_listen: what operators show comes to :5001 unencrypted: set admin_tls, or listen on a loopback address"},
		"admin_listen: 127.0.0.1:5001\nadmin_token: " + secret:                                                                            nil,
		"admin_listen: 'off'\nadmin_token: " + secret:                                                                                     nil,
		"admin_listen: :5001": nil,
		"admin_listen: :5001\nwebhooks: {secret: " + secret + "}":       {"webhooks.secret: unless it signs, it comes to :5001 unencrypted: set admin_tls, or have a proxy on this machine that speaks TLS"},
		"webhooks: {on_listen: true, secret: " + secret + "}":           {"webhooks.on_listen: unless it signs, the secret comes to :5000 unencrypted: set tls, or have a proxy on this machine that speaks TLS"},
		private + "webhooks: {on_listen: true, secret: " + secret + "}": nil,
		"webhooks: {secret: " + secret + "}":                            nil,

		"tracing: {endpoint: 'http://c.lan:4318', headers: a=" + secret + "}":     {"tracing.endpoint: http://c.lan:4318 gets the headers unencrypted: use https://"},
		"tracing: {endpoint: 'http://c.lan:4318'}":                                nil,
		"tracing: {endpoint: 'http://localhost:4318', headers: a=" + secret + "}": nil,
	} {
		got := warned(t, text)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("warnings of %s (-want +got):\n%s", text, diff)
		}
		if strings.Contains(strings.Join(got, "\n"), secret) {
			t.Errorf("warnings of %s tell the secret:\n%q", text, got)
		}
	}
}

func TestAListenerWithACertificateIsNotWarnedOf(t *testing.T) {
	cert, key := writeCertificate(t, t.TempDir())
	if got := warned(t, "admin_listen: :5001\nadmin_token: 0123456789abcdef\nwebhooks: {secret: 0123456789abcdef}\nadmin_tls: {cert_file: '"+cert+"', key_file: '"+key+"'}"); got != nil {
		t.Errorf("warnings of a token over TLS = %q", got)
	}
}

// Every key that names a file with a secret is here; a new one must be, too.
func TestSecretFilesThatOthersCanReadAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	write(t, file, "0123456789abcdef\n")
	docker := filepath.Join(dir, "docker")
	if err := os.Mkdir(docker, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(docker, "config.json"), "{}")
	cert, key := writeCertificate(t, dir)
	const private = "listen: 127.0.0.1:5000\n"
	texts := map[string]struct{ text, file string }{
		"admin_token_file":                                   {"admin_token_file: '" + file + "'", file},
		"tls.key_file":                                       {"tls: {cert_file: '" + cert + "', key_file: '" + key + "'}", key},
		"admin_tls.key_file":                                 {"admin_tls: {cert_file: '" + cert + "', key_file: '" + key + "'}", key},
		"auth.htpasswd_file":                                 {"auth: {htpasswd_file: '" + file + "'}", file},
		"auth.tokens_file":                                   {"auth: {tokens_file: '" + file + "'}", file},
		"auth.issuers.bearer_file":                           {"auth: {issuers: [{url: 'https://i.lan', audience: a, bearer_file: '" + file + "'}]}", file},
		"webhooks.secret_file":                               {"webhooks: {secret_file: '" + file + "'}", file},
		"fleet.password_file":                                {"fleet: {engine: 'valkey://e.lan', password_file: '" + file + "', secret: '" + strings.Repeat("0123456789abcdef", 2) + "'}", file},
		"fleet.secret_file":                                  {"fleet: {engine: 'valkey://e.lan', secret_file: '" + filepath.Join(dir, "long") + "'}", filepath.Join(dir, "long")},
		"tracing.headers_file":                               {"tracing: {endpoint: 'https://c.lan', headers_file: '" + filepath.Join(dir, "pair") + "'}", filepath.Join(dir, "pair")},
		"storage.s3.access_key_id_file":                      {"storage: {s3: {bucket: b-b, access_key_id_file: '" + file + "', secret_access_key: x}}", file},
		"storage.s3.secret_access_key_file":                  {"storage: {s3: {bucket: b-b, access_key_id: x, secret_access_key_file: '" + file + "'}}", file},
		"upstreams.r.lan.password_file":                      {"upstreams: {r.lan: {username: u, password_file: '" + file + "'}}", file},
		"upstreams.r.lan.docker_config":                      {"upstreams: {r.lan: {docker_config: '" + docker + "'}}", filepath.Join(docker, "config.json")},
		"upstreams.r.lan.client_key_file":                    {"upstreams: {r.lan: {client_cert_file: '" + cert + "', client_key_file: '" + key + "'}}", key},
		"upstreams.r.lan.proxy_password_file":                {"upstreams: {r.lan: {proxy: 'https://p.lan', proxy_username: u, proxy_password_file: '" + file + "'}}", file},
		"upstreams.r.lan.endpoints.password_file":            {"upstreams: {r.lan: {endpoints: ['https://r.lan', {url: 'https://o.lan', username: u, password_file: '" + file + "'}]}}", file},
		"upstreams.r.lan.endpoints.docker_config":            {"upstreams: {r.lan: {endpoints: ['https://r.lan', {url: 'https://o.lan', docker_config: '" + docker + "'}]}}", filepath.Join(docker, "config.json")},
		"upstreams.r.lan.fallback_credentials.password_file": {"upstreams: {r.lan: {fallback_credentials: [{username: u, password_file: '" + file + "'}]}}", file},
		"upstreams.r.lan.fallback_credentials.docker_config": {"upstreams: {r.lan: {fallback_credentials: [{docker_config: '" + docker + "'}]}}", filepath.Join(docker, "config.json")},
	}
	write(t, filepath.Join(dir, "pair"), "a=0123456789abcdef")
	write(t, filepath.Join(dir, "long"), strings.Repeat("0123456789abcdef", 2))
	c := mustLoad(t, "auth: {issuers: [{url: 'https://i.lan', audience: a}]}\nupstreams: {r.lan: {endpoints: ['https://r.lan', {url: 'https://o.lan'}], fallback_credentials: [{username: u, password: p}]}}")
	u := c.Upstream("r.lan")
	known := map[string]bool{}
	note := func(path string, f field) {
		path = strings.NewReplacer("[1]", "", "[2]", "").Replace(path)
		known[path] = true
		if _, there := texts[path]; f.File && !there && f.Name != "cert_file" && f.Name != "client_cert_file" && f.Name != "audit" && f.Name != "ca_file" && f.Name != "client_ca_file" && f.Name != "admin_client_ca_file" && f.Name != "dir" && f.Name != "index_dir" && path != "client_names.file" {
			t.Errorf("%s names a file, which is neither among those that hold secrets nor among those that do not", path)
		}
	}
	walk("", c.fields(), note)
	walk("upstreams.r.lan", u.fields(), note)
	for key, one := range texts {
		if !known[key] {
			t.Errorf("there is no key %s", key)
		}
		for mode, want := range map[os.FileMode]string{
			0o600: "", 0o400: "", 0o640: "its group (mode 0640)", 0o644: "every user of this machine (mode 0644)", 0o604: "every user of this machine (mode 0604)",
			0o660: "its group (mode 0660)", 0o620: "its group (mode 0620)",
		} {
			if err := os.Chmod(one.file, mode); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(warned(t, private+one.text), "\n")
			if wants := `"` + one.file + `" can be read by ` + want + ": chmod 600"; want == "" && got != "" || want != "" && !strings.HasSuffix(got, wants) {
				t.Errorf("warnings of %s with mode %04o = %q, want %q", key, mode, got, want)
			}
		}
	}
}

func TestAConfigurationFileWithSecretsIsWarnedOf(t *testing.T) {
	for text, want := range map[string]string{
		"listen: 127.0.0.1:5000\nadmin_token: 0123456789abcdef":                                            "admin_token",
		"listen: 127.0.0.1:5000\nupstreams: {r.lan: {fallback_credentials: [{username: u, password: p}]}}": "upstreams.r.lan.fallback_credentials[1].password",
		"listen: 127.0.0.1:5000\nupstreams: {r.lan: {}}":                                                   "",
	} {
		name := filepath.Join(t.TempDir(), "forebay.yaml")
		write(t, name, text)
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := Load(Sources{File: name, Root: true})
		if err != nil {
			t.Fatal(err)
		}
		got := c.Warnings()
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || got[0].Key != want || !strings.Contains(got[0].Problem, name)) {
			t.Errorf("warnings of %s = %v, want one of %s", text, got, want)
		}
	}
	if got := warned(t, "", "FOREBAY_ADMIN_TOKEN=0123456789abcdef"); got != nil {
		t.Errorf("warnings of a token in the environment = %q", got)
	}
}
