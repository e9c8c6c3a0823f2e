package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

// writeBill writes which modules a program is made of, as the program itself says.
func (r *release) writeBill(p platform, binary string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	sum, err := sumOf(binary)
	if err != nil {
		return err
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: r.made.Format("2006-01-02T15:04:05Z"),
		Component: &cyclonedx.Component{
			BOMRef: "forebay", Type: cyclonedx.ComponentTypeApplication, Name: "forebay", Version: r.version,
			Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
			Hashes:   &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}},
		},
	}
	std := "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")
	parts := []cyclonedx.Component{{BOMRef: std, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: info.GoVersion, PackageURL: std}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		url := "pkg:golang/" + m.Path + "@" + m.Version
		part := cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url}
		// What go.sum says is a hash of hashes, which is named as such.
		if m.Sum != "" {
			part.Properties = &[]cyclonedx.Property{{Name: "go:sum", Value: m.Sum}}
		}
		parts = append(parts, part)
	}
	bom.Components = &parts
	refs := make([]string, len(parts))
	for i, c := range parts {
		refs[i] = c.BOMRef
	}
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: "forebay", Dependencies: &refs}}
	return create(r.file(p.label()+".cdx.json"), func(w io.Writer) error {
		return cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
	})
}

// writeNotes writes what the changelog says of this version. A version without a section is not
// released; what lies between two has that of what comes.
func (r *release) writeNotes() error {
	text, err := os.ReadFile(filepath.Join(r.source, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	notes, err := notesOf(string(text), r.plain())
	if err != nil {
		return err
	}
	return os.WriteFile(r.file("notes.md"), []byte(notes), 0o644)
}

func notesOf(changelog, version string) (string, error) {
	section := version
	if strings.Contains(version, "-") {
		section = "Unreleased"
	}
	_, rest, ok := strings.Cut(changelog, "\n## ["+section+"]")
	if !ok {
		return "", fmt.Errorf("CHANGELOG.md has no section [%s]", section)
	}
	if _, rest, ok = strings.Cut(rest, "\n"); !ok {
		return "", fmt.Errorf("CHANGELOG.md says nothing of [%s]", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## [")
	return strings.TrimSpace(rest) + "\n", nil
}

// chart packs the chart of this version as "helm package" does. Its rules and its dashboard are
// links into other folders of deploy/, which an archive cannot have.
func (r *release) chart() error {
	dir := filepath.Join(r.source, "deploy", "helm", "forebay")
	var entries []entry
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err == nil && rel == "Chart.yaml" {
			name, err = r.chartOfVersion(name)
		}
		entries = append(entries, entry{"forebay/" + filepath.ToSlash(rel), name, 0o644})
		return err
	})
	if err != nil {
		return err
	}
	return create(filepath.Join(r.out, "forebay-"+r.plain()+".tgz"), func(w io.Writer) error { return r.tarball(w, entries) })
}

var chartVersion = regexp.MustCompile(`(?m)^(version|appVersion): .*$`)

func (r *release) chartOfVersion(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return r.keep("Chart.yaml", chartVersion.ReplaceAll(text, []byte("$1: "+r.plain())))
}

// system is an operating system with its programs, as recipes name them.
type system struct {
	Brew     string
	Programs []packed
}

type packed struct{ Brew, Nix, URL, Sum string }

// recipes renders what Homebrew and Nix install from.
func (r *release) recipes() error {
	base := strings.TrimSuffix(r.url, "/")
	systems := []system{{Brew: "macos"}, {Brew: "linux"}}
	brew := map[string]string{"amd64": "intel", "arm64": "arm"}
	nix := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64", "ppc64le": "powerpc64le"}
	for _, p := range r.platforms {
		name := filepath.Base(r.file(p.label() + ".tar.gz"))
		i := map[string]int{"darwin": 0, "linux": 1}[p.os]
		if p.os == "windows" || brew[p.arch] == "" {
			continue
		}
		sum, err := sumOf(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		one := packed{Brew: brew[p.arch], URL: base + "/" + name, Sum: sum}
		if nix[p.arch] != "" {
			one.Nix = nix[p.arch] + "-" + p.os
		}
		systems[i].Programs = append(systems[i].Programs, one)
	}
	all, err := template.ParseFS(templates, "templates/forebay.rb", "templates/forebay.nix")
	if err != nil {
		return err
	}
	for _, name := range []string{"forebay.rb", "forebay.nix"} {
		err := create(filepath.Join(r.out, name), func(w io.Writer) error {
			return all.ExecuteTemplate(w, name, map[string]any{"Version": r.version, "Plain": r.plain(), "URL": base, "Systems": systems})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// provenance writes how the files came to be: an in-toto statement with a predicate of SLSA
// (slsa.dev/spec/v1.0/provenance). It is vouched for by the signature of the checksums.
func (r *release) provenance(ctx context.Context) error {
	files, err := r.sums()
	if err != nil {
		return err
	}
	var subjects []map[string]any
	for _, f := range files {
		subjects = append(subjects, map[string]any{"name": f.name, "digest": map[string]string{"sha256": f.sum}})
	}
	var names []string
	for _, p := range r.platforms {
		names = append(names, p.String())
	}
	statement := map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       subjects,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": map[string]any{
			"buildDefinition": map[string]any{
				"buildType":            "make release",
				"externalParameters":   map[string]any{"version": r.version, "platforms": names, "url": r.url},
				"internalParameters":   map[string]any{"go": runtime.Version()},
				"resolvedDependencies": []any{map[string]any{"name": "forebay", "digest": map[string]string{"gitCommit": r.revision}}},
			},
			"runDetails": map[string]any{"builder": map[string]any{"id": "tools/release"}},
		},
	}
	return create(r.file("provenance.json"), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(statement)
	})
}

// summed is a file of the release.
type summed struct{ name, sum string }

// sums returns the files of the release, by name.
func (r *release) sums() ([]summed, error) {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return nil, err
	}
	var all []summed
	for _, e := range entries {
		sum, err := sumOf(filepath.Join(r.out, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, summed{e.Name(), sum})
	}
	return all, nil
}

func sumOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checksums writes SHA256SUMS, and signs it.
func (r *release) checksums() error {
	files, err := r.sums()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&text, "%s  %s\n", f.sum, f.name)
	}
	if err := os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), text.Bytes(), 0o644); err != nil || r.key == "" {
		return err
	}
	key, err := readKey(r.key)
	if err != nil {
		return fmt.Errorf("key %q: %w", r.key, err)
	}
	// As "cosign verify-blob --key" wants it: ASN.1, in base64. Without a source of randomness it is
	// the same each time (RFC 6979).
	sum := sha256.Sum256(text.Bytes())
	signature, err := key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.out, "SHA256SUMS.sig"), []byte(base64.StdEncoding.EncodeToString(signature)), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, "forebay.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644)
}

// readKey reads a key as openssl writes it, without a passphrase.
func readKey(name string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, errors.New("its private key cannot be read")
		}
		if k, ok := key.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P256() {
			return k, nil
		}
		return nil, errors.New("it is no key for ECDSA with P-256")
	}
	return nil, errors.New("it holds no private key in PEM without a passphrase")
}
