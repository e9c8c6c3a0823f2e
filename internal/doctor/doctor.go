// Package doctor finds out why a machine does not pull through its mirror.
//
// It promises to change nothing, and to say of all that it finds what to change. What it looks at are
// the files of the clients that the machine has, the mirrors that they name, and an image through
// each of those.
package doctor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"forebay/internal/clientconfig"
)

// Finding is something that is wrong.
type Finding struct {
	Where string `json:"where"` // a file, or the URL of a mirror
	Wrong string `json:"wrong"`
	Do    string `json:"do"` // what to change
}

// Machine is what is looked at.
type Machine struct {
	Root   string // where its file system is
	Mirror string // URL of the mirror that its clients should use; empty: those that they name
	CA     string // file with the certificate to trust beside the system's; empty for none
	Probe  string // repository and tag, of Docker Hub, that is asked for: library/busybox:latest
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Report is what was found.
type Report struct {
	Clients    []string  `json:"clients,omitempty"`    // that have settings on the machine
	Mirrors    []string  `json:"mirrors,omitempty"`    // URLs, each of which was asked
	Registries []string  `json:"registries,omitempty"` // that were asked by what a mirror has for them
	Findings   []Finding `json:"findings"`
}

// look is a look at a machine in progress.
type look struct {
	machine     *Machine
	root        *os.Root
	authorities []string // files with certificates that clients are told to trust
	Report
}

func (l *look) wrong(where, wrong, do string) {
	l.Findings = append(l.Findings, Finding{where, wrong, do})
}

// uses takes in that a client names a URL, which may be a mirror.
func (l *look) uses(url string) {
	if url = strings.TrimSuffix(url, "/"); !slices.Contains(l.Mirrors, url) {
		l.Mirrors = append(l.Mirrors, url)
	}
}

// read returns a file of the machine; false if it has none.
func (l *look) read(name string) (string, bool) {
	b, err := l.root.ReadFile(clientconfig.Real(l.root, name))
	if err != nil && !os.IsNotExist(err) {
		l.wrong("/"+name, "cannot be read: "+err.Error(), "look at it as root")
	}
	return string(b), err == nil
}

// has takes in that the machine has a client.
func (l *look) has(client string) {
	if !slices.Contains(l.Clients, client) {
		l.Clients = append(l.Clients, client)
	}
}

// Look returns what is wrong with the machine.
func (m *Machine) Look(ctx context.Context) (*Report, error) {
	root, err := os.OpenRoot(m.Root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read from
	l := &look{machine: m, root: root}
	l.dockerd()
	l.containerd()
	l.containersImage()
	l.rancher("k3s")
	l.rancher("rke2")
	if m.Mirror != "" {
		l.pointed()
	}
	for _, url := range l.Mirrors {
		l.mirror(ctx, url)
	}
	return &l.Report, nil
}

// pointed finds clients that do not name the mirror that they should.
func (l *look) pointed() {
	want := strings.TrimSuffix(l.machine.Mirror, "/")
	if named := slices.Contains(l.Mirrors, want); !named && len(l.Clients) > 0 {
		l.wrong("/", strings.Join(l.Clients, ", ")+" of this machine go to registries without "+want, "forebay client-config "+l.Clients[0]+" --url "+want+" --install")
	}
	l.uses(want)
}
