package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"forebay/cache/disk"
	"forebay/config"
	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/doctor"
	"forebay/internal/onclient"
	"forebay/internal/pull"
	"forebay/upstream"
	"forebay/upstream/auth"
)

const (
	// clockMost is how far a clock may be off: signed URLs and tokens are checked more tightly than a
	// quarter of an hour, and no network takes minutes.
	clockMost = 2 * time.Minute
	// clockFor bounds the question for the time.
	clockFor = 5 * time.Second
	// elsewhereLeast is of how many pulls in a window it is worth to tell that others spent them.
	elsewhereLeast = 5
)

func newDoctorMirror(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Find out what keeps a mirror on this machine from its work",
		Long: `Reads the configuration as the server does and tries what it needs: the disk, the clock, the
name server, and of each registry its token server and the credentials, by a request that
no registry counts as a pull; the bucket; and asks the mirror that runs, if one does, for its
troubles and for pulls that are spent past it. It fails (exit code 1) if it finds anything.`,
		Example: `  forebay doctor mirror
  forebay doctor mirror --config /etc/forebay/forebay.yaml --json`,
		Args: cobra.NoArgs,
	}
	flags, program := adminclient.ServerFlags(cmd), newProgram(p).Program
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.Load(program)
		if err != nil {
			return err
		}
		l := &mirrorLook{c: c, build: thisBuild(), lookup: net.DefaultResolver.LookupHost}
		ctx := cmd.Context()
		l.disk()
		for i := range c.Upstreams {
			if u := &c.Upstreams[i]; !u.Offline {
				l.Registries = append(l.Registries, u.Name)
				l.registry(ctx, u)
			}
		}
		l.bucket(ctx)
		if o, err := flags.Find(program); err == nil {
			l.running(ctx, o)
			o.Close()
		}
		return onclient.Told(p, &l.Report, flags.AsJSON)
	}
	return cmd
}

// mirrorLook is a look at what a mirror needs.
type mirrorLook struct {
	c      *config.Config
	build  build
	lookup func(ctx context.Context, host string) ([]string, error)
	skew   bool // a wrong clock was told
	doctor.Report
}

func (l *mirrorLook) wrong(where, wrong, do string) {
	l.Findings = append(l.Findings, doctor.Finding{Where: where, Wrong: wrong, Do: do})
}

// disk looks whether the folder takes files, and has room.
func (l *mirrorLook) disk() {
	dir := l.c.Storage.Dir
	f, err := os.CreateTemp(dir, "doctor")
	if err != nil {
		l.wrong(dir, "takes no files: "+err.Error(), "let "+whoami()+" write there, or choose another folder with storage.dir")
		return
	}
	_ = errors.Join(f.Close(), os.Remove(f.Name())) // it is empty
	free, total, err := disk.Room(dir)
	_, least, berr := bounds(l.c.Storage)
	if err = errors.Join(err, berr); err != nil {
		l.wrong(dir, err.Error(), "look at the disk")
	} else if free < uint64(least) {
		l.wrong(dir, fmt.Sprintf("has %s free of %s, and %s are to be left free: nothing new is kept", humanize.IBytes(free), humanize.IBytes(total), humanize.IBytes(uint64(least))),
			"make room, lower storage.max_size, or choose another folder with storage.dir")
	}
}

// probeOf returns a repository that is asked for. Of most registries it is one that is not there: the
// answer tells all the same whether name, connection, token server and credentials are right.
func probeOf(upstream string) string {
	if upstream == "docker.io" {
		return "library/busybox"
	}
	return "forebay/doctor"
}

