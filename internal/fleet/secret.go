package fleet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// secret is what all mirrors of a fleet have and nobody else.
type secret []byte

// code returns what only a mirror with the secret can make of the parts.
func (s secret) code(parts ...string) string {
	mac := hmac.New(sha256.New, s)
	mac.Write([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// sign returns text with the code of what and text behind it.
func (s secret) sign(what, text string) string { return text + " " + s.code(what, text) }

// open returns the text of sign, false if nobody with the secret made it of what.
func (s secret) open(what, signed string) (text string, ok bool) {
	i := strings.LastIndexByte(signed, ' ')
	if i < 0 || !hmac.Equal([]byte(signed[i+1:]), []byte(s.code(what, signed[:i]))) {
		return "", false
	}
	return signed[:i], true
}

// errStranger is the end of a handshake with one who has not the secret.
var errStranger = errors.New("the other side does not have the secret of the fleet")

// tls returns how mirrors speak with each other: both sides show the key that the secret gives (HKDF, RFC
// 5869), so that each knows the other for one who has it. Nothing else of a certificate counts. The keys
// of a connection are made for it alone (TLS 1.3), and a secret that leaks later opens nothing that was
// recorded.
func (s secret) tls() (*tls.Config, error) {
	seed, err := hkdf.Key(sha256.New, s, nil, "forebay fleet tls 1", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("key of the fleet: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	ours := key.Public().(ed25519.PublicKey)
	paper := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forebay fleet"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, &paper, &paper, ours, key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the fleet: %w", err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, // in place of names and authorities: VerifyConnection
		VerifyConnection: func(c tls.ConnectionState) error {
			if len(c.PeerCertificates) > 0 {
				if theirs, ok := c.PeerCertificates[0].PublicKey.(ed25519.PublicKey); ok && bytes.Equal(theirs, ours) {
					return nil
				}
			}
			return errStranger
		},
	}, nil
}
