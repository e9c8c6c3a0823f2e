package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// notRun are commands of the documents that are not run here, by how they begin, each with why. Those of
// forebay are parsed by cmd/forebay all the same.
var notRun = []struct{ begins, why string }{
	{"make ", "targets are what builds and tests this; that each is there is tested in cmd/forebay"},
	{"go test ", "it is a test or a benchmark itself"},
	{"go run ./bench", "it is a benchmark itself"},
	{"git tag ", "it would make a release"},
	{"dpkg --", "TestPackagesLiveAndGo removes and purges"},
	{"kubectl ", "there is no cluster here; tools/kube does it with kustomize, and on a real API server"},
	{"helm install ", "there is no cluster here; make test-kube does it on a real API server"},
	{"helm template", "the name of a program's output; tools/kube runs helm template"},
	{"docker compose ", "Debian has no compose plugin; cmd/forebay reads what it starts"},
	{"docker buildx bake ", "Debian has no buildx; internal/imageset has what it prints"},
	{"cosign ", "make test-clients and tools/release run cosign"},
	{"sha256sum --check SHA256SUMS", "tools/release checks a release so"},
	{"base64 -d SHA256SUMS.sig", "tools/release checks a release so"},
	{"skopeo sync", "the name of a file's form"},
	{"docker run -d", "TestMirrorRunsFromItsImage does"},
	{"forebay serve", "the mirror of this test is it"},
	{"forebay token kubelet", "the kubelet starts it, as cmd/forebay does with what the kubelet writes"},
	{"forebay import registry", "TestFolderOfDockerRegistryIsTakenOver does"},
	{"curl | tee", "bench runs it"},
	{"skopeo copy … oc", "TestArchivesOfOtherToolsAreImported has all of these written, and imports them"},
	{"skopeo copy … docker-archive:", "TestArchivesOfOtherToolsAreImported"},
	{"podman save", "TestArchivesOfOtherToolsAreImported"},
	{"crane pull", "TestArchivesOfOtherToolsAreImported"},
	{"forebay hub tags", "the hub of this test has no such list; cmd/forebay asks one that has"},
}

// inPlaceOf has what is run in the place of commands with placeholders, and of those that need something else to be
// so: REGISTRY is one to push to.
var inPlaceOf = map[string]string{
	"forebay status [--watch]":                                "forebay status",
	"forebay ls [PATTERN]":                                    "forebay ls 'docker.io/*'",
	"forebay images [PATTERN] [--missing]":                    "forebay images 'docker.io/*' --missing",
	"forebay inspect REF":                                     "forebay inspect nginx:1.27",
	"forebay tag history REF":                                 "forebay refresh nginx:1.27 && forebay tag history nginx:1.27",
	"forebay refresh REF":                                     "forebay refresh nginx:1.27",
	"forebay repair REF [--platform P]":                       "forebay repair nginx:1.27 --platform linux/amd64",
	`forebay purge REF|REPOSITORY|DIGEST`:                     "forebay purge busybox:latest && forebay prefetch busybox && forebay purge ghcr.io/owner/app --force",
	"forebay pin REF":                                         "forebay pin nginx:1.27",
	"forebay pin REF [--platform P]":                          "forebay pin nginx:1.27 --platform linux/amd64",
	"forebay prefetch [REF…] [-f FILE] [--set NAME]":          "forebay prefetch nginx:1.27 && forebay prefetch -f images.txt && forebay prefetch --set base",
	"forebay prefetch --set NAME":                             "forebay prefetch --set base",
	"forebay lock [REF…] [-f FILE] [--check]":                 "forebay lock nginx:1.27 -f images.txt -o images.lock && forebay lock --check -f images.lock",
	"forebay policy test REF…":                                "forebay policy test nginx:1.27 busybox",
	"forebay freeze [PATTERN] [--until T]":                    "forebay freeze 'ghcr.io/*' --until 2999-01-01 && forebay freeze && forebay thaw 'ghcr.io/*'",
	"forebay freeze 'docker.io/library/*' --until 2026-12-24": "forebay freeze 'docker.io/library/*' --until 2999-12-24", // which is to come
	`forebay snapshot create|list|show|diff|promote|export|drop`: "forebay snapshot create one && forebay snapshot create two 'docker.io/library/nginx' && forebay snapshot list && forebay snapshot show one && " +
		"forebay snapshot diff one two && forebay snapshot promote two --reason test && forebay snapshot export two -o two.tar && forebay snapshot drop one",
	"forebay snapshot create prod-2026-11 [PATTERN…]": "forebay snapshot create prod-2026-11 'docker.io/*'",
	"forebay wanted [--clear]":                        "forebay wanted && forebay wanted --clear",
	"forebay verify [--repair]":                       "forebay verify && forebay verify --repair",
	"forebay gc [--dry-run]":                          "forebay gc --dry-run && forebay gc",
	"forebay copy REF… TO":                            "forebay copy nginx:1.27 REGISTRY/copied/",
	"forebay copy REF registry.corp/kept/":            "forebay copy nginx:1.27 REGISTRY/kept/",
	"forebay notify NAME":                             "forebay notify chat",
	"forebay export -o FILE":                          "forebay export -o out.tar nginx:1.27",
	"forebay export -o FILE REF…":                     "forebay export -o out.tar nginx:1.27 busybox:latest --fetch",
	"forebay import FILE…":                            "forebay import out.tar",
	"forebay import --verify KEY":                     "forebay import site.tar --verify release.pub",
	"forebay support-bundle [-o FILE]":                "forebay support-bundle -o support.tar.gz",
	"forebay import /var/lib/zot/library/nginx --as docker.io/library/nginx:1.27": "mkdir -p /var/lib/zot/library && skopeo copy --src-tls-verify=false docker://mirror.lan:5000/library/nginx:1.27 oci:/var/lib/zot/library/nginx:1.27 && " +
		"forebay import /var/lib/zot/library/nginx --as docker.io/library/nginx:1.27",
	"forebay jobs [--cancel ID]": "forebay jobs",
	"forebay man DIR":            "mkdir -p manual && forebay man manual",
	"forebay config check FILE":  "forebay config check /etc/forebay/forebay.yaml",
	"forebay context add edge1 https://edge1:5001 --token-file FILE": "HOME=/tmp forebay context add edge1 https://edge1:5001 --token-file /var/lib/forebay/admin.token",
	"forebay context use edge1":                                      "HOME=/tmp forebay context use edge1",
	"forebay tag promote REF [DIGEST] --reason …":                    "forebay tag promote nginx:1.27 --reason CVE-2026-1",
	"forebay client-config CLIENT --url http://mirror.lan:5000":      "for client in dockerd containerd podman buildkit k3s; do forebay client-config $client --url http://mirror.lan:5000; done",
	"forebay status --server http://mirror.lan:5001":                 "forebay status --server http://mirror.lan:5001 --token-file /var/lib/forebay/admin.token", // of whoever types it
	"forebay rebuild-index":                                          "systemctl stop forebay && runuser -u forebay -- forebay rebuild-index && systemctl start forebay && until forebay status; do sleep 0.1; done",
}

