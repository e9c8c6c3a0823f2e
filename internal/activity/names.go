package activity

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"forebay/internal/recent"
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

// Names knows what clients are called. It promises to be in nobody's way: names are looked up one
// after the other, after somebody has asked for them, and never for a request of a client.
type Names struct {
	labels func() []Label
	lookUp func(ctx context.Context, address string) ([]string, error)
	known  *recent.Map[string, string] // "" for an address without a name
	wait   chan string
}

// NewNames returns what knows the names of labels, and those that lookUp has, which
// [net.Resolver.LookupAddr] is. Either may be nil. Its owner starts Run once, or nothing is looked up.
func NewNames(labels func() []Label, lookUp func(ctx context.Context, address string) ([]string, error)) *Names {
	if labels == nil {
		labels = func() []Label { return nil }
	}
	return &Names{labels: labels, lookUp: lookUp, known: recent.New[string, string](namesMost, nameFor), wait: make(chan string, namesWait)}
}

// Of returns what a client is called, as far as that is known yet: by the narrowest label, else by
// the name server.
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
