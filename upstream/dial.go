package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errRefusedAddress says that the policy forbids an address. It is no failure of the
// network: trying again does not help.
var errRefusedAddress = errors.New("address is not allowed for this upstream")

// dialer connects to what one endpoint leads to. Every address is checked when it is
// dialled, so that a name cannot resolve to one address for the check and to another
// for the connection.
type dialer struct {
	opts *Options
	// own are the "host:port" that the operator has configured: they may be private.
	own map[string]bool
	// reach is the worst class of address that redirects and token servers may have.
	reach addressClass
	// inside: its name is one that networks use inside.
	inside bool
	// neverPrivate: the endpoint is that of a public registry, whatever its name resolves to.
	neverPrivate bool
}

func newDialer(base *url.URL, opts *Options) *dialer {
	d := &dialer{opts: opts, own: map[string]bool{}, reach: reachOf(base.Hostname())}
	d.inside = d.reach == privateAddress
	if opts.AllowPrivate {
		d.reach = max(d.reach, privateAddress)
	}
	if opts.Proxy != nil {
		// All names are resolved by the proxy, which therefore is all that is dialled.
		d.own[hostPort(opts.Proxy)] = true
		return d
	}
	d.own[hostPort(base)] = true
	d.neverPrivate = wellKnown(base.Hostname()) && !opts.AllowPrivate
	return d
}

// DialContext connects to addr, "host:port", if the policy allows the address behind it.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeouts.Connect)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	own := d.own[strings.ToLower(addr)]
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
func (d *dialer) dialName(ctx context.Context, network, host, port string, own bool) (net.Conn, error) {
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
				return fmt.Errorf("%w: %q", errRefusedAddress, address)
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
func (d *dialer) dialAny(ctx context.Context, network, host, port string, addrs []netip.Addr, own bool) (net.Conn, error) {
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

func (d *dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
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

// check applies the policy to an address about to be dialled.
func (d *dialer) check(to netip.AddrPort, own bool) error {
	a := to.Addr()
	switch class := classify(a); {
	case !d.opts.Family.has(a):
		return fmt.Errorf("%w: %s is not %s", errRefusedAddress, a, d.opts.Family)
	case class == neverAddress:
		return fmt.Errorf("%w: %s", errRefusedAddress, a)
	case own && d.opts.Proxy != nil:
		return nil
	case own && (class <= d.reach || class == privateAddress && !d.neverPrivate || class == loopbackAddress && d.inside):
		return nil
	case d.opts.Ours.has(to):
		return fmt.Errorf("%w: %s is our own", errRefusedAddress, to)
	case class > d.reach:
		return d.outOfReach(a.String(), class)
	}
	return nil
}

// outOfReach is the error of an address that an upstream must not lead to.
func (d *dialer) outOfReach(host string, class addressClass) error {
	if class == privateAddress && d.opts.Names.AllowPrivate != "" {
		return fmt.Errorf("%w: %s is private; %s lets it lead there", errRefusedAddress, host, d.opts.Names.AllowPrivate)
	}
	return fmt.Errorf("%w: %s", errRefusedAddress, host)
}

const (
	// headersMax bounds the headers of an answer. A signed Location has some 2 KiB.
	headersMax = 128 << 10
	// idleTimeout is below the 60 s after which many registries close.
	idleTimeout = 50 * time.Second
)

// newTransport returns the connections of one endpoint, its redirect targets and its
// token server.
func newTransport(d *dialer, opts *Options) (*http.Transport, error) {
	config, err := opts.TLS.config()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    opts.Timeouts.TLS,
		ResponseHeaderTimeout:  opts.Timeouts.FirstByte,
		MaxResponseHeaderBytes: headersMax,
		DisableCompression:     true, // sizes and digests are those of the bytes as stored
		ForceAttemptHTTP2:      true, // which an own DialContext turns off
		MaxIdleConnsPerHost:    opts.MaxConnections,
		IdleConnTimeout:        idleTimeout,
		HTTP2: &http.HTTP2Config{ // a dead connection must not look like a slow one
			SendPingTimeout: opts.Timeouts.FirstByte / 2,
			PingTimeout:     opts.Timeouts.FirstByte / 2,
		},
	}
	if opts.Proxy != nil {
		t.Proxy = http.ProxyURL(opts.Proxy)
	}
	return t, nil
}

func (t TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.RootCAs}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		if config.RootCAs, err = basePool(t.RootCAs); err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates to trust: %q holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile == "" && t.KeyFile == "" {
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// basePool returns a pool that may be added to.
func basePool(given *x509.CertPool) (*x509.CertPool, error) {
	if given != nil {
		return given.Clone(), nil
	}
	return x509.SystemCertPool()
}
