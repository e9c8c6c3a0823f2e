package signed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// revocationAgain is when a certificate is looked at again that was not revoked.
const revocationAgain = 24 * time.Hour

// notary verifies by a trust policy of notation.
type notary struct{ verifier notation.Verifier }

func newNotation(s *Signer, client *http.Client) (*notary, error) {
	var doc trustpolicy.Document
	name := filepath.Join(s.Notation, "trustpolicy.json")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	var options verifier.VerifierOptions
	fetcher, err := crl.NewHTTPFetcher(client)
	if err != nil {
		return nil, err
	}
	for _, p := range []struct {
		purpose purpose.Purpose
		to      *revocation.Validator
	}{{purpose.CodeSigning, &options.RevocationCodeSigningValidator}, {purpose.Timestamping, &options.RevocationTimestampingValidator}} {
		if *p.to, err = revocation.NewWithOptions(revocation.Options{OCSPHTTPClient: client, CRLFetcher: fetcher, CertChainPurpose: p.purpose}); err != nil {
			return nil, err
		}
	}
	// Without plugins: they are programs.
	v, err := verifier.NewWithOptions(&doc, truststore.NewX509TrustStore(dir.NewSysFS(s.Notation)), nil, options)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	return &notary{v}, nil
}

func (n *notary) takes(s found) bool { return s.mediaType == jwsType || s.mediaType == coseType }

func (n *notary) verify(ctx context.Context, image image, s found) (by string, until time.Time, err error) {
	d := image.desc.Digest
	outcome, err := n.verifier.Verify(ctx, ocispec.Descriptor{MediaType: string(image.desc.MediaType), Digest: digest.Digest(d.String()), Size: image.desc.Size},
		s.bytes, notation.VerifierVerifyOptions{ArtifactReference: image.repo + "@" + d.String(), SignatureMediaType: s.mediaType})
	switch {
	case err != nil:
		return "", until, err
	case outcome.EnvelopeContent == nil: // the level skip
		return "", until, errors.New("its trust policy verifies nothing of this repository")
	}
	signer := outcome.EnvelopeContent.SignerInfo
	until = signer.SignedAttributes.Expiry
	soon := time.Now().Add(revocationAgain)
	if outcome.VerificationLevel.Enforcement[trustpolicy.TypeRevocation] == trustpolicy.ActionEnforce && (until.IsZero() || soon.Before(until)) {
		until = soon
	}
	if leaf := signer.CertificateChain[0]; leaf.NotAfter.After(time.Now()) && (until.IsZero() || leaf.NotAfter.Before(until)) {
		until = leaf.NotAfter // after which a timestamp may still hold it up
	}
	return signer.CertificateChain[0].Subject.String(), until, nil
}
