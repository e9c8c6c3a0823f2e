package bundle

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A signature is one of OpenSSH's (PROTOCOL.sshsig of its sources), so that
// "ssh-keygen -Y verify" reads it, over the text of the manifest, which has the digest of
// everything in the archive.
const (
	// Namespace keeps signatures that were made for something else from being taken for one.
	Namespace = "forebay-bundle"

	signatureMagic   = "SSHSIG"
	signatureVersion = 1
	signatureHash    = "sha512"
	signatureType    = "SSH SIGNATURE"
	signatureMost    = 16 << 10
	keyMost          = 64 << 10
)

// ErrSignature means that a bundle is not signed, or not by a key that is trusted.
var ErrSignature = errors.New("signature is not right")

// ErrPassphrase means that a key needs a passphrase, or another one.
var ErrPassphrase = errors.New("the key is protected by a passphrase")

// signed is what a signature is over.
type signed struct {
	Namespace string
	Reserved  string
	Hash      string
	Sum       []byte
}

// armored is a signature as it is written.
type armored struct {
	Version   uint32
	Key       []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// messageOf returns the bytes that are signed for a text.
func messageOf(text []byte) []byte {
	sum := sha512.Sum512(text)
	return append([]byte(signatureMagic), ssh.Marshal(signed{Namespace, "", signatureHash, sum[:]})...)
}

// Sign signs the text of a manifest.
func Sign(key ed25519.PrivateKey, text []byte) ([]byte, error) {
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	made, err := signer.Sign(rand.Reader, messageOf(text))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	body := append([]byte(signatureMagic), ssh.Marshal(armored{
		signatureVersion, signer.PublicKey().Marshal(), Namespace, "", signatureHash, ssh.Marshal(made),
	})...)
	return armor(body), nil
}

// armor writes a signature as ssh-keygen does: base64 in lines of 70.
func armor(body []byte) []byte {
	var b bytes.Buffer
	b.WriteString("-----BEGIN " + signatureType + "-----\n")
	text := base64.StdEncoding.EncodeToString(body)
	for len(text) > 0 {
		n := min(len(text), 70)
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString("-----END " + signatureType + "-----\n")
	return b.Bytes()
}

// Proof is the text of a manifest with a signature over it. It proves nothing before Check.
type Proof struct {
	Text      []byte
	Signature []byte
	Keys      []ed25519.PublicKey // of which one must have signed
}

// Check verifies the signature. It returns the key that made it; every error is an [ErrSignature].
func (p Proof) Check() (ed25519.PublicKey, error) {
	key, err := p.check()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return key, nil
}

func (p Proof) check() (ed25519.PublicKey, error) {
	s, key, err := parseSignature(p.Signature)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.Keys, func(k ed25519.PublicKey) bool { return k.Equal(key) }) {
		return nil, fmt.Errorf("it is by the key %s, which is not among those to verify with", Fingerprint(key))
	}
	var made ssh.Signature
	if err := ssh.Unmarshal(s.Signature, &made); err != nil || made.Format != ssh.KeyAlgoED25519 || len(made.Rest) > 0 {
		return nil, errors.New("it is no ed25519 signature")
	}
	if !ed25519.Verify(key, messageOf(p.Text), made.Blob) {
		return nil, errors.New("it is not over this manifest: one of the two was changed")
	}
	return key, nil
}

// parseSignature reads a signature, and the key that it names.
func parseSignature(text []byte) (*armored, ed25519.PublicKey, error) {
	if len(text) > signatureMost {
		return nil, nil, fmt.Errorf("it has %d bytes", len(text))
	}
	body, err := unarmor(string(text))
	if err != nil {
		return nil, nil, err
	}
	rest, ok := bytes.CutPrefix(body, []byte(signatureMagic))
	var s armored
	if !ok || ssh.Unmarshal(rest, &s) != nil || s.Version != signatureVersion {
		return nil, nil, errors.New("it is no SSH signature")
	}
	if s.Namespace != Namespace || s.Hash != signatureHash || s.Reserved != "" {
		return nil, nil, fmt.Errorf("it is for %.40q with %.20q, want %s with %s", s.Namespace, s.Hash, Namespace, signatureHash)
	}
	key, err := ssh.ParsePublicKey(s.Key)
	if err != nil {
		return nil, nil, errors.New("its key cannot be read")
	}
	public, err := ed25519Of(key)
	return &s, public, err
}

func unarmor(text string) ([]byte, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")), "-----BEGIN "+signatureType+"-----\n")
	if ok {
		rest, ok = strings.CutSuffix(rest, "\n-----END "+signatureType+"-----")
	}
	if !ok {
		return nil, errors.New("it is no SSH signature")
	}
	body, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(rest, "\n", ""))
	if err != nil {
		return nil, errors.New("it is no SSH signature")
	}
	return body, nil
}

