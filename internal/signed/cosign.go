package signed

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"forebay/internal/wire"
)

// signPredicate is of a statement that is a signature, and no attestation (cosign 3).
const signPredicate = "https://sigstore.dev/cosign/sign/v1"

// cosign verifies by what sigstore trusts in one way, or in one of several.
type cosign struct {
	ways []way
}

// way is one that a signature is verified in.
type way struct {
	name     string // of a key
	verifier *verify.Verifier
	policy   verify.PolicyOption
}

// newKeys returns what verifies by public keys.
func newKeys(s *Signer) (*cosign, error) {
	c := &cosign{}
	options := []verify.VerifierOption{verify.WithNoObserverTimestamps()}
	var logs root.TrustedMaterialCollection
	if s.TrustedRoot != "" {
		r, err := root.NewTrustedRootFromPath(s.TrustedRoot)
		if err != nil {
			return nil, fmt.Errorf("trusted root %q: %w", s.TrustedRoot, err)
		}
		logs = append(logs, r)
		options = []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	}
	for _, name := range s.Keys {
		verifiers, err := readKey(name)
		if err != nil {
			return nil, err
		}
		for _, one := range verifiers {
			material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
				return root.NewExpiringKey(one, time.Time{}, time.Time{}), nil
			})
			v, err := verify.NewVerifier(append(root.TrustedMaterialCollection{material}, logs...), options...)
			if err != nil {
				return nil, err
			}
			c.ways = append(c.ways, way{filepath.Base(name), v, verify.WithKey()})
		}
	}
	return c, nil
}

// readKey reads a public key, which verifies with SHA-256, as cosign mostly signs, and with the hash that
// its kind has by itself.
func readKey(name string) ([]signature.Verifier, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || block.Type != string(cryptoutils.PublicKeyPEMType) {
		return nil, fmt.Errorf("%q holds no public key alone, as `cosign public-key` writes it", name)
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	first, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	all := []signature.Verifier{first}
	if second, err := signature.LoadDefaultVerifier(key); err == nil {
		all = append(all, second)
	}
	return all, nil
}

// newKeyless returns what verifies by certificates for one signing.
func newKeyless(s *Signer) (*cosign, error) {
	id := s.Identity
	switch {
	case id.Issuer == "":
		return nil, errors.New("needs an issuer: anybody can have a certificate of some issuer")
	case (id.Subject == "") == (id.SubjectRegexp == ""):
		return nil, errors.New("needs one of subject and subject_regexp")
	case s.TrustedRoot == "":
		return nil, errors.New("needs a trusted_root, such as `cosign trusted-root create` or the TUF repository of sigstore gives")
	}
	expression := "^(?:" + id.SubjectRegexp + ")$"
	if id.Subject != "" {
		p, err := wire.CompilePattern(id.Subject)
		if err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
		expression = p.String()
	}
	who, err := verify.NewShortCertificateIdentity(id.Issuer, "", "", expression)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	r, err := root.NewTrustedRootFromPath(s.TrustedRoot)
	if err != nil {
		return nil, fmt.Errorf("trusted root %q: %w", s.TrustedRoot, err)
	}
	if len(r.FulcioCertificateAuthorities()) == 0 {
		return nil, fmt.Errorf("trusted root %q has no certificate authority", s.TrustedRoot)
	}
	// Somebody else must say when it was signed: the certificate holds for minutes. Where the root has
	// logs, it must be in one of them, and so must be the certificate.
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1)}
	if len(r.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(r.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(r, options...)
	if err != nil {
		return nil, err
	}
	return &cosign{[]way{{"", v, verify.WithCertificateIdentity(who)}}}, nil
}

func (c *cosign) takes(s found) bool {
	return s.mediaType == simpleType || strings.HasPrefix(s.mediaType, bundleType)
}

func (c *cosign) verify(_ context.Context, image image, s found) (by string, until time.Time, err error) {
	var b *bundle.Bundle
	var artifact verify.ArtifactPolicyOption
	if s.mediaType == simpleType {
		if err := s.names(image.desc.Digest); err != nil {
			return "", until, err
		}
		b, err = s.asBundle()
	} else {
		b = &bundle.Bundle{Bundle: &protobundle.Bundle{}}
		err = b.UnmarshalJSON(s.bytes)
		digest, bad := hex.DecodeString(image.desc.Digest.Hex)
		if bad != nil {
			return "", until, bad
		}
		artifact = verify.WithArtifactDigest(image.desc.Digest.Algorithm, digest)
	}
	if err != nil {
		return "", until, err
	}
	for _, w := range c.ways {
		if s.mediaType == simpleType {
			artifact = verify.WithArtifact(bytes.NewReader(s.bytes)) // which the way before has read
		}
		var result *verify.VerificationResult
		result, err = w.verifier.Verify(b, verify.NewPolicy(artifact, w.policy))
		if err != nil {
			continue
		}
		// An attestation says something about an image: that it has a flaw, too.
		if t := result.Statement; t != nil && t.GetPredicateType() != signPredicate {
			return "", until, fmt.Errorf("it is an attestation (%.100q) and no signature", t.GetPredicateType())
		}
		by = w.name
		if cert := result.Signature.Certificate; cert != nil {
			by = cert.SubjectAlternativeName + " (" + cert.Issuer + ")"
		}
		return by, until, nil
	}
	return "", until, err
}

// The annotations of a layer by the tag scheme.
const (
	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationBundle      = "dev.sigstore.cosign/bundle"
	annotationTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"
)

// asBundle makes a bundle of a signature by the tag scheme: the same things in other words.
func (s found) asBundle() (*bundle.Bundle, error) {
	sig, err := base64.StdEncoding.DecodeString(s.annotations[annotationSignature])
	if err != nil || len(sig) == 0 {
		return nil, errors.New("it has no signature among its annotations")
	}
	digest := sha256.Sum256(s.bytes)
	material := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}}
	if text := s.annotations[annotationCertificate]; text != "" {
		certs, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(text))
		if err != nil || len(certs) == 0 {
			return nil, errors.New("its certificate cannot be read")
		}
		material.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certs[0].Raw}}
	}
	mediaType := bundleType + ".v0.3+json"
	if text := s.annotations[annotationBundle]; text != "" {
		entry, err := logEntry([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("its entry of a log: %w", err)
		}
		// With a promise of the log and no proof, as in the first version of bundles.
		mediaType, material.TlogEntries = bundleType+"+json;version=0.1", []*protorekor.TransparencyLogEntry{entry}
	}
	if text := s.annotations[annotationTimestamp]; text != "" {
		var t struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			return nil, fmt.Errorf("its timestamp: %w", err)
		}
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: t.SignedRFC3161Timestamp}}}
	}
	return bundle.NewBundle(&protobundle.Bundle{
		MediaType: mediaType, VerificationMaterial: material,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]}, Signature: sig,
		}},
	})
}

// logEntry reads what cosign keeps of an entry of Rekor.
func logEntry(text []byte) (*protorekor.TransparencyLogEntry, error) {
	var e struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(e.Payload.LogID)
	if err != nil {
		return nil, err
	}
	var kind struct{ Kind, APIVersion string }
	if err := json.Unmarshal(e.Payload.Body, &kind); err != nil {
		return nil, err
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: e.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, KindVersion: &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime: e.Payload.IntegratedTime, CanonicalizedBody: e.Payload.Body,
		InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: e.SignedEntryTimestamp},
	}, nil
}
