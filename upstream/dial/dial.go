// Package dial decides which network addresses are contacted for a registry, and contacts
// no other.
//
// Whoever answers for a registry can name any host in a redirect or a challenge. Where an
// endpoint may lead is decided by how it is written in the configuration, and by nothing that
// was resolved or reached: to public addresses; to private ones if it is written as one,
// or the operator allows it; to loopback if it is there itself; never to link-local addresses,
// metadata services and our own listeners.
//
// Warning: behind a proxy, names are resolved by the proxy, so that only addresses
// written in URLs are checked.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"forebay/internal/registries"
	"forebay/internal/wire"
)

// ErrRefused says that the policy forbids an address. It is no failure of the network:
// trying again does not help.
var ErrRefused = errors.New("address is not allowed for this upstream")

// Options says how connections are made. Connect is required; no other bound means none.
type Options struct {
	// AllowPrivate lets redirects and token servers be on private addresses, and the endpoint
	// of a well-known public registry itself. Without it only an upstream whose own endpoint
	// is written as a private address, or with a name that networks use inside, may lead there;
	// one on loopback may lead to loopback too. Link-local and metadata addresses are never dialled.
	AllowPrivate bool
	// AllowPrivateName is what AllowPrivate is called where it is set, for errors; "" is not told.
	AllowPrivateName string
	// Stranger says that a client named the endpoint, and not the operator: it is itself where
	// only a redirect may be.
	Stranger bool
	// Ours are our own listeners, to which nothing leads; nil means none.
	Ours *Ours

	TLS TLS
	// Proxy is a proxy for everything (http, https or socks5), with its user if it has one. nil means what
	// Environment says. A proxy resolves names itself, so that only addresses written in URLs are checked here.
	Proxy *url.URL
	// Environment are the proxies that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name; nil means none.
	Environment *httpproxy.Config
	// Bandwidth bounds what is read from all connections, in bytes a second; nil means no bound.
	Bandwidth *Bandwidth
	// Family restricts the addresses that are dialled, the proxy's included.
	Family Family

	Connect   time.Duration // bounds name lookup and TCP connect
	Handshake time.Duration // of TLS
	FirstByte time.Duration // from request to the headers of its answer
	IdleConns int           // kept for each host; 0 means the default of net/http

	// Dial replaces the connection to addr, "host:port". The address policy is applied
	// before it to what Lookup says, or after it to the address that it reached.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Lookup replaces the resolver; it is as net.Resolver.LookupNetIP.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer connects to what one endpoint leads to. Every address is checked when it is
// dialled, so that a name cannot resolve to one address for the check and to another
// for the connection.
type Dialer struct {
	base *url.URL
	opts Options
	// own are the "host:port" that the operator has configured: they may be private.
	own map[string]bool
	// proxies are the "host:port" of proxies: they may be anywhere.
	proxies map[string]bool
	// proxyFor returns the proxy for a URL, or nil.
	proxyFor func(*url.URL) (*url.URL, error)
	// reach is the worst class of address that redirects and token servers may have.
	reach addressClass
	// inside: its name is one that networks use inside.
	inside bool
	// neverPrivate: the endpoint is that of a public registry, whatever its name resolves to.
	neverPrivate bool
}

// New returns the dialer of the endpoint at base. Nothing is contacted.
func New(base *url.URL, opts Options) (*Dialer, error) {
	switch opts.Family {
	case AnyFamily, IPv4Only, IPv6Only:
	default:
		return nil, fmt.Errorf("address family %q is not ipv4 or ipv6", opts.Family)
	}
	d := &Dialer{base: base, opts: opts, own: map[string]bool{}, proxies: map[string]bool{}, reach: reachOf(base.Hostname())}
	if err := d.useProxies(); err != nil {
		return nil, err
	}
	if opts.Stranger {
		d.reach = publicAddress
	}
	d.inside = d.reach == privateAddress
	if opts.AllowPrivate {
		d.reach = max(d.reach, privateAddress)
	}
	if opts.Proxy != nil {
		// All names are resolved by the proxy, which therefore is all that is dialled.
		return d, nil
	}
	d.own[HostPort(base)] = !opts.Stranger
	d.neverPrivate = registries.WellKnown(base.Hostname()) && !opts.AllowPrivate
	return d, nil
}

// useProxies finds out which proxies there are.
func (d *Dialer) useProxies() error {
	d.proxyFor = func(*url.URL) (*url.URL, error) { return d.opts.Proxy, nil }
	if p := d.opts.Proxy; p != nil {
		if !usableProxy(p) {
			return fmt.Errorf("proxy %q is no http, https or socks5 URL", p.Redacted())
		}
		d.proxies[HostPort(p)] = true
		return nil
	}
	if d.opts.Environment == nil {
		return nil
	}
	d.proxyFor = d.opts.Environment.ProxyFunc()
	anywhere := *d.opts.Environment
	anywhere.NoProxy = ""
	for scheme, given := range map[string]string{"http": anywhere.HTTPProxy, "https": anywhere.HTTPSProxy} {
		if given == "" {
			continue
		}
		p, err := anywhere.ProxyFunc()(&url.URL{Scheme: scheme, Host: "registry.example"})
		if err != nil || p == nil || !usableProxy(p) {
			return fmt.Errorf("%s_PROXY of the environment is no http, https or socks5 URL", strings.ToUpper(scheme)) // which may hold a password
		}
		d.proxies[HostPort(p)] = true
	}
	return nil
}

func usableProxy(p *url.URL) bool {
	return p.Hostname() != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, p.Scheme)
}

