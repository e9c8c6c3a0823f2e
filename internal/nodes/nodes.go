// Package nodes knows the nodes of the Kubernetes cluster that the mirror runs in, so that
// operators are told which of them never ask it for anything.
//
// It promises to ask the API server of the cluster and nobody else, for the list of nodes and
// nothing else, by the service account that the pod was given for that; and that nobody waits for
// it. A pod without a token of its account, as all of ours are by default, asks nobody.
package nodes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

const (
	account    = "/var/run/secrets/kubernetes.io/serviceaccount" // where a pod finds what its account shows
	every      = 5 * time.Minute
	refusedFor = time.Hour // a right comes with an upgrade of the chart, which starts the mirror anew
	askFor     = 30 * time.Second
	pageOf     = 200 // nodes in one answer: each has some 20 KB, most of them names of images
	nodesMost  = 10_000
	pageBytes  = 64 << 20
	addrMost   = 16 // of one node
)

// Node is a machine of the cluster.
type Node struct {
	Name  string
	Since time.Time // when it joined
	// From are the addresses that its requests come from: its own, and the networks of its pods,
	// of which the cluster's network takes one for the machine.
	From []netip.Prefix
}

// List is what is known of the nodes. Its methods may be called concurrently.
type List struct {
	url    string // of the API server
	token  string // file, which the kubelet writes anew
	client *http.Client
	log    *zap.Logger
	known  atomic.Pointer[[]Node]
}

// InCluster returns the list of the cluster in which this process runs, or nil outside of one or
// without a token. Its owner starts Run once.
func InCluster(log *zap.Logger) *List {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" {
		return nil
	}
	l, err := newList(net.JoinHostPort(host, port), account, log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("nodes of the cluster are not known", logkey.Err(err))
	}
	return l
}

// newList returns the list of the API server at address, with the token and the certificate of its
// authority in dir.
func newList(address, dir string, log *zap.Logger) (*List, error) {
	l := &List{url: "https://" + address, token: filepath.Join(dir, "token"), log: log}
	if _, err := os.Stat(l.token); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate", filepath.Join(dir, "ca.crt"))
	}
	l.client = &http.Client{
		Timeout: askFor,
		// No proxy: it is in the cluster.
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return l, nil
}

// Nodes returns the nodes as they were read last; none before that.
func (l *List) Nodes() []Node {
	if l == nil {
		return nil
	}
	if known := l.known.Load(); known != nil {
		return *known
	}
	return nil
}

// errRefused: the account may not list nodes, or its token is not believed.
var errRefused = errors.New("the account of the pod may not list nodes")

// Run reads the nodes now and then until ctx is done.
func (l *List) Run(ctx context.Context) error {
	if l == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	defer l.client.CloseIdleConnections()
	told := ""
	for wait := time.NewTimer(0); ; {
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
		all, err := l.read(ctx)
		if err == nil {
			l.known.Store(&all)
		} else if text := err.Error(); text != told && ctx.Err() == nil {
			told = text
			l.log.Warn("nodes of the cluster are not known", logkey.Err(err))
		}
		if wait.Reset(every); errors.Is(err, errRefused) {
			wait.Reset(refusedFor)
		}
	}
}

// read asks for all nodes.
func (l *List) read(ctx context.Context) (all []Node, err error) {
	token, err := os.ReadFile(l.token)
	if err != nil {
		return nil, err
	}
	for next := ""; ; {
		var more []Node
		if more, next, err = l.page(ctx, strings.TrimSpace(string(token)), next); err != nil {
			return nil, err
		}
		if all = append(all, more...); next == "" || len(all) >= nodesMost {
			return all, nil
		}
	}
}

// nodeList is as much of a NodeList (Kubernetes API, core/v1) as is of use here.
type nodeList struct {
	Metadata struct {
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []struct {
		Metadata struct {
			Name    string    `json:"name"`
			Created time.Time `json:"creationTimestamp"`
		} `json:"metadata"`
		Spec struct {
			PodCIDRs []string `json:"podCIDRs"`
		} `json:"spec"`
		Status struct {
			Addresses []struct{ Type, Address string } `json:"addresses"`
		} `json:"status"`
	} `json:"items"`
}

// page asks for some nodes, and returns what to go on after.
func (l *List) page(ctx context.Context, token, after string) (nodes []Node, next string, err error) {
	query := url.Values{"limit": {strconv.Itoa(pageOf)}}
	if after != "" {
		query.Set("continue", after)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/api/v1/nodes?"+query.Encode(), nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, "", fmt.Errorf("%w: the API server answers %s", errRefused, resp.Status)
	default:
		return nil, "", fmt.Errorf("the API server answers %s", resp.Status)
	}
	var list nodeList
	if err := json.NewDecoder(io.LimitReader(resp.Body, pageBytes)).Decode(&list); err != nil {
		return nil, "", fmt.Errorf("list of nodes: %w", err)
	}
	for _, item := range list.Items {
		one := Node{Name: item.Metadata.Name, Since: item.Metadata.Created}
		for _, a := range item.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && len(one.From) < addrMost { // others are names
				one.From = append(one.From, netip.PrefixFrom(ip.Unmap().WithZone(""), ip.Unmap().BitLen()))
			}
		}
		for _, cidr := range item.Spec.PodCIDRs {
			if network, err := netip.ParsePrefix(cidr); err == nil && len(one.From) < addrMost {
				one.From = append(one.From, network.Masked())
			}
		}
		nodes = append(nodes, one)
	}
	return nodes, list.Metadata.Continue, nil
}