var (
	placeholder = regexp.MustCompile(`…|\[|(?:^|[ =/])(?:REF|PATTERN|NAME|FILE|DIR|KEY|CLIENT|DIGEST|TO|ID|TAG|URL|MIRROR)(?:$|[ /|])`)
	nameOnly    = regexp.MustCompile(`^[a-z]+( [a-z][a-z-]*)*$`)
	// goesOn is what is ended by who typed it.
	goesOn = regexp.MustCompile(`--watch$|--minutes 5$|text/event-stream`)
)

// program begins a command that people type, in a block or in a sentence.
const program = `(?:[A-Z_]+=\S+ )*(?:forebay|docker|crane|skopeo|podman|curl|ctr|make|systemctl|kubectl|helm|dpkg|go test|go run|openssl|cosign|git|ssh-keygen|sha256sum|base64)`

var (
	blockLine  = regexp.MustCompile(`^    (` + program + `( .*)?)$`)
	inSentence = regexp.MustCompile("`(" + program + " [^`]*)`")
	assignment = regexp.MustCompile(`(?m)^[a-z_]+=.*$`)
)

// documentCommand is what a document has people type.
type documentCommand struct {
	at, text string
	named    bool // in a sentence, where it may be but the name of one
}

// commandsOf reads what a document has people type, in its order.
func commandsOf(t *testing.T, name string) (all []documentCommand) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var fence, said string
	var block []string
	for i, line := range strings.Split(string(text), "\n") {
		at := fmt.Sprintf("%s:%d", filepath.Base(name), i+1)
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "```") && fence == "":
			fence, block = trimmed, nil
		case strings.HasPrefix(trimmed, "```"):
			if fence == "```sh" {
				script := strings.Join(block, "\n")
				all = append(all, documentCommand{at: at, text: said + script})
				said += strings.Join(assignment.FindAllString(script, -1), "\n") + "\n" // which later blocks use
			}
			fence = ""
		case fence != "":
			block = append(block, line)
		default:
			if m := blockLine.FindStringSubmatch(line); m != nil {
				all = append(all, documentCommand{at: at, text: m[1]})
			}
			for _, m := range inSentence.FindAllStringSubmatch(line, -1) {
				all = append(all, documentCommand{at: at, text: strings.ReplaceAll(m[1], `\|`, "|"), named: true})
			}
		}
	}
	return all
}

