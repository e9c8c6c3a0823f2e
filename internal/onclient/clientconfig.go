// Package onclient has the commands for machines of clients: what points them at a mirror, and why
// they do not pull through it.
//
// It promises that they need nothing of a mirror but its address: no configuration, no folder, no token.
package onclient

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/clientconfig"
	"forebay/internal/command"
	"forebay/internal/registries"
)

// clientLook is how often client-config --watch looks whether its files are still there: k3s and rke2
// write the folder anew when they start.
const clientLook = 30 * time.Second

// NewClientConfig returns the command client-config.
func NewClientConfig(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client-config CLIENT",
		Short: "Tell or write what points a client at a mirror",
		Long: `Prints what to put where so that a client pulls through a mirror, with what to mind, or with
--install writes it into the files of this machine: what is there stays, and where that
cannot be, nothing is written and it says what to change. --remove takes it back.

For containerd (also that of k3s and rke2) it is the hosts.toml for all registries that have
none of their own. It is read at every pull, so that nothing is restarted.

With --watch it stays, and takes back what it wrote when it is told to stop. So it runs in
the cluster, on each node (deploy/helm).

CLIENT is one of ` + strings.Join(clientconfig.Clients(), ", ") + ".",
		Example: `  forebay client-config dockerd --url http://mirror.lan:5000
  forebay client-config podman --url https://mirror.lan:5443 --ca ca.pem --install
  forebay client-config containerd --remove
  forebay client-config containerd --url http://127.0.0.1:5000 --root /host --install --watch`,
		Args: cobra.ExactArgs(1), ValidArgs: clientconfig.Clients(),
	}
	m := clientconfig.Mirror{}
	cmd.Flags().StringVar(&m.URL, "url", "http://127.0.0.1:5000", "`URL` of the mirror, as the client reaches it")
	ca := cmd.Flags().String("ca", "", "PEM `file` of who signed the mirror's certificate, if the machine does not trust it")
	cmd.Flags().StringArrayVar(&m.Registries, "registry", registries.Mirrored(), "`NAME` of a registry, for clients that must be told of each beside docker.io (may be repeated)")
	root := cmd.Flags().String("root", "/", "`folder` where the file system of the machine is")
	install := cmd.Flags().Bool("install", false, "write it")
	remove := cmd.Flags().Bool("remove", false, "take back what was written")
	watch := cmd.Flags().Bool("watch", false, "with --install: stay, and take it back at the end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *install && *remove || *watch && !*install {
			return command.Usage(errors.New("use --install, with or without --watch, or --remove"))
		}
		if *ca != "" {
			text, err := os.ReadFile(*ca)
			if err != nil {
				return err
			}
			m.CA = string(text)
		}
		s, err := clientconfig.For(args[0], m)
		if err != nil {
			return command.Usage(err)
		}
		if !*install && !*remove {
			_, err := fmt.Fprint(p.Stdout, s)
			return err
		}
		apply := func(did string, put bool) (bool, error) {
			files, err := s.Apply(*root, put)
			if len(files) > 0 {
				fmt.Fprintf(p.Stdout, "%s %s\n", did, strings.Join(files, ", "))
			}
			return len(files) > 0, err
		}
		if *remove {
			changed, err := apply("mirror taken out of", false)
			if err == nil && !changed {
				fmt.Fprintf(p.Stdout, "%s is in none of these files: nothing is changed\n", m.URL)
			}
			return err
		}
		changed, err := apply("mirror written into", true)
		if err != nil {
			return err
		}
		if !*watch {
			if changed && s.Then != "" {
				fmt.Fprintf(p.Stdout, "now: %s\n", s.Then)
			}
			return nil
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = keepWritten(ctx, func() error {
			_, err := apply("mirror written again into", true)
			return err
		})
		_, back := apply("mirror taken out of", false)
		return errors.Join(err, back)
	}
	return cmd
}

// keepWritten calls write now and then until ctx is done.
func keepWritten(ctx context.Context, write func() error) error {
	look := time.NewTicker(clientLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := write(); err != nil {
				return err
			}
		}
	}
}