// registry asks a registry for something by HEAD, which none counts.
func (l *mirrorLook) registry(ctx context.Context, u *config.Upstream) {
	where := "upstreams." + u.Name
	o := registryOptions(u, l.build.version, zap.NewNop())
	issuer, err := newIssuer(u, &o)
	if err != nil {
		l.wrong(where, err.Error(), "correct credentials")
		return
	}
	r, err := upstream.New(o)
	if err != nil {
		l.wrong(where, err.Error(), "correct it")
		return
	}
	defer registryClient{Registry: r, issuer: issuer}.Close()
	if !l.named(ctx, u) {
		return
	}
	l.clock(ctx, u)
	_, err = r.Resolve(ctx, probeOf(u.Name), "latest")
	kind := pull.KindOf(err)
	switch {
	case err == nil, kind == pull.NotFound, kind == pull.Unsupported:
	case errors.Is(err, pull.ErrLogin):
		l.wrong(where, u.Name+" does not take the user name and password", "correct username and password_file or docker_config")
	case errors.Is(err, auth.ErrUntrusted):
		l.wrong(where, pull.Words(err), "list it in trusted_realms if it is right")
	case kind == pull.Denied: // to what is not there, as most registries are
	case kind == pull.Limited:
		l.wrong(where, u.Name+" limits the mirror: it "+pull.Words(err), "wait, or give the mirror an account")
	default:
		l.wrong(where, u.Name+" "+pull.Words(err), "let the mirror reach it, and look at endpoints, proxy, ca_file and address_family")
	}
	for _, b := range r.Budget() {
		if b.Low {
			l.wrong(where, fmt.Sprintf("of %d pulls %d are left for %s", b.Limit, b.Remaining, b.Credential), "give the mirror an account, or wait")
		}
	}
}

// named reports whether the endpoints of a registry have addresses. Behind a proxy that is not our
// affair.
func (l *mirrorLook) named(ctx context.Context, u *config.Upstream) bool {
	for _, e := range u.Endpoints {
		at, err := url.Parse(e.URL)
		if proxy, _ := http.ProxyFromEnvironment(&http.Request{URL: at}); err != nil || u.Proxy != "" || proxy != nil {
			continue
		}
		if _, err := l.lookup(ctx, at.Hostname()); err != nil {
			l.wrong("upstreams."+u.Name, "the name "+at.Hostname()+" has no address here", "correct the name, or the name server of this machine")
			return false
		}
	}
	return true
}

// clock compares ours with that of a registry, once.
func (l *mirrorLook) clock(ctx context.Context, u *config.Upstream) {
	if l.skew || len(u.Endpoints) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clockFor)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, u.Endpoints[0].URL+"/v2/", nil)
	if err != nil {
		return
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return // what is wrong then is told by the registry's own client
	}
	_ = resp.Body.Close() // of a HEAD there is none
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if off := time.Since(theirs); err == nil && (off > clockMost || off < -clockMost) {
		l.skew = true
		l.wrong("clock", fmt.Sprintf("this machine's is %s off that of %s: certificates, tokens and signed URLs are refused", off.Abs().Round(time.Second), u.Name), "set it, and keep it by NTP")
	}
}

// bucket tries all that the mirror does with a bucket.
func (l *mirrorLook) bucket(ctx context.Context) {
	b, err := newBucket(l.c, l.build.version, zap.NewNop())
	if b == nil && err == nil {
		return
	}
	if err == nil {
		defer b.Close()
		err = b.Check(ctx)
	}
	if err != nil {
		l.wrong("storage.s3", err.Error(), "correct the settings, or the rights of the key")
	}
}

// running asks a mirror that runs with these settings what troubles it, and whether pulls are spent
// past it: by clients that go to the registry themselves, from the same address or with its account.
func (l *mirrorLook) running(ctx context.Context, o *adminclient.Client) {
	var s admin.Status
	if _, err := o.Ask(ctx, http.MethodGet, "/status", nil, nil, &s); err != nil {
		return // none runs, or not for us
	}
	for _, t := range s.Troubles {
		l.wrong(strings.TrimSuffix("mirror "+t.Upstream, " "), t.What+": "+t.Cause, t.Do)
	}
	for _, u := range s.Upstreams {
		for _, b := range u.Budgets {
			if b.Elsewhere >= elsewhereLeast {
				l.wrong("mirror "+u.Name, fmt.Sprintf("%d pulls of %s were spent past the mirror, by the same address or account: clients go to %s themselves", b.Elsewhere, b.Credential, b.Host),
					"look for them with forebay doctor on the machines of clients")
			}
		}
	}
}