// Vet reports why a URL that the registry named must not be visited. The address behind
// the name is checked when it is dialled; here are the things that a name cannot hide.
func (d *Dialer) Vet(u *url.URL) error {
	switch {
	case u.Scheme == "http" && d.base.Scheme == "https":
		return fmt.Errorf("%s is not https", wire.Redact(u.Host))
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("scheme %q is not https", wire.Redact(u.Scheme))
	case u.User != nil:
		return fmt.Errorf("URL of %s has a user", wire.Redact(u.Host))
	case u.Fragment != "" || u.RawFragment != "":
		return fmt.Errorf("URL of %s has a fragment", wire.Redact(u.Host))
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("URL has no host")
	}
	reach := d.reach
	if HostPort(u) == HostPort(d.base) {
		reach = loopbackAddress
	}
	class := publicAddress
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		if class = classify(a); class == publicAddress && reach == publicAddress {
			return fmt.Errorf("%w: %s", ErrRefused, a) // no public registry writes addresses
		}
	} else if Localhost(u.Hostname()) {
		class = loopbackAddress
	} else if looksNumeric(u.Hostname()) {
		return fmt.Errorf("%w: %s is a number", ErrRefused, wire.Redact(u.Hostname()))
	}
	if class > reach {
		return d.outOfReach(wire.Redact(u.Hostname()), class)
	}
	return nil
}

// DialContext connects to addr, "host:port", if the policy allows the address behind it.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, addr)
	if err != nil || d.opts.Bandwidth == nil {
		return conn, err
	}
	return &slowConn{Conn: conn, limit: d.opts.Bandwidth, closed: make(chan struct{})}, nil
}

func (d *Dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opts.Connect)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	own := mine{endpoint: d.own[strings.ToLower(addr)], proxy: d.proxies[strings.ToLower(addr)]}
	network += d.opts.Family.suffix()
	if d.opts.Lookup == nil {
		return d.dialName(ctx, network, host, port, own)
	}
	addrs, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	return d.dialAny(ctx, network, host, port, addrs, own)
}

// dialName lets the operating system resolve, and checks each address just before the
// connection is made. A Dial of ours is checked by where it got to.
func (d *Dialer) dialName(ctx context.Context, network, host, port string, own mine) (net.Conn, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if err := d.check(withPort(a, port), own); err != nil {
			return nil, err
		}
	}
	dial := d.opts.Dial
	if dial == nil {
		control := func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %q", ErrRefused, address)
			}
			return d.check(a, own)
		}
		dial = (&net.Dialer{Control: control}).DialContext
	}
	conn, err := dial(ctx, network, net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return conn, nil // a pipe of a test
	}
	if err := d.check(remote.AddrPort(), own); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// dialAny tries the addresses of host in order.
func (d *Dialer) dialAny(ctx context.Context, network, host, port string, addrs []netip.Addr, own mine) (net.Conn, error) {
	last := fmt.Errorf("lookup %s: no address", host)
	for _, a := range addrs {
		if last = d.check(withPort(a, port), own); last != nil {
			continue
		}
		var conn net.Conn
		if d.opts.Dial != nil {
			conn, last = d.opts.Dial(ctx, network, net.JoinHostPort(host, port))
		} else {
			conn, last = (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		}
		if last == nil {
			return conn, nil
		}
	}
	return nil, last
}

func (d *Dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return d.opts.Lookup(ctx, "ip"+d.opts.Family.suffix(), host)
}

// withPort returns the address a with a port; 0 where that has none.
func withPort(a netip.Addr, port string) netip.AddrPort {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		n = 0
	}
	return netip.AddrPortFrom(a, uint16(n))
}

// mine says which of the addresses that the operator has configured is dialled, if it is one.
type mine struct{ endpoint, proxy bool }

// check applies the policy to an address about to be dialled.
func (d *Dialer) check(to netip.AddrPort, own mine) error {
	a := to.Addr()
	switch class := classify(a); {
	case !d.opts.Family.has(a):
		return fmt.Errorf("%w: %s is not %s", ErrRefused, a, d.opts.Family)
	case class == neverAddress:
		return fmt.Errorf("%w: %s", ErrRefused, a)
	case own.proxy:
		return nil
	case own.endpoint && (class <= d.reach || class == privateAddress && !d.neverPrivate || class == loopbackAddress && d.inside):
		return nil
	case d.opts.Ours.has(to):
		return fmt.Errorf("%w: %s is our own", ErrRefused, to)
	case class > d.reach:
		return d.outOfReach(a.String(), class)
	}
	return nil
}

// outOfReach is the error of an address that an upstream must not lead to.
func (d *Dialer) outOfReach(host string, class addressClass) error {
	if class == privateAddress && d.opts.AllowPrivateName != "" {
		return fmt.Errorf("%w: %s is private; %s lets it lead there", ErrRefused, host, d.opts.AllowPrivateName)
	}
	return fmt.Errorf("%w: %s", ErrRefused, host)
}
