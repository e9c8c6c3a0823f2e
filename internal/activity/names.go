package activity

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"forebay/internal/nodes"
	"forebay/internal/recent"
	"forebay/internal/reread"
)

const (
	namesMost   = 4096        // that are remembered
	namesWait   = 256         // addresses that wait to be looked up; others wait until somebody asks again
	nameFor     = time.Hour   // how long a name is believed
	lookUpFor   = time.Second // how long the name server may take
	labelsMost  = 10_000
	nameLen     = 120
	labelsBytes = 1 << 20
)

// Label is what a network of clients is called; of a single client it has all its bits.
type Label struct {
	Network netip.Prefix
	Name    string
}

// ReadLabels reads what clients are called: on each line an address or a network, a space and a
// name; what follows # is for people. The error names the line.
func ReadLabels(r io.Reader) ([]Label, error) {
	var all []Label
	lines := bufio.NewScanner(io.LimitReader(r, labelsBytes))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		who, name, _ := strings.Cut(strings.TrimSpace(text), " ")
		if who == "" {
			continue
		}
		network, err := netip.ParsePrefix(who)
		if address, e := netip.ParseAddr(who); e == nil {
			network, err = netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), nil
		}
		switch name = strings.TrimSpace(name); {
		case err != nil:
			return nil, fmt.Errorf("line %d: %q is neither an address nor a network", n, clip(who, 80))
		case name == "":
			return nil, fmt.Errorf("line %d: %s has no name: write it behind a space", n, who)
		case len(all) == labelsMost:
			return nil, fmt.Errorf("line %d: more than %d names", n, labelsMost)
		}
		all = append(all, Label{network.Masked(), clip(name, nameLen)})
	}
	return all, lines.Err()
}

// NamesOptions says where names are from. All may be missing.
type NamesOptions struct {
	File string // of [ReadLabels]; read again when it changes
	// LookUp asks the name server, as [net.Resolver.LookupAddr] does.
	LookUp func(ctx context.Context, address string) ([]string, error)
	Nodes  func() []nodes.Node // of the cluster
	Log    *zap.Logger         // nil means no logging
}

// Names knows what clients are called. It promises to be in nobody's way: names are looked up one
// after the other, after somebody has asked for them, and never for a request of a client.
type Names struct {
	labels func() []Label
	nodes  func() []nodes.Node
	lookUp func(ctx context.Context, address string) ([]string, error)
	known  *recent.Map[string, string] // "" for an address without a name
	wait   chan string
}

// NewNames returns what knows the names. Its owner starts Run once, or nothing is looked up. The
// error names the file, if it cannot be used.
func NewNames(o NamesOptions) (*Names, error) {
	n := &Names{labels: func() []Label { return nil }, nodes: o.Nodes, lookUp: o.LookUp, known: recent.New[string, string](namesMost, nameFor), wait: make(chan string, namesWait)}
	if n.nodes == nil {
		n.nodes = func() []nodes.Node { return nil }
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.File == "" {
		return n, nil
	}
	files, err := reread.New("names of clients", o.Log, func() ([]Label, error) {
		f, err := os.Open(o.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		all, err := ReadLabels(f)
		if err != nil {
			err = fmt.Errorf("%s: %w", o.File, err)
		}
		return all, err
	}, o.File)
	if err == nil {
		n.labels = files.Get
	}
	return n, err
}

// Of returns what a client is called, as far as that is known yet: by the narrowest label, by the
// node of the cluster, or by the name server.
func (n *Names) Of(client string) string {
	address, err := netip.ParseAddr(client)
	if n == nil || err != nil {
		return ""
	}
	name, bits := "", -1
	for _, l := range n.labels() {
		if l.Network.Bits() > bits && l.Network.Contains(address.Unmap()) {
			name, bits = l.Name, l.Network.Bits()
		}
	}
	for _, node := range n.nodes() {
		for _, p := range node.From {
			if p.Bits() > bits && p.Contains(address.Unmap()) {
				name, bits = node.Name, p.Bits()
			}
		}
	}
	if name != "" || n.lookUp == nil {
		return name
	}
	if name, ok := n.known.Get(client); ok {
		return name
	}
	select {
	case n.wait <- client:
	default:
	}
	name, _ = n.known.Last(client, 0) // until it is known anew
	return name
}

// Run looks up names until ctx is done.
func (n *Names) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case client := <-n.wait:
			if _, ok := n.known.Get(client); ok {
				continue
			}
			bounded, cancel := context.WithTimeout(ctx, lookUpFor)
			found, err := n.lookUp(bounded, client)
			cancel()
			name := ""
			if err == nil && len(found) > 0 {
				name = clip(strings.TrimSuffix(found[0], "."), nameLen)
			}
			n.known.Add(client, name)
		}
	}
}
