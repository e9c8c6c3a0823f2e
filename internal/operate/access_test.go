package operate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/config"
	"forebay/internal/access"
	"forebay/internal/authn"
	"forebay/internal/command"
)

// ran is one command line, run in this process.
func ran(t *testing.T, explain Explain, args ...string) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	p := command.Process{Stdout: &b, Stderr: &b, Env: []string{"HOME=" + t.TempDir()}}
	cmd := newToken(p)
	switch args[0] {
	case "gen-cert":
		cmd = newGenCert(p)
	case "access":
		cmd = newAccess(p, explain)
	}
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args[1:])
	err = cmd.ExecuteContext(t.Context())
	return b.String(), err
}

func TestTokensAreGivenOutAndWithdrawn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	known := func() map[string]string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all, err := authn.ParseTokens(text)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		for _, one := range all {
			names[one.Name] = strings.Join(one.Groups, ",")
		}
		return names
	}
	first, err := ran(t, nil, "token", "create", "ci", "--group", "b", "--group", "a", "--expires", "90d", "--file", file)
	if err != nil || !strings.HasPrefix(first, "fbt_") {
		t.Fatalf("create: %q, %v", first, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(file, 0o640); err != nil { // for the group that the server is of
		t.Fatal(err)
	}
	if _, err := ran(t, nil, "token", "create", "laptop", "--file", file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file has mode %v now, %v", info.Mode(), err)
	}
	if got := known(); len(got) != 2 || got["ci"] != "a,b" {
		t.Errorf("the file knows %v", got)
	}
	if out, err := ran(t, nil, "token", "list", "--file", file); err != nil || !strings.Contains(out, "laptop  never") || strings.Contains(out, strings.TrimSpace(first)) {
		t.Errorf("list: %s, %v", out, err)
	}
	for want, args := range map[string][]string{
		`there is a token "ci" already`: {"create", "ci"},
		`"a b" is no name`:              {"create", "a b"},
		`"soon" is no time to hold`:     {"create", "x", "--expires", "soon"},
		`there is no token "nobody"`:    {"revoke", "nobody"},
	} {
		if out, err := ran(t, nil, append(append([]string{"token"}, args...), "--file", file)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %s, %v; want %q", args, out, err, want)
		}
	}
	if _, err := ran(t, nil, "token", "revoke", "ci", "--file", file); err != nil {
		t.Fatal(err)
	}
	if got := known(); len(got) != 1 || got["laptop"] != "" {
		t.Errorf("the file knows %v after ci was withdrawn", got)
	}
}

func TestCertificatesForTrials(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tls")
	for _, args := range [][]string{{"mirror.lan", "10.0.0.5", "::1"}, {"--client", "node-7"}} {
		if out, err := ran(t, nil, append([]string{"gen-cert", "--out", folder}, args...)...); err != nil {
			t.Fatalf("gen-cert %v: %s, %v", args, out, err)
		}
	}
	pem, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for name, o := range map[string]x509.VerifyOptions{
		"server": {Roots: roots, DNSName: "mirror.lan"},
		"node-7": {Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(folder, name+".pem"), filepath.Join(folder, name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "server" && (pair.Leaf.VerifyHostname("10.0.0.5") != nil || pair.Leaf.VerifyHostname("::1") != nil) {
			t.Errorf("the server is %v, %v", pair.Leaf.DNSNames, pair.Leaf.IPAddresses)
		}
		if info, err := os.Stat(filepath.Join(folder, name+"-key.pem")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key of %s has mode %v, %v", name, info.Mode(), err)
		}
	}
	for _, args := range [][]string{{}, {"--client", "x", "host"}, {"--client", "../x"}, {"--client", "ca"}} {
		if _, err := ran(t, nil, append([]string{"gen-cert", "--out", folder}, args...)...); command.ExitCode(err) != command.ExitUsage {
			t.Errorf("gen-cert %v: %v, want a usage error", args, err)
		}
	}
}

func TestAccessIsExplained(t *testing.T) {
	file := filepath.Join(t.TempDir(), "forebay.yaml")
	if err := os.WriteFile(file, []byte("auth: {networks: {ci: 10.0.0.0/8}, groups: {team: [alice, 'network:ci']}}\naccess: [{who: ['group:team'], what: [ghcr.io]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	explain := func(_ *config.Config, id authn.Identity, image string) (access.Decision, string, error) {
		if image == "?" {
			return access.Decision{}, "", errors.New("no name of an image")
		}
		return access.Decision{Allowed: len(id.Groups) > 0, Rule: "access[1]"}, image, nil
	}
	for who, want := range map[string]string{
		"alice": "allowed: alice of team, ghcr.io/a by access[1]", "network:ci": "allowed: network:ci of team, ghcr.io/a by access[1]",
		"ci": "denied: ci, ghcr.io/a by access[1]", "nobody": "denied: nobody, ghcr.io/a by access[1]",
	} {
		out, err := ran(t, explain, "access", "explain", who, "ghcr.io/a", "--config", file)
		if err != nil {
			out = err.Error()
		}
		if strings.TrimSpace(out) != want {
			t.Errorf("%s: %q, want %q", who, out, want)
		}
	}
	if _, err := ran(t, explain, "access", "explain", "alice", "?", "--config", file); command.ExitCode(err) != command.ExitUsage {
		t.Errorf("a name that is none: %v", err)
	}
}
