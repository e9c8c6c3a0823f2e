package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"forebay/internal/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what a command writes, readable while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// execute runs one command to its end.
func execute(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err output
	code = run(t.Context(), args, command.Process{Env: append([]string{"HOME=" + t.TempDir()}, env...), Stdout: &out, Stderr: &err})
	return code, out.String(), err.String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestExitCodesAndMessages(t *testing.T) {
	good := write(t, "good.yaml", "upstreams: {ghcr.io: {}}")
	bad := write(t, "bad.yaml", "listne: 1\nhttp2: 1\n")
	noUsers := write(t, "users.yaml", "auth: {htpasswd_file: nosuch}")
	secret := write(t, "secret.yaml", "upstreams: {docker.io: {username: u, password: hunter2}}")
	for _, tt := range []struct {
		name           string
		env            []string
		args           []string
		code           int
		stdout, stderr string // each holds this
	}{
		{"nothing", nil, nil, 2, "", "no command given: see forebay --help"},
		{"unknown command", nil, []string{"server"}, 2, "", `there is no command "server": did you mean serve?`},
		{"unknown flag", nil, []string{"serve", "--port"}, 2, "", "unknown flag: --port: see forebay serve --help"},
		{"slip in a command", nil, []string{"stauts"}, 2, "", "did you mean stats or status?"},
		{"slip in a command below", nil, []string{"config", "chek"}, 2, "", "did you mean check?"},
		{"a mirror for a command that asks none", nil, []string{"hub", "limits", "--server", "x"}, 2, "", "unknown flag: --server: forebay hub limits asks no mirror: see forebay hub limits --help"},
		{"slip in a flag", nil, []string{"ls", "--sever", "x"}, 2, "", "unknown flag: --sever: did you mean --server: see forebay ls --help"},
		{"missing argument", nil, []string{"pin"}, 2, "", "name REF: forebay pin REF"},
		{"too many arguments", nil, []string{"pin", "a", "b"}, 2, "", `"b" is one argument too many: forebay pin REF`},
		{"missing argument behind those that may be", nil, []string{"copy"}, 2, "", "name [REF…] and TO: forebay copy [REF…] TO"},
		{"certificate for a port", nil, []string{"gen-cert", "mirror.lan", "10.0.0.5:5000", "--out", "/dev/null/x"}, 2, "", `"10.0.0.5:5000" is no host: name it without a port`},
		{"certificate for a URL", nil, []string{"gen-cert", "https://mirror.lan", "--out", "/dev/null/x"}, 2, "", "is no host"},
		{"certificate for names", nil, []string{"gen-cert", "*.lan", "Mirror_1.lan", "::1", "10.0.0.5", "--out", "/dev/null/x"}, 1, "", "mkdir /dev/null"},
		{"help of nothing", nil, []string{"help", "nosuch"}, 2, "", `there is no command "nosuch"`},
		{"exit codes", nil, []string{"help", "exit-codes"}, 0, "  4  a registry limits us", ""},
		{"version flag", nil, []string{"--version"}, 0, "forebay ", ""},
		{"slip before a flag", nil, []string{"stauts", "--config", "x"}, 2, "", "did you mean stats or status?"},
		{"fault as JSON", nil, []string{"ls", "--server", "http://127.0.0.1:1", "-o", "json"}, 1, "", `{"error":{"exit_code":1,"hint":"`},
		{"version by -o", nil, []string{"version", "-o", "json"}, 0, `"go_version": "go`, ""},
		{"help without what does nothing", nil, []string{"rebuild-index", "--help"}, 0, "--storage-dir", ""},
		{"help with the server apart", nil, []string{"ls", "--help"}, 0, "--no-headers      tables without titles\n      --no-trunc        as -o wide\n  -o, --output string   table, wide (nothing shortened), json, yaml, or name (one a line)\n\nWhich server it works on:\n", ""},
		{"version as JSON", nil, []string{"version", "--json"}, 0, `"go_version": "go`, ""},
		{"unknown form", nil, []string{"ls", "-o", "xml"}, 2, "", `--output: "xml" is not usable: use table, wide, json, yaml, name`},
		{"context without a name", nil, []string{"context", "add", "", "http://edge:5001"}, 2, "", `"" is no name: use one word`},
		{"context with a path", nil, []string{"context", "add", "edge", "http://edge:5001/api"}, 2, "", `"http://edge:5001/api" is not the address of a server: use http://HOST:PORT`},
		{"context with a password", nil, []string{"context", "add", "edge", "https://u:hunter2@edge:5001"}, 2, "", `"https://u:xxxxx@edge:5001" is not the address of a server`},
		{"context that is not there", nil, []string{"context", "rm", "no-such-edge"}, 2, "", `there is no context "no-such-edge"`},
		{"unknown context", nil, []string{"ls", "--context", "edge"}, 2, "", "--context: there is no context \"edge\"\nSee them with forebay context"},
		{"help", nil, []string{"--help"}, 0, "forebay serve --listen :80", ""},
		{"help of serve", nil, []string{"serve", "--help"}, 0, "--storage-dir", ""},
		{"version", nil, []string{"version"}, 0, "forebay ", ""},
		{"superfluous argument", nil, []string{"version", "x"}, 2, "", `"x" is one argument too many: forebay version`},
		{"check good", nil, []string{"config", "check", good}, 0, "good.yaml: right; mirrors ghcr.io\n", ""},
		{"check bad", nil, []string{"config", "check", bad}, 2, "", "the configuration has 2 faults:\n" + bad + ":1:1: listne: is not a key: did you mean \"listen\"?\n" + bad + ":2:8: http2: "},
		{"check users", nil, []string{"config", "check", noUsers}, 2, "", "auth: read passwords: "},
		{"check none", nil, []string{"config", "check", good + ".none"}, 2, "", "no such file"},
		{"check variable", []string{"FOREBAY_LOG_LEVEL=x"}, []string{"config", "check", good}, 2, "", "FOREBAY_LOG_LEVEL: log.level: "},
		{"check flag", nil, []string{"config", "check", "--listen", "5000", good}, 2, "", "--listen: listen: \"5000\" has no colon"},
		{"print", nil, []string{"config", "print", "--config", good, "--listen", ":1"}, 0, "listen: :1 # --listen\n", ""},
		{"print secret", nil, []string{"config", "print", "--config", secret}, 0, "password: '********'", ""},
		{"reference", nil, []string{"config", "reference"}, 0, "FOREBAY_STORAGE_MAX_SIZE", ""},
		{"serve with faults", nil, []string{"serve", "--config", bad}, 2, "", "the configuration has 2 faults"},
		{"healthcheck of nobody", nil, []string{"healthcheck", "--admin-listen", "127.0.0.1:1"}, 1, "", "not well: "},
		{"healthcheck with faults", nil, []string{"healthcheck", "--config", bad}, 1, "", "not well: "},
		{"rebuild-index of nothing", nil, []string{"rebuild-index", "--storage-dir", good + ".none"}, 1, "", "is not there\nName the folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := execute(t, tt.env, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("forebay %s = %d\nstdout: %s\nstderr: %s\nwant %d with %q and %q",
					strings.Join(tt.args, " "), code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Error("a password is shown")
			}
			if code == 0 && stderr != "" {
				t.Errorf("success wrote to stderr: %s", stderr)
			}
		})
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	root := newRoot(command.Process{})
	for _, cmd := range root.Commands() {
		if cmd.Short == "" || cmd.Long == "" && cmd.Name() != "version" {
			t.Errorf("forebay %s explains nothing", cmd.Name())
		}
		if cmd.Runnable() && cmd.GroupID == "" {
			t.Errorf("forebay %s is in no group", cmd.Name())
		}
		if cmd.Example == "" && cmd.Runnable() && !cmd.HasSubCommands() && cmd.Name() != "version" {
			t.Errorf("forebay %s has no example", cmd.Name())
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, err output
	code := run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--storage-dir", t.TempDir()},
		command.Process{Stdout: &out, Stderr: &err})
	if code != 0 {
		t.Errorf("serve with a context that is done = %d, want 0\n%s", code, err.String())
	}
}
