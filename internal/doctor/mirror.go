package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"forebay/internal/clientconfig"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

const (
	// askFor is how long a mirror has to answer; it does within 20 s, whatever its registries do.
	askFor = 25 * time.Second
	// connectFor is how long one address has. Clients wait 30 s and more for one that does not answer.
	connectFor = 3 * time.Second
	// answerMost bounds what is read of an answer.
	answerMost = 64 << 10
)

// mirror asks a mirror as a client would.
func (l *look) mirror(ctx context.Context, base string) {
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" {
		l.wrong(base, "is no URL of a mirror", "write http:// or https://, and the host")
		return
	}
	if !l.addresses(ctx, base, u) {
		return
	}
	client, err := l.client(u.Host)
	if err != nil {
		l.wrong(l.machine.CA, err.Error(), "name the PEM file of who signed the mirror's certificate")
		return
	}
	status, header, text, err := get(ctx, client, base+"/v2/")
	if err != nil {
		l.unreachable(base, err)
		return
	}
	switch {
	case status == http.StatusBadRequest && strings.Contains(text, "HTTPS"):
		l.wrong(base, "speaks TLS, and clients ask it without", "write https:// in the files of the clients")
		return
	case status == http.StatusUnauthorized:
		l.wrong(base, "wants to know who its clients are: "+header.Get("Www-Authenticate"), "log in to it with the client; dockerd would show it the password for Docker Hub: give it a listener or network of its own")
		return
	case header.Get("Docker-Distribution-Api-Version") == "":
		l.wrong(base, fmt.Sprintf("is no registry: /v2/ is answered %d without the header of one", status), "is there another program at this address?")
		return
	}
	l.probe(ctx, client, base)
}

// probe asks for an image by the name of its registry, as clients do.
func (l *look) probe(ctx context.Context, client *http.Client, base string) {
	repo, tag, _ := strings.Cut(l.machine.Probe, ":")
	if repo == "" {
		return
	}
	status, _, text, err := get(ctx, client, base+"/v2/"+repo+"/manifests/"+tag+"?ns="+hub)
	switch {
	case err != nil:
		l.unreachable(base, err)
	case status == http.StatusOK:
	case status == http.StatusTooManyRequests:
		l.wrong(base, l.machine.Probe+" is not to be had: the registry limits the mirror", "give the mirror an account at Docker Hub")
	case status == http.StatusNotFound && strings.Contains(text, "not configured"):
		l.wrong(base, "does not mirror "+hub, "add it to its upstreams, or do not point clients of it there")
	default:
		l.wrong(base, fmt.Sprintf("%s is answered %d: %s", l.machine.Probe, status, wire.Clip(strings.TrimSpace(text), 300)), "look at the troubles that forebay status tells of the mirror")
	}
}

// addresses reports whether the mirror can be connected to at any address, and finds those that
// clients try first in vain.
func (l *look) addresses(ctx context.Context, base string, u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	addrs := []netip.Addr{}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		addrs = append(addrs, addr)
	} else if addrs, err = l.machine.Lookup(ctx, u.Hostname()); err != nil || len(addrs) == 0 {
		l.wrong(base, "its name has no address here: "+u.Hostname(), "correct the name, or the name server of this machine")
		return false
	}
	var good, bad []netip.Addr
	var last error
	for _, addr := range addrs {
		short, cancel := context.WithTimeout(ctx, connectFor)
		conn, err := l.machine.Dial(short, "tcp", net.JoinHostPort(addr.Unmap().String(), port))
		cancel()
		if err != nil {
			bad, last = append(bad, addr), err
			continue
		}
		_ = conn.Close() // nothing was sent
		good = append(good, addr)
	}
	if len(good) == 0 {
		l.wrong(base, "cannot be connected to: it "+pull.Words(last), "start it, correct the port, or let this machine reach it")
		return false
	}
	if six := slices.IndexFunc(bad, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }); six >= 0 {
		l.wrong(base, fmt.Sprintf("its name has the IPv6 address %s, which does not answer and is tried first", bad[six]), "let the mirror listen there, or take the address out of DNS")
	} else if len(bad) > 0 {
		l.wrong(base, fmt.Sprintf("its name has the address %s, which does not answer", bad[0]), "take it out of DNS")
	}
	return true
}

// unreachable says why there was no answer.
func (l *look) unreachable(base string, err error) {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		l.wrong(base, "shows a certificate that this machine does not trust", "forebay client-config CLIENT --url "+base+" --ca FILE --install, with the certificate of who signed it")
	case errors.As(err, &name):
		l.wrong(base, "shows a certificate for another name: "+name.Error(), "use a name that is in it, or make one with this name")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		l.wrong(base, "speaks no TLS, and clients ask it by https://", "write http:// in the files of the clients (for podman: insecure = true)")
	default:
		l.wrong(base, "gives no answer: it "+pull.Words(err), "look at its log")
	}
}

// client returns one that trusts what any client of the machine does for a host.
func (l *look) client(host string) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if l.machine.CA != "" {
		pem, err := os.ReadFile(l.machine.CA)
		if err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, errors.New("holds no certificate")
		}
	}
	authorities := slices.Clone(l.authorities)
	for _, dir := range []string{"etc/docker/certs.d/" + host, "etc/containers/certs.d/" + host} {
		files, _ := fs.ReadDir(l.root.FS(), clientconfig.Real(l.root, dir)) // none is none
		for _, f := range files {
			if strings.HasSuffix(f.Name(), ".crt") { // whatever stands before it (docs.docker.com, containers-certs.d(5))
				authorities = append(authorities, dir+"/"+f.Name())
			}
		}
	}
	for _, name := range authorities {
		if pem, ok := l.read(strings.TrimPrefix(name, "/")); ok {
			roots.AppendCertsFromPEM([]byte(pem))
		}
	}
	return &http.Client{
		Timeout: askFor,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: l.machine.Dial, DisableKeepAlives: true,
		},
	}, nil
}

// get asks without any credentials.
func get(ctx context.Context, client *http.Client, url string) (status int, header http.Header, text string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, "", err
	}
	r.Header.Set("User-Agent", "forebay-doctor")
	r.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json")
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	return resp.StatusCode, resp.Header, string(body), err
}