// startDesk starts a machine on which people try what documents say: with the package of the mirror at its usual
// addresses, dockerd and containerd.
func startDesk(t *testing.T, hub *hubtest.Hub) *machine {
	t.Helper()
	told := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(told.Close)
	m := startMachine(t, "deb")
	hosts := "127.0.0.1 localhost\n203.0.113.90 mirror.lan\n"
	for _, h := range hubHosts {
		hosts += h.addr + " " + h.name + "\n"
	}
	for name, text := range map[string]string{
		"etc/hosts":                                  hosts,
		"etc/containerd/config.toml":                 "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
		"root/ca.pem":                                string(hub.CAPEM()),
		"etc/docker/daemon.json":                     `{"registry-mirrors": ["http://mirror.lan:5000"], "insecure-registries": ["mirror.lan:5000"], "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false}`,
		"etc/containerd/certs.d/_default/hosts.toml": "[host.\"http://mirror.lan:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n",
		"root/forebay.yaml": `listen: ":5000"
admin_listen: ":5001"
admin_token_file: /var/lib/forebay/admin.token
storage: {dir: /var/lib/forebay}
upstreams:
  docker.io: {}
  ghcr.io: {endpoints: ["` + hub.RegistryURL() + `"]}
prefetch: [{name: base, images: ["nginx:1.27"]}]
notify: [{name: chat, url: "` + told.URL + `"}]
`,
		"root/images.txt": "nginx:1.27\nghcr.io/owner/app\n",
	} {
		writeFile(t, m.root, name, text)
	}
	for from, to := range map[string]string{builtProgram("crane"): "usr/bin", releasedFile(t, firstVersion, "image.oci.tar"): "root/forebay_0.1.0_image.oci.tar"} {
		if err := command(exec.Command("cp", from, filepath.Join(m.root, to))); err != nil {
			t.Fatal(err)
		}
	}
	m.do(t, "sh", "-euxc", `cd /root
cat ca.pem >> /etc/ssl/certs/ca-certificates.crt
rm -rf /var/lib/forebay /etc/forebay # of the machine that this is a copy of
cp first forebay_0.1.0_linux_amd64.deb
dpkg -i forebay_0.1.0_linux_amd64.deb
cp forebay.yaml /etc/forebay
install -d -o forebay -g forebay -m 700 /var/lib/forebay
(umask 027; openssl rand -hex 32 > /var/lib/forebay/admin.token)
chown forebay: /var/lib/forebay/admin.token
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp .ssh/id_ed25519.pub release.pub
echo "NAME $(cat release.pub)" > allowed_signers
systemctl start forebay containerd docker
`)
	return m
}

// Every command of a document does what it should: it is typed on a machine with a mirror and the clients, and ends
// with 0. One that a sentence but names may say that it lacks arguments.
func TestCommandsOfDocumentsRun(t *testing.T) {
	images, err := catalogue()
	if err != nil {
		t.Fatal(err)
	}
	r := startRegistry(t, filepath.Join(stateDir(t), "registry"))
	for repo, tag := range map[string]string{"ratelimitpreview/test": "latest", "library/nginx": "1.27", "library/busybox": "latest", "owner/app": "latest"} {
		r.push(t, repo, images[manyOCI], tag)
	}
	hub := hubtest.New(t, hubtest.Options{Named: true, Backend: r.url})
	openFront(t, hub)
	m := startDesk(t, hub)
	var names []string
	for _, glob := range []string{"../../README.md", "../../docs/*.md"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	done, used := map[string]bool{}, map[string]bool{}
	ran := 0
	for _, name := range names {
	next:
		for _, c := range commandsOf(t, name) {
			if done[c.text] {
				continue
			}
			done[c.text] = true
			for _, not := range notRun {
				if strings.HasPrefix(c.text, not.begins) {
					used[not.begins] = true
					continue next
				}
			}
			text := c.text
			as, known := inPlaceOf[text]
			used[text] = known
			if known {
				text = strings.ReplaceAll(as, "REGISTRY", strings.TrimPrefix(r.url, "http://"))
			} else if placeholder.MatchString(strings.Split(text, "#")[0]) && !strings.HasPrefix(text, "ssh-keygen -Y verify") {
				t.Errorf("%s: %s: say in inPlaceOf what is to be run", c.at, text)
				continue
			}
			ran++
			within := "90"
			if goesOn.MatchString(text) {
				within = "5"
			}
			try := func(text string) error {
				_, err := m.try("timeout", "--signal=INT", "--kill-after=5", within, "sh", "-ec", "export HOME=/root\ncd /root\nsudo() { \"$@\"; }\n"+text)
				return err
			}
			err := try(text)
			if err != nil && c.named && !known && nameOnly.MatchString(text) {
				err = try(text + " --help") // it is but named
			}
			if err != nil && !(within == "5" && strings.Contains(err.Error(), "exit status 124")) {
				t.Errorf("%s: %v", c.at, err)
			}
		}
	}
	for text := range inPlaceOf {
		if !used[text] {
			t.Errorf("no document has %s any more", text)
		}
	}
	for _, not := range notRun {
		if !used[not.begins] {
			t.Errorf("no document has a command that begins with %s any more", not.begins)
		}
	}
	t.Logf("%d commands ran", ran)
}
