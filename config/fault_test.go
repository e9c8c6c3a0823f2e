package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/config/fault"
	"forebay/internal/secret"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate makes a self-signed certificate and its key in folder.
func writeCertificate(t *testing.T, folder string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mirror.lan"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	return certFile, keyFile
}

func TestAllFaultsAtOnceByLine(t *testing.T) {
	got := faultsOf(t, `listen: 5000
listne: x
upstreams:
  docker.io:
    tag_ttl: soon
    tag_tll: 1m
    password: hunter2
    endpoints: https://registry-1.docker.io
  GHCR.io: {}
max_size: 5GiB
listen: ":1"
log:
  level: verbose
`, "FOREBAY_HTTP2=perhaps", "FOREBAY_LISTENS=x")
	want := []string{
		`forebay.yaml:1:9: listen: "5000" has no colon: write ":5000"`,
		`forebay.yaml:2:1: listne: is not a key: did you mean "listen"?`,
		`forebay.yaml:5:14: upstreams.docker.io.tag_ttl: "soon" is not a duration: use a number with a unit, such as 500ms, 30s, 5m, 2h or 1d`,
		`forebay.yaml:6:5: upstreams.docker.io.tag_tll: is not a key: did you mean "tag_ttl"?`,
		`forebay.yaml:7:15: upstreams.docker.io.password: needs username beside it`,
		`forebay.yaml:8:16: upstreams.docker.io.endpoints: is a single value: a list of URLs and mappings is needed, such as [A, B]`,
		`forebay.yaml:9:3: upstreams.GHCR.io: "GHCR.io" has capitals: write "ghcr.io"`,
		`forebay.yaml:10:1: max_size: is not a key: did you mean "storage.max_size"?`,
		`forebay.yaml:11:1: listen: is already set on line 1`,
		`forebay.yaml:13:10: log.level: "verbose" is not known: use debug, info, warn or error`,
		`FOREBAY_HTTP2: http2: "perhaps" is not known: use true or false`,
		`FOREBAY_LISTENS: is not a setting: did you mean "FOREBAY_LISTEN"?`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := writeCertificate(t, folder)
	_, otherKey := writeCertificate(t, t.TempDir())
	write(t, filepath.Join(folder, "empty"), "\n")
	long := strings.Repeat("x", 200)
	for _, tt := range []struct{ text, want string }{
		{"[a]", `1:1: is a list: a mapping of KEY: VALUE lines is needed`},
		{"just text", `1:1: is a single value: a mapping`},
		{"listen: ':1'\n---\nlisten: ':2'", `a second document starts here: use only one`},
		{"listen: [", `not YAML: `},
		{"listen: \"a\nb: c\n", `1:9: not YAML: while scanning a quoted scalar that begins here: found unexpected end`},
		{"storage: {directory: /x}", `storage.directory: is not a key: did you mean "dir"?`},
		{"prefetch: [{name: a, images: [NGINX]}]", `prefetch[1].images: "NGINX" is no name of an image`},
		{"prefetch: [{name: a, images: ['nginx:']}]", `prefetch[1].images: "nginx:" is no name of an image`},
		{"prefetch: [{name: a b, images: [nginx]}]", `prefetch[1].name: "a b" is no name`},
		{"listen: \"\\q\"", `not YAML: `},
		{"storage:\n\tdir: /a", "2:1: not YAML: found character that cannot start any token (a tab: use blanks; a value that starts with @, ` or % needs quotes)"},
		{"\x00", `not YAML: `},
		{"listen: {a: b}", `1:9: listen: is a mapping: an address is needed`},
		{"listen: !secret x", `1:9: listen: has a tag`},
		{"? [a]\n: b", `a key is a list: it must be a word`},
		{"a: &a {}\n<<: *a", `merging with << is not supported`},
		{"storage: 5", `1:10: storage: is a single value: a mapping`},
		{"storage: {s3: {bucket: b}}", `storage.s3.bucket: is not the name of a bucket`},
		{"storage: {s3: {bucket: 's3://b'}}", `storage.s3.bucket: is not the name of a bucket`},
		{"storage: {s3: {region: eu-west-1}}", `storage.s3.region: needs bucket beside it`},
		{"storage: {s3: {bucket: blobs, endpoint: minio:9000}}", `storage.s3.endpoint: is not a URL`},
		{"storage: {s3: {bucket: blobs, endpoint: 'https://u:p@minio'}}", `storage.s3.endpoint: must not have user`},
		{"storage: {s3: {bucket: blobs, prefix: a//b}}", `storage.s3.prefix: has an empty part`},
		{"storage: {s3: {bucket: blobs, prefix: ../b}}", `storage.s3.prefix: has an empty part, or one of dots`},
		{"storage: {s3: {bucket: blobs, access_key_id: k}}", `storage.s3.access_key_id: needs secret_access_key beside it`},
		{"storage: {s3: {bucket: blobs, secret_access_key: k}}", `storage.s3.secret_access_key: needs access_key_id beside it`},
		{"storage: {s3: {bucket: blobs, secret_access_key_file: /none/such}}", `storage.s3.secret_access_key_file: open /none/such`},
		{"storage: {s3: {bucket: blobs, access_key_id: k, secret_access_key: s, profile: p}}", `storage.s3.profile: cannot be given together with access_key_id`},
		{"storage: {s3: {bucket: blobs, sse: kms}}", `storage.s3.sse: "kms" is not known`},
		{"storage: {s3: {bucket: blobs, kms_key_id: k}}", `storage.s3.kms_key_id: needs sse: aws:kms beside it`},
		{"storage: {s3: {bucket: blobs, max_age: 1h}}", `storage.s3.max_age: 1h is too short: use at least 1d`},
		{"storage: {s3: {bucket: blobs, part_size: 1MiB}}", `storage.s3.part_size: 1MiB is too small: use at least 5MiB`},
		{"storage: {s3: {bucket: blobs, uploads: 0}}", `storage.s3.uploads: `},
		{"storage: {s3: {bucket: blobs, expected_bucket_owner: me}}", `storage.s3.expected_bucket_owner: is not the number of an account`},
		{"storage: {s3: {bucket: blobs, ca_file: /none/such}}", `storage.s3.ca_file: open /none/such`},
		{"storage: {dir: ''}", `storage.dir: is empty: name a folder`},
		{"storage: {max_size: 80%}", `"80%" is not a size: use a number with a unit, such as 500MiB, 100GiB or 1.5TB, or auto`},
		{"storage: {max_size: 5XB}", `"5XB" has no known unit`},
		{"storage: {max_size: 1KiB}", `1KiB is too small: use at least 16MiB`},
		{"storage: {max_size: 99999999PiB}", `is too large`},
		{"storage: {max_size: 9999.5PiB}", `is too large`},
		{"storage: {listen: x}", `storage.listen: is not a key: did you mean "listen"?`},
		{"upstreams: {'*': {tag_ttl: 1h}}", `upstreams.*: needs allow, the hosts that clients may name, such as ["*.example.com"]`},
		{"upstreams: {'*': {allow: ['*'], username: x}}", `upstreams.*.username: is not a key`},
		{"upstreams: {'*': {allow: ['*'], access: upstream}}", `upstreams.*.access: is not a key`},
		{"upstreams: {'*': {allow: ['[a']}}", `upstreams.*.allow: "[a" has a [ without its ]`},
		{"upstreams: {docker.io: {allow: ['*']}}", `upstreams.docker.io.allow: is for upstreams.*: this registry is named already`},
		{"parallel: 3", `parallel: is not a key: did you mean "upstreams.NAME.parallel"?`},
		{"nonsense: 3", `nonsense: is not a key: known here are listen, admin_listen,`},
		{long + ": 3", strings.Repeat("x", 80) + `…: is not a key`},
		{"listen: http://x:5000", `"http://x:5000" has a scheme: use HOST:PORT`},
		{"listen: ':x'", `has no usable port`},
		{"listen: ':70000'", `has no usable port`},
		{"listen: ''", `listen: is empty`},
		{"listen: a b:1", `has no usable host`},
		{"admin_listen: ':5000'", `listen (:5000) and admin_listen (:5000) use the same port`},
		{"listen: 127.0.0.1:5001", `listen (127.0.0.1:5001) and admin_listen (127.0.0.1:5001) use the same port`},
		{"tls: {cert_file: /x}", `tls.cert_file: needs key_file beside it`},
		{"tls: {key_file: /x}", `tls.key_file: needs cert_file beside it`},
		{"tls: {cert_file: /none, key_file: /none}", `tls.cert_file: open /none: no such file`},
		{"tls: {cert_file: " + certFile + ", key_file: " + otherKey + "}", `private key does not match`},
		{"admin_listen: off\nadmin_tls: {cert_file: " + certFile + ", key_file: " + keyFile + "}", `admin_tls: is set although admin_listen is off`},
		{"shutdown_grace: 30", `"30" has no unit`},
		{"shutdown_grace: -1s", `"-1s" is negative`},
		{"shutdown_grace: 2h", `shutdown_grace: 2h is out of range: use 0s to 1h`},
		{"shutdown_grace: 1e3d", `is not a duration`},
		{"negative_ttl: 99999d", `"99999d" is more than 36500d`},
		{"http2: yes", `"yes" is not known: use true or false`},
		{"fallback: client", `"client" is not known: use clients or none: did you mean "clients"?`},
		{"hosts: {a.lan: ghcr.io, b.lan: docker.oi}\nupstreams: {docker.io: }", `hosts.a.lan: "ghcr.io" is not among the upstreams, which are docker.io`},
		{"hosts: {b.lan: docker.oi}\nupstreams: {docker.io: }", `did you mean "docker.io"?`},
		{"hosts: {'a b': docker.io}", `"a b" is not a host name`},
		{"hosts: {'[10.0.0.1]': docker.io}", `"[10.0.0.1]" is not a host name`},
		{"hosts: {'[::1': docker.io}", `"[::1" is not a host name`},
		{"hosts: {'[::1]:0': docker.io}", `"[::1]:0" has no usable port`},
		{"hosts: {'[fe80::1%eth0]:5000': docker.io}", `has a zone, which others do not know: write "[fe80::1]"`},
		{"hosts: {'::1': docker.io, '[0::1]': docker.io}", `"[::1]" is there twice`},
		{"upstreams: {'[2001:db8::1]:5': , '[2001:DB8::1]:5': }", `upstreams.[2001:db8::1]:5: is already set: "[2001:DB8::1]:5" is another spelling`},
		{"listen: '::1:5000'", `use HOST:PORT or :PORT, such as :5000, 127.0.0.1:5000 or [::1]:5000`},
		{"listen: '[10.0.0.1%eth0]:5000'", `has no usable host`},
		{"upstreams: {docker.io: {endpoints: ['http://[fe80::1%25eth0]:5000']}}", `has a zone: link-local addresses are never contacted`},
		{"hosts: {a.lan: }", `hosts.a.lan: has no upstream: name one`},
		{"hosts: {a.lan: [x]}", `hosts.a.lan: is a list: pairs of`},
		{"upstreams: {}", `upstreams: names no registry`},
		{"upstreams: {library: {}}", `"library" is not a registry's name: it needs a dot or a port`},
		{"upstreams: {'https://docker.io': {}}", `has a scheme`},
		{"upstreams: {docker.io/library: {}}", `has a path`},
		{"upstreams: {'docker.io:0': {}}", `has no usable port`},
		{"upstreams: {docker.io: 5}", `upstreams.docker.io: is a single value`},
		{"upstreams: {docker.io: {endpoints: []}}", `endpoints: is empty: name one, such as https://docker.io`},
		{"upstreams: {docker.io: {endpoints: [{}]}}", `endpoints[1]: needs a url`},
		{"upstreams: {docker.io: {endpoints: [{url: 'https://a'}]}}", `none gives tags`},
		{"upstreams: {docker.io: {endpoints: [{url: 'ftp://a', tags: true}]}}", `forebay.yaml:1:43: upstreams.docker.io.endpoints[1].url: "ftp://a" has no usable scheme`},
		{"upstreams: {docker.io: {endpoints: [{url: 'https://a', rewrite: {from: 'Library/'}, tags: true}]}}", `endpoints[1].rewrite.from: "Library/" does not begin a repository's name`},
		{"upstreams: {docker.io: {endpoints: ['https://b', {url: 'https://a', username: x}]}}", `endpoints[2].username: needs password or password_file beside it`},
		{"upstreams: {docker.io: {endpoints: ['https://b', {url: 'https://a', stand_in: x}]}}", `endpoints[2].stand_in: is not a key: known here are url, rewrite`},
		{"upstreams: {docker.io: {username: x, password: y, endpoints: ['https://registry-1.docker.io', 'https://mirror.gcr.io']}}", `https://mirror.gcr.io would get the credentials for https://registry-1.docker.io`},
		{"upstreams: {docker.io: {fallback_credentials: [{}]}}", `fallback_credentials[1]: needs username and password_file`},
		{"upstreams: {docker.io: {fallback_credentials: [{match: a/*}]}}", `fallback_credentials[1]: needs username and password_file`},
		{"upstreams: {docker.io: {fallback_credentials: [x]}}", `fallback_credentials: "x" is not usable: use anonymous`},
		{"upstreams: {docker.io: {fallback_credentials: [{username: x}]}}", `fallback_credentials[1].username: needs password`},
		{"upstreams: {docker.io: {tag_rules: [{match: a}]}}", `tag_rules[1]: needs match and ttl`},
		{"upstreams: {docker.io: {tag_rules: ['a:b']}}", `tag_rules: "a:b" is not a rule`},
		{"upstreams: {docker.io: {tag_rules: [{match: 'a[b', ttl: 1s}]}}", `tag_rules[1].match: "a[b" has a [ without its ]`},
		{"upstreams: {docker.io: {tag_rules: [{match: 'a[z-a]', ttl: 1s}]}}", `a set between them that means nothing`},
		{"upstreams: {docker.io: {tag_rules: {match: a}}}", `tag_rules: is a mapping: a list of mappings`},
		{"upstreams: {docker.io: {stale_if_error: never}}", `or forever`},
		{"upstreams: {docker.io: {budget: {reserve: 0.2}}}", `budget.reserve: "0.2" is not usable: use a percentage`},
		{"upstreams: {docker.io: {budget: {reserve: '101%'}}}", `use a percentage`},
		{"cost: {per_gib: -0.1}", `cost.per_gib: "-0.1" is not usable: use a number from 0 to 1e+06, such as 0.09`},
		{"cost: {per_gib: nan}", `cost.per_gib: "nan" is not usable`},
		{"cost: {currency: 'US dollar'}", `cost.currency: "US dollar" is not usable: use 1 to 8 characters`},
		{"upstreams: {docker.io: {limited: hold}}", `use refuse or wait`},
		{"upstreams: {docker.io: {limited_wait: 1m}}", `limited_wait: 1m is out of range: use 1s to 17s`},
		{"upstreams: {docker.io: {endpoints: ['registry-1.docker.io']}}", `"registry-1.docker.io" has no usable scheme: use http:// or https://`},
		{"upstreams: {docker.io: {endpoints: ['ftp://x']}}", `has no usable scheme`},
		{"upstreams: {docker.io: {endpoints: ['https://']}}", `has no host`},
		{"upstreams: {docker.io: {endpoints: ['https://a/v2/']}}", `"https://a/v2/" ends in /v2, which is added by itself: write "https://a"`},
		{"upstreams: {docker.io: {endpoints: ['https://index.docker.io/v1/']}}", `"https://index.docker.io/v1/" is of an API that is gone: write "https://index.docker.io"`},
		{"upstreams: {docker.io: {endpoints: ['https://a/v2/cache']}}", `"https://a/v2/cache" names repositories behind /v2/: write {url: "https://a", rewrite: {to: "cache/"}, tags: true}`},
		{"upstreams: {docker.io: {endpoints: ['https://a/x/v2/b/c/']}}", `{url: "https://a/x", rewrite: {to: "b/c/"}, tags: true}`},
		{"upstreams: {docker.io: {endpoints: ['https://a/b/v2']}}", `write "https://a/b"`},
		{"upstreams: {docker.io: {endpoints: ['https://a/b/../c']}}", `has an unusual path`},
		{"upstreams: {docker.io: {endpoints: ['https://a/%2e%2e/c']}}", `has an unusual path`},
		{"upstreams: {docker.io: {endpoints: ['https://a?b=c']}}", `"https://a" has a query or fragment`},
		{"upstreams: {docker.io: {endpoints: ['https://a:99999']}}", `has no usable port`},
		{"upstreams: {docker.io: {endpoints: ['https://a', 'https://a/']}}", `"https://a" is there twice`},
		{"upstreams: {docker.io: {username: a}}", `username: needs password or password_file beside it`},
		{"upstreams: {docker.io: {username: a, password: b, password_file: /x}}", `password_file: cannot be given together with password`},
		{"upstreams: {docker.io: {username: a, password_file: /none}}", `password_file: open /none: no such file`},
		{"upstreams: {docker.io: {username: a, password_file: " + folder + "/empty}}", `/empty" is empty`},
		{"upstreams: {docker.io: {username: a, password: \"b\\nc\"}}", `password: holds a control character`},
		{"upstreams: {docker.io: {username: a, password: b, docker_config: /none}}", `docker_config: cannot be given together with username`},
		{"upstreams: {docker.io: {docker_config: /none}}", `docker_config: open /none: no such file`},
		{"upstreams: {docker.io: {docker_config: " + folder + "}}", `/config.json: no such file`},
		{"upstreams: {docker.io: {ca_file: /none}}", `ca_file: open /none: no such file`},
		{"upstreams: {docker.io: {ca_file: " + folder + "/empty}}", `holds no PEM certificate`},
		{"upstreams: {docker.io: {client_cert_file: " + certFile + "}}", `client_cert_file: needs client_key_file beside it`},
		{"upstreams: {docker.io: {parallel: 0}}", `"0" is not usable: use a number from 1 to 32`},
		{"upstreams: {docker.io: {max_connections: 2}}", `max_connections: parallel (4) is more than max_connections (2)`},
		{"upstreams: {docker.io: {first_byte_timeout: 30s}}", `30s is out of range: use 1ms to 20s`},
		{"upstreams: {docker.io: {proxy_username: a}}", `proxy_username: needs proxy beside it`},
		{"upstreams: {docker.io: {proxy: 'http://p:1', proxy_password: a}}", `proxy_password: needs proxy_username beside it`},
		{"upstreams: {docker.io: {trusted_realms: ['https://auth.lan']}}", `has a scheme`},
		{"upstreams: {docker.io: {credentials: aws}}", `upstreams.docker.io.credentials: aws is for public.ecr.aws and ACCOUNT.dkr.ecr.REGION.amazonaws.com`},
		{"upstreams: {quay.io: {credentials: google}}", "google is for gcr.io, *.gcr.io and *.pkg.dev: the upstream must have such a name"},
		{"upstreams: {azurecr.io: {credentials: azure}}", "azure is for NAME.azurecr.io: the upstream must have such a name"},
		{"upstreams: {europe-docker.pkg.dev: {credentials: google, username: u, password: p}}", "google cannot be given together with username or docker_config: remove one of them"},
		{"upstreams: {public.ecr.aws: {credentials: aws, username: a, password: b}}", `credentials: aws cannot be given together with username`},
		{"upstreams: {docker.io: {credentials: alibaba}}", `"alibaba" is not known: use given, aws, google or azure`},
		{"upstreams: {docker.io: {address_family: ipv5}}", `"ipv5" is not known: use any, ipv4 or ipv6`},
		{"webhooks: {secret: short}", `webhooks.secret: cannot be a part of a URL or is easily guessed`},
		{"webhooks: {secret: 'long enough but with spaces'}", `webhooks.secret: cannot be a part of a URL`},
		{"webhooks: {secret_file: /none}", `webhooks.secret_file: open /none: no such file`},
		{"webhooks: {secret: 0123456789abcdef, secret_file: /none}", `webhooks.secret_file: cannot be given together with secret`},
		{"admin_listen: off\nwebhooks: {secret: 0123456789abcdef}", `webhooks.secret: needs a listener, and admin_listen is off`},
		{"upstreams: {docker.io: , ghcr.io: {aliases: [index.docker.io]}}", `"index.docker.io" already means docker.io`},
		{"upstreams: {docker.io: {}, index.docker.io: {}}", `upstreams.index.docker.io: is another name of docker.io, as which clients ask for it: write docker.io`},
		{"upstreams: {index.docker.io: {tag_ttl: 1h}}", `upstreams.index.docker.io: is another name of docker.io, as which clients ask for it: write docker.io`},
	} {
		t.Run(tt.text, func(t *testing.T) {
			got := strings.Join(faultsOf(t, tt.text), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("faults of %q:\n%s\nwant one with %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestFaultsOfTheEnvironment(t *testing.T) {
	for _, tt := range []struct{ name, file, env, want string }{
		{"unknown registry", "", "FOREBAY_UPSTREAMS_REG_LAN_USERNAME=x",
			"FOREBAY_UPSTREAMS_REG_LAN_USERNAME: is for no key of a registry that is configured: name the registry in FOREBAY_UPSTREAMS or in the file; there are docker.io, gcr.io, ghcr.io, mcr.microsoft.com, public.ecr.aws, quay.io, registry.k8s.io"},
		{"slip of ours", "", "FOREBAY_LSTEN=:80", `FOREBAY_LSTEN: is not a setting: did you mean "FOREBAY_LISTEN"?`},
		{"no name of docker's", "", "FOREBAY_UPSTREAMS_DOCKER_IO_USER_NAME=x", `did you mean "FOREBAY_UPSTREAMS_DOCKER_IO_USERNAME"?`},
		{"slip", "", "FOREBAY_UPSTREAMS_DOCKER_IO_USRNAME=x", `did you mean "FOREBAY_UPSTREAMS_DOCKER_IO_USERNAME"?`},
		{"bad name", "", "FOREBAY_UPSTREAMS=docker.io,nonsense", `FOREBAY_UPSTREAMS: upstreams: "nonsense" is not a registry's name`},
		{"two meanings", "upstreams: {a.b: , a-b.c: , a.b.c: }", "FOREBAY_UPSTREAMS_A_B_C_TAG_TTL=1m",
			"FOREBAY_UPSTREAMS_A_B_C_TAG_TTL: may mean upstreams.a-b.c.tag_ttl or upstreams.a.b.c.tag_ttl: set the key in the file instead"},
		{"bad value", "", "FOREBAY_STORAGE_MAX_SIZE=big", `FOREBAY_STORAGE_MAX_SIZE: storage.max_size: "big" is not a size`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(faultsOf(t, tt.file, tt.env), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("faults:\n%s\nwant one with %q", got, tt.want)
			}
		})
	}
}

// A password may end up in the wrong place or be broken YAML. Nothing may repeat it.
func TestFaultsNeverShowSecrets(t *testing.T) {
	for _, text := range []string{
		"upstreams: {docker.io: {password: [hunter2]}}",
		"upstreams: {docker.io: {password: *hunter2}}",
		"upstreams: {docker.io: {password: &hunter2}}",
		"upstreams: {docker.io: {username: u, password: \"hunter2\\n\"}}",
		"upstreams: {docker.io: {passwrod: hunter2}}",
		"upstreams: {docker.io: {password: 'hunter2}}",
		"upstreams: {docker.io: {password: %hunter2}}",
		"upstreams: {docker.io: {password: @hunter2}}",
		"upstreams: {docker.io: {password: !hunter2 x}}",
		"upstreams:\n  docker.io:\n    password: hunter2: x\n",
		"upstreams:\n  docker.io:\n    password: {hunter2: x}\n",
		"upstreams: {docker.io: {endpoints: ['https://user:hunter2@example.com']}}",
		"upstreams: {docker.io: {endpoints: ['https://user:hunter2@exa mple.com']}}",
		"upstreams: {docker.io: {endpoints: ['https://user:hun%ter2@example.com']}}",
		"upstreams: {docker.io: {endpoints: ['user:hunter2@example.com']}}",
		"upstreams: {docker.io: {proxy: 'http://user:hunter2@proxy:3128'}}",
		"upstreams: {docker.io: {proxy: 'http://user:hunter2@proxy:3128/x?hunter2'}}",
	} {
		got := strings.Join(faultsOf(t, text), "\n")
		for _, secret := range []string{"hunter2", "hun%ter2"} {
			if strings.Contains(got, secret) {
				t.Errorf("faults of %q show the password:\n%s", text, got)
			}
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("a: &a {")
	for i := range 2000 {
		fmt.Fprintf(&b, "k%d: v, ", i)
	}
	b.WriteString("}\nupstreams:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  r%d.lan: *a\n", i)
	}
	started := time.Now()
	got := faultsOf(t, b.String())
	if len(got) != fault.Most+1 || got[fault.Most] != "there are more; these are the first 100" {
		t.Errorf("%d faults, the last %q, want 100 and a word that there are more", len(got), got[len(got)-1])
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestSecretPrintsAsMask(t *testing.T) {
	s := secret.New("hunter2")
	holder := struct{ Password Secret }{s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{s, &s, holder, []Secret{s}} {
			if got := fmt.Sprintf(verb, value); strings.Contains(got, "hunter2") || strings.Contains(got, "68756e74657232") {
				t.Errorf("Sprintf(%q, %T) shows the secret: %s", verb, value, got)
			}
		}
	}
	if s.Reveal() != "hunter2" || s.Empty() || !(Secret{}).Empty() {
		t.Error("Reveal or Empty is wrong")
	}
}

// A list whose only entry is wrong is not called empty, too.
func TestAWrongEndpointIsOneFault(t *testing.T) {
	if got := faultsOf(t, "upstreams: {docker.io: {endpoints: ['https://a/v2']}}"); len(got) != 1 || !strings.Contains(got[0], "ends in /v2") {
		t.Errorf("faults: %q", got)
	}
}
