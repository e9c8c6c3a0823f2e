package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/server"
)

func newHealthcheck(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running forebay on this machine whether it is well",
		Long: `Asks the forebay that runs with the same settings on this machine: its admin
listener, or its registry API when the admin listener is off. Exits with 0 if it is
well and with 1 otherwise. It is the HEALTHCHECK of the container image.`,
		Example: `  forebay healthcheck
  forebay healthcheck --ready --timeout 1s`,
		Args: cobra.NoArgs,
	}
	load := command.ConfigFlags(cmd, p, "listen", "admin-listen")
	ready := cmd.Flags().Bool("ready", false, "also ask whether it takes traffic: it does not while it starts or stops")
	timeout := cmd.Flags().Duration("timeout", 3*time.Second, "longest wait for the answer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load("")
		if err != nil {
			// Docker keeps exit code 2 of a health check for itself.
			return fmt.Errorf("not well: %w", unusage(err))
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		if err := askHealth(ctx, healthURL(c, *ready)); err != nil {
			return fmt.Errorf("not well: %w", err)
		}
		return nil
	}
	return cmd
}

// unusage returns err as a text only, so that it is no usage error any more.
func unusage(err error) error { return fmt.Errorf("%s", err.Error()) }

// healthURL returns what a forebay with these settings answers on this machine.
func healthURL(c *config.Config, ready bool) string {
	listen, certified, path := c.AdminListen, c.AdminTLS.Enabled(), "/healthz"
	switch {
	case listen == "":
		// A registry API that is stopping does not listen any more, so this tells both.
		listen, certified, path = c.Listen, c.TLS.Enabled(), "/v2/"
	case ready:
		path = "/readyz"
	}
	scheme := "http://"
	if certified {
		scheme = "https://"
	}
	return scheme + server.Reachable(listen) + path
}

func askHealth(ctx context.Context, url string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		// It asks itself by address, which no certificate names, and sends nothing secret.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "forebay-healthcheck")
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	why, _ := io.ReadAll(io.LimitReader(response.Body, 256)) // only to tell more
	return fmt.Errorf("%s answers %s: %s", url, response.Status, strings.TrimSpace(string(why)))
}