func ed25519Of(key ssh.PublicKey) (ed25519.PublicKey, error) {
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		if public, ok := k.CryptoPublicKey().(ed25519.PublicKey); ok && key.Type() == ssh.KeyAlgoED25519 {
			return public, nil
		}
	}
	return nil, fmt.Errorf("it is a key of type %s, want ed25519", key.Type())
}

// Fingerprint returns what ssh-keygen -l shows of a key.
func Fingerprint(key ed25519.PublicKey) string {
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		return "of an unknown form"
	}
	return ssh.FingerprintSHA256(k)
}

// PublicKeyText returns a key as [ParsePublicKeys] reads it.
func PublicKeyText(key ed25519.PublicKey) string {
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		return ""
	}
	return string(ssh.MarshalAuthorizedKey(k))
}

// ParsePrivateKey reads an ed25519 key to sign with: of OpenSSH, or PKCS #8 in PEM. The
// error is [ErrPassphrase] when it needs a passphrase and passphrase is empty or wrong.
func ParsePrivateKey(text, passphrase []byte) (ed25519.PrivateKey, error) {
	if len(text) > keyMost {
		return nil, errors.New("it is too large for a key")
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, errors.New("it is an encrypted PKCS #8 key, which is not supported: take one of ssh-keygen -t ed25519")
	}
	var key any
	var err error
	if len(passphrase) > 0 {
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(text, passphrase)
	} else {
		key, err = ssh.ParseRawPrivateKey(text)
	}
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		return nil, ErrPassphrase
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, fmt.Errorf("%w, and not by this one", ErrPassphrase)
	case err != nil && len(passphrase) > 0:
		if plain, err := ssh.ParseRawPrivateKey(text); err == nil {
			return privateOf(plain) // a passphrase too many is no harm
		}
		return nil, errors.New("it is no private key of OpenSSH or in PEM, or the passphrase is wrong")
	case err != nil:
		return nil, errors.New("it is no private key of OpenSSH or in PEM") // the cause may quote it
	}
	return privateOf(key)
}

func privateOf(key any) (ed25519.PrivateKey, error) {
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k, nil
	case *ed25519.PrivateKey:
		return *k, nil
	case crypto.Signer:
		return nil, fmt.Errorf("it is a key of type %T, want ed25519: make one with ssh-keygen -t ed25519", k.Public())
	}
	return nil, errors.New("it is no ed25519 key: make one with ssh-keygen -t ed25519")
}

// ParsePublicKeys reads the ed25519 keys to verify with: lines of OpenSSH, as in *.pub,
// authorized_keys or allowed_signers, or PEM.
func ParsePublicKeys(text []byte) ([]ed25519.PublicKey, error) {
	if len(text) > keyMost {
		return nil, errors.New("it is too large for keys")
	}
	var keys []ed25519.PublicKey
	if bytes.Contains(text, []byte("-----BEGIN ")) {
		return publicPEM(text)
	}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if at := strings.Index(line, ssh.KeyAlgoED25519+" "); at > 0 {
			line = line[at:] // behind the names of an allowed_signers file
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("line %d is no public key of OpenSSH", n+1)
		}
		public, err := ed25519Of(key)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no public key")
	}
	return keys, nil
}

func publicPEM(text []byte) (keys []ed25519.PublicKey, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("it holds a %s, want a PUBLIC KEY", strings.ToLower(block.Type))
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("it holds a key that is not ed25519")
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no public key")
	}
	return keys, nil
}
