package operate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/command"
)

// How long certificates of trials hold. That of a server is at most what clients take: 825 days
// (Apple's and Google's platforms), and the authority much longer, since it is what has to be
// spread.
const (
	authorityTime = 10 * 365 * 24 * time.Hour
	serverTime    = 825 * 24 * time.Hour
	backdated     = time.Hour // clocks differ
)

// hostName is what clients compare with the host of a URL.
var hostName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)

func newGenCert(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gen-cert [HOST…]",
		Short: "Make a certificate authority and a certificate, for trials",
		Long: `Makes, in a folder, a certificate authority (ca.pem and its key) if there is none yet, and
a certificate of it for a server with these names and addresses (server.pem, server-key.pem),
or with --client for a client of that name (NAME.pem, NAME-key.pem).

It is for trials and small sites: whoever has ca-key.pem can be any server to all who
trust ca.pem.`,
		Example: `  forebay gen-cert mirror.lan 10.0.0.5 --out /etc/forebay/tls
  forebay gen-cert --client node-7 --out /etc/forebay/tls`,
	}
	out := cmd.Flags().String("out", ".", "folder for the files")
	client := cmd.Flags().String("client", "", "make the certificate of a client with this name")
	cmd.RunE = func(_ *cobra.Command, hosts []string) error {
		name, subject := "server", "forebay"
		switch {
		case *client != "" && len(hosts) > 0:
			return command.Usage(errors.New("--client makes the certificate of a client, which has no hosts: leave out one of them"))
		case *client != "":
			if !filepath.IsLocal(*client) || filepath.Base(*client) != *client || *client == "ca" || *client == "server" {
				return command.Usage(fmt.Errorf("--client: %q cannot be the name of a file: use letters, digits and dashes", *client))
			}
			name, subject = *client, *client
		case len(hosts) == 0:
			return command.Usage(errors.New("name the hosts that clients will use for this server: forebay gen-cert mirror.lan 10.0.0.5"))
		}
		template := &x509.Certificate{
			Subject: pkix.Name{CommonName: subject}, NotAfter: time.Now().Add(serverTime),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if *client != "" {
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else if hostName.MatchString(h) {
				template.DNSNames = append(template.DNSNames, h)
			} else {
				return command.Usage(fmt.Errorf("%q is no host: name it without a port, such as mirror.lan, 10.0.0.5 or fd00::5", h))
			}
		}
		if err := os.MkdirAll(*out, 0o755); err != nil {
			return err
		}
		ca, err := authorityIn(*out)
		if err != nil {
			return err
		}
		certFile, keyFile := filepath.Join(*out, name+".pem"), filepath.Join(*out, name+"-key.pem")
		if err := certify(template, ca, certFile, keyFile); err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.Stdout, "%s and %s hold until %s; clients trust them by %s\n",
			certFile, keyFile, template.NotAfter.UTC().Format(time.DateOnly), filepath.Join(*out, "ca.pem"))
		return err
	}
	return cmd
}

// authorityIn returns the authority of a folder, which it makes if there is none.
func authorityIn(folder string) (*tls.Certificate, error) {
	certFile, keyFile := filepath.Join(folder, "ca.pem"), filepath.Join(folder, "ca-key.pem")
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		err := certify(&x509.Certificate{
			Subject: pkix.Name{CommonName: "forebay trial authority"}, NotAfter: time.Now().Add(authorityTime),
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		}, nil, certFile, keyFile)
		if err != nil {
			return nil, err
		}
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	return &pair, nil
}

// certify writes a certificate and its key, signed by ca, or by itself if that is nil.
func certify(template *x509.Certificate, ca *tls.Certificate, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return err
	}
	template.NotBefore = time.Now().Add(-backdated)
	parent, signer := template, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The key first: a certificate without its key is of no use, and says what is missing.
	if err := writePEM(keyFile, "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	return writePEM(certFile, "CERTIFICATE", der, 0o644)
}

func writePEM(file, kind string, der []byte, mode fs.FileMode) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(file, text, mode); err != nil {
		return err
	}
	return os.Chmod(file, mode) // of one that was there
}
