// Package adminclient is the way of a command to the mirror that it works on: one that runs,
// by its admin API, or a storage folder that no mirror uses, by the same API within the process.
//
// It promises that a command does the same either way. What a mirror answers comes from
// registries in part, so that whatever is shown goes through [terminal.Printable].
package adminclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/command"
	"forebay/internal/secret"
	"forebay/internal/server"
	"forebay/internal/statefile"
	"forebay/internal/terminal"
)

// adminVariable names the server whose admin API the commands ask, as --server does.
const adminVariable = "FOREBAY_ADMIN"

// Client is one run of a command, with the mirror that it works on.
type Client struct {
	Program
	AsJSON    bool
	Form      terminal.Form // of tables
	noHeaders bool          // tables lack titles
	Storage   *Folder       // when the command has the storage folder to itself; else nil

	server adminServer
}

// adminServer is where the admin API is, and how it is to be spoken to.
type adminServer struct {
	base  string // URL without a path
	token config.Secret
	http  *http.Client
	// how says where base is from, for errors: "admin_listen", "--server".
	how   string
	lacks error // why the token that the server made for itself is not known; nil if it was not looked for
}

// Table returns a table on standard output, in the form that was asked for.
func (c *Client) Table(head ...string) *terminal.Table {
	if c.noHeaders && c.Form != terminal.Names {
		head = nil
	}
	t := terminal.NewTable(c.Stdout, head...)
	t.Form = c.Form
	return t
}

// Address is that of the server.
func (c *Client) Address() string { return c.server.base }

// Close lets go of the connections to the server.
func (c *Client) Close() { c.server.http.CloseIdleConnections() }

// findServer settles which server is asked. One that is named gets no token but that which is named,
// too: the token of the configuration is for the server of the configuration. What a server makes
// for itself is good for nothing on another machine; on this one it says where that is.
func (f *Flags) findServer(p Program) (adminServer, error) {
	env := map[string]string{}
	for _, entry := range p.Env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	s := adminServer{base: f.server, how: "--server"}
	if s.base == "" && f.context == "" {
		s.base, s.how = env[adminVariable], adminVariable
	}
	if s.base == "" {
		if err := f.useContext(&s, p); err != nil {
			return s, err
		}
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	c, err := config.Load(config.Sources{File: f.config, Env: p.Env, Root: p.Root})
	if s.base == "" {
		if err != nil {
			return s, command.Usage(err)
		}
		if c.AdminListen == "" {
			return s, command.Usage(errors.New("admin_listen is off, so that the server cannot be asked: turn it on, or name another server with --server"))
		}
		s.base, s.how, s.token = "http://"+server.Reachable(c.AdminListen), "admin_listen", c.AdminToken
		if c.AdminTLS.Enabled() {
			s.base = "https://" + server.Reachable(c.AdminListen)
			if names := c.AdminTLS.ACME.Hosts; len(names) > 0 { // it is asked by an address
				trust.ServerName = names[0]
			} else if trust, err = trustOnly(c.AdminTLS.CertFile); err != nil {
				return s, err
			}
		}
	} else if err := s.named(env); err != nil {
		return s, err
	}
	if f.tokenFile != "" {
		token, err := readToken(f.tokenFile)
		if err != nil {
			return s, command.Usage(fmt.Errorf("--token-file: %w", err))
		}
		s.token = token
	}
	own := ""
	if err == nil {
		own = filepath.Join(c.Storage.Dir, admin.OwnToken)
	}
	if f.caFile != "" {
		text, err := os.ReadFile(f.caFile)
		if err != nil {
			return s, command.Usage(fmt.Errorf("--ca-file: %w", err))
		}
		trust = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), ServerName: trust.ServerName}
		if !trust.RootCAs.AppendCertsFromPEM(text) {
			return s, command.Usage(fmt.Errorf("--ca-file: %q holds no PEM certificate", f.caFile))
		}
	}
	switch {
	case f.certFile != "":
		own, err := tls.LoadX509KeyPair(f.certFile, cmp.Or(f.keyFile, f.certFile))
		if err != nil {
			return s, command.Usage(fmt.Errorf("--cert-file: %w", err))
		}
		trust.Certificates = []tls.Certificate{own}
		if f.tokenFile == "" { // it says who asks
			s.token = config.Secret{}
		}
	case f.keyFile != "":
		return s, command.Usage(errors.New("--key-file needs --cert-file beside it"))
	}
	s.http = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: trust, ResponseHeaderTimeout: 11 * time.Minute, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if s.token.Empty() && f.certFile == "" {
		s.own(own)
	}
	return s, nil
}

// baseOf returns the address of a server without a slash at its end.
func baseOf(address string) (string, error) {
	u, err := url.Parse(address)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.User == nil {
		return u.Scheme + "://" + u.Host, nil
	}
	if err == nil {
		address = u.Redacted()
	}
	return "", command.Usage(fmt.Errorf("%q is not the address of a server", address))
}

// named checks the address of a server that was named, and finds its token.
func (s *adminServer) named(env map[string]string) error {
	if !strings.Contains(s.base, "://") {
		s.base = (&url.URL{Scheme: "http", Host: server.Reachable(s.base)}).String() // which escapes an IPv6 zone
	}
	base, err := baseOf(s.base)
	if err != nil {
		return fmt.Errorf("%s: %w: use HOST:PORT, http://HOST:PORT or https://HOST:PORT", s.how, err)
	}
	s.base = base
	if token := env[config.Variable("admin_token")]; token != "" {
		s.token = secret.New(token)
	} else if name := env[config.Variable("admin_token_file")]; name != "" {
		if s.token, err = readToken(name); err != nil {
			return command.Usage(fmt.Errorf("%s: %w", config.Variable("admin_token_file"), err))
		}
	}
	return nil
}

