package onclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/command"
	"forebay/internal/doctor"
)

// NewDoctor returns the command doctor; of is the same for a mirror, which is below it.
func NewDoctor(p command.Process, of *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why clients of this machine do not pull through a mirror",
		Long: `Reads what dockerd, containerd, podman, CRI-O, k3s and rke2 of this machine are told, asks the
mirrors that they name as they would, pulls the manifest of an image through each, and says
what is wrong and what to change: also what has clients go to the registry silently. It
changes nothing. It fails (exit code 1) if it finds anything.`,
		Example: `  forebay doctor
  forebay doctor --url https://mirror.lan:5443 --ca ca.pem
  forebay doctor --root /host --json`,
		Args: cobra.NoArgs,
	}
	m := doctor.Machine{Dial: new(net.Dialer).DialContext, Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	cmd.Flags().StringVar(&m.Mirror, "url", "", "`URL` of the mirror that clients should use (default: those that they name)")
	cmd.Flags().StringVar(&m.CA, "ca", "", "PEM `file` of who signed the mirror's certificate, beside what the clients trust")
	cmd.Flags().StringVar(&m.Root, "root", "/", "`folder` where the file system of the machine is")
	cmd.Flags().StringVar(&m.Probe, "probe", "library/busybox:latest", "`IMAGE` of Docker Hub that is asked for; empty for none")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := m.Look(cmd.Context())
		if err != nil {
			return err
		}
		return Told(p, r, *asJSON)
	}
	cmd.AddCommand(of)
	return cmd
}

// Told prints a report. The error is that it has findings.
func Told(p command.Process, r *doctor.Report, asJSON bool) error {
	var err error
	if asJSON {
		err = json.NewEncoder(p.Stdout).Encode(r)
	} else {
		err = printReport(p, r)
	}
	if n := len(r.Findings); err == nil && n > 0 {
		err = fmt.Errorf("%d things are wrong", n)
		if n == 1 {
			err = errors.New("one thing is wrong")
		}
	}
	return err
}

func printReport(p command.Process, r *doctor.Report) error {
	var b strings.Builder
	for _, line := range []struct {
		what string
		list []string
	}{{"clients with settings here", r.Clients}, {"mirrors that were asked", r.Mirrors}, {"registries that were asked", r.Registries}} {
		if len(line.list) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", line.what, strings.Join(line.list, ", "))
		}
	}
	if len(r.Findings) == 0 {
		b.WriteString("nothing is wrong\n")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s\n  wrong: %s\n  do:    %s\n", f.Where, f.Wrong, f.Do)
	}
	_, err := fmt.Fprint(p.Stdout, b.String())
	return err
}