func readToken(name string) (config.Secret, error) {
	token, err := statefile.ReadToken(name)
	return secret.New(token), err
}

// own takes the token that a server on this machine made for itself. The server says in which file
// it is, if it has made one; else it is asked for with the file named, that of the configuration.
// It may not be there or not be for us to read, and the server may do without.
func (s *adminServer) own(name string) {
	u, err := url.Parse(s.base)
	if err != nil || !config.OnLoopback(net.JoinHostPort(u.Hostname(), u.Port())) {
		return
	}
	if response, err := s.http.Head(s.base + "/api/v1/status"); err == nil {
		_ = response.Body.Close()
		// Whoever listens there could name any file, to be sent what is in it.
		if told := response.Header.Get(admin.TokenFileHeader); filepath.IsAbs(told) && filepath.Base(told) == admin.OwnToken {
			name = told
		}
	}
	if name != "" {
		s.token, s.lacks = readToken(name)
	}
}

// trustOnly trusts the very certificate of a file, whatever name it is for: it is asked by
// an address, which certificates rarely name.
func trustOnly(certFile string) (*tls.Config, error) {
	text, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%q holds no PEM certificate", certFile)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection is stricter
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, block.Bytes) {
				return fmt.Errorf("the server has another certificate than %q", certFile)
			}
			return nil
		},
	}, nil
}

// answerMost bounds an answer: a page of 1,000 images has some 2 MB.
const answerMost = 64 << 20

// Ask sends one request and decodes the answer into to, which may be nil. body may be nil.
// It returns the answer as it came.
func (c *Client) Ask(ctx context.Context, method, path string, query url.Values, body, to any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	target := c.server.base + "/api/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if method != http.MethodGet {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set(admin.OwnHeader, "1")
	}
	request.Header.Set("User-Agent", "forebay/"+c.Version)
	if !c.server.token.Empty() {
		request.Header.Set("Authorization", "Bearer "+c.server.token.Reveal())
	}
	response, err := c.server.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerMost))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.server.base, err)
	}
	if response.StatusCode >= 300 {
		return nil, c.refused(response, answer)
	}
	if path != "/status" && path != "/replicas" { // which show it themselves
		c.tellMirrors(answer)
	}
	if to != nil {
		if err := json.Unmarshal(answer, to); err != nil {
			return nil, fmt.Errorf("%s gives no answer of the admin API: %w", c.server.base, err)
		}
	}
	return answer, nil
}

// unreachable says what to do when no server answers.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which the message has already
	}
	err = fmt.Errorf("no answer from %s: %w", c.server.base, err)
	if errors.Is(err, syscall.ECONNREFUSED) {
		hint := "No server runs there. Start it with forebay serve, or name another with --server or " + adminVariable + "."
		if c.server.how == "admin_listen" {
			hint = "No server runs with these settings. Start it with forebay serve, or name it with --server, or its configuration with --config."
		}
		return command.Hint(err, hint)
	}
	return err
}

// refusal is an answer of the admin API that is an error.
type refusal struct {
	code, message string
}

func (e *refusal) Error() string { return e.message }

// IsCode reports whether err is an answer of the admin API with that code.
func IsCode(err error, code string) bool {
	var r *refusal
	return errors.As(err, &r) && r.code == code
}

// refused returns what the server has against the request.
func (c *Client) refused(response *http.Response, answer []byte) error {
	var fault admin.Fault
	if json.Unmarshal(answer, &fault) != nil || fault.Error.Message == "" {
		return fmt.Errorf("%s answers %s, and so is no admin API of this version", c.server.base, response.Status)
	}
	err := &refusal{fault.Error.Code, terminal.Printable(fault.Error.Message)}
	switch err.code {
	case "unauthorized":
		if !c.server.token.Empty() {
			return command.Hint(errors.New("that is not the token of "+c.server.base), "Compare what --token-file or FOREBAY_ADMIN_TOKEN names with admin_token_file, or admin.token in the storage folder, of the server.")
		}
		hint := "Give the token of the server with --token-file or FOREBAY_ADMIN_TOKEN."
		if c.server.lacks != nil {
			hint += " The one that a server on this machine makes for itself cannot be used: " + c.server.lacks.Error() + "."
		}
		return command.Hint(err, hint)
	case "unreadable":
		return command.Hint(err, "What is damaged is found and fetched again by forebay verify --repair.")
	case "bad_request", "bad_reference":
		return command.Usage(err)
	}
	return err
}

// Tell is Ask for what is to be told to whoever asked: to programs it is written as it came, and told is true then.
func (c *Client) Tell(ctx context.Context, method, path string, query url.Values, body, to any) (told bool, err error) {
	answer, err := c.Ask(ctx, method, path, query, body, to)
	if err != nil || !c.AsJSON {
		return false, err
	}
	return true, c.WriteAnswer(answer)
}

// WriteAnswer writes an answer of the admin API for programs.
func (c *Client) WriteAnswer(answer []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(answer), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := c.Stdout.Write(b.Bytes())
	return err
}
