package main

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"debug/buildinfo"
	"debug/elf"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// signingKey writes a key as openssl does.
func signingKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A release is made twice, and everything in it is looked at. FOREBAY_RELEASE_FULL makes it one of
// all platforms, from what is committed; else it is one of this machine's, from the work tree.
func TestReleaseIsTheSameTwiceAndSaysWhatItIs(t *testing.T) {
	key := signingKey(t)
	args := []string{"-version", "v9.8.7-rc.1", "-url", "https://forebay.example/9.8.7", "-key", key}
	if os.Getenv("FOREBAY_RELEASE_FULL") == "" {
		args = append(args, "-source", "../..", "-platforms", "linux/amd64")
	}
	var outs []string
	for range 2 {
		out := filepath.Join(t.TempDir(), "release")
		if err := run(t.Context(), append(args, "-out", out)); err != nil {
			t.Fatal(err)
		}
		outs = append(outs, out)
	}
	one, two := sumsIn(t, outs[0]), sumsIn(t, outs[1])
	if one != two {
		t.Errorf("two releases of one commit differ:\n%s\n%s", one, two)
	}
	for _, want := range []string{
		"_linux_amd64.tar.gz", "_linux_amd64.deb", "_linux_amd64.rpm", "_linux_amd64.apk", "_linux_amd64.cdx.json", "_image.oci.tar",
		"_provenance.json", "_notes.md", "  forebay.rb", "  forebay.nix", "  forebay-9.8.7-rc.1.tgz",
	} {
		if !strings.Contains(one, want) {
			t.Errorf("no file %s in\n%s", want, one)
		}
	}
	t.Run("signature", func(t *testing.T) { checkSignature(t, outs[0]) })
	t.Run("program", func(t *testing.T) { checkProgram(t, outs[0]) })
	t.Run("image", func(t *testing.T) { checkImage(t, outs[0]) })
	t.Run("chart", func(t *testing.T) { checkChart(t, outs[0]) })
	t.Run("recipes", func(t *testing.T) { checkRecipes(t, outs[0], one) })
	t.Run("alpine", func(t *testing.T) { checkAlpine(t, filepath.Join(outs[0], "forebay_9.8.7-rc.1_linux_amd64.apk")) })
	t.Run("provenance", func(t *testing.T) { checkProvenance(t, outs[0], one) })
}

func sumsIn(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sha256sum: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS.sig"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + string(signature) + "\n"
}

// openssl verifies what cosign does: an ASN.1 signature of ECDSA over SHA-256, in base64.
func checkSignature(t *testing.T, dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS.sig"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "sig")
	if err := os.WriteFile(binary, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(file string) error {
		cmd := exec.CommandContext(t.Context(), "openssl", "dgst", "-sha256", "-verify", "forebay.pub", "-signature", binary, file)
		cmd.Dir = dir
		return cmd.Run()
	}
	if err := verify("SHA256SUMS"); err != nil {
		t.Errorf("openssl: %v", err)
	}
	if verify("forebay.pub") == nil {
		t.Error("the signature is right for another file, too")
	}
}

func checkProgram(t *testing.T, dir string) {
	work := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xzf", filepath.Join(dir, "forebay_9.8.7-rc.1_linux_amd64.tar.gz"), "-C", work, "--strip-components=1").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	for _, name := range []string{"LICENSE", "README.md", "forebay.service", "man/forebay.1", "man/forebay.yaml.5", "completions/forebay.bash", "completions/_forebay", "completions/forebay.fish"} {
		if info, err := os.Stat(filepath.Join(work, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s in the archive: %v", name, err)
		}
	}
	binary := filepath.Join(work, "forebay")
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	said, err := exec.CommandContext(t.Context(), binary, "version").Output()
	if err != nil || !strings.HasPrefix(string(said), "forebay v9.8.7-rc.1 ") {
		t.Errorf("version says %q, %v", said, err)
	}
	// A work tree without git has neither.
	if os.Getenv("FOREBAY_RELEASE_FULL") != "" && !strings.Contains(string(said), "Z) go1.") {
		t.Errorf("version says %q: no commit and date", said)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.Open(filepath.Join(dir, "forebay_9.8.7-rc.1_linux_amd64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(text, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range *bom.Components {
		listed[c.Name+"@"+c.Version] = true
	}
	if len(info.Deps) < 20 {
		t.Fatalf("the program has %d modules", len(info.Deps))
	}
	for _, m := range info.Deps {
		if !listed[m.Path+"@"+m.Version] {
			t.Errorf("%s@%s is in the program and not in its bill", m.Path, m.Version)
		}
	}
}

func checkImage(t *testing.T, dir string) {
	f, err := os.Open(filepath.Join(dir, "forebay_9.8.7-rc.1_image.oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	work := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(work, h.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := create(name, func(w io.Writer) error { _, err := io.Copy(w, r); return err }); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(work)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
}

// The chart is that of this version, and whole: links would lead out of it.
func checkChart(t *testing.T, dir string) {
	work := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xzf", filepath.Join(dir, "forebay-9.8.7-rc.1.tgz"), "-C", work).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"Chart.yaml": "\nversion: 9.8.7-rc.1\nappVersion: 9.8.7-rc.1\n", "values.schema.json": "", "templates/mirror.yaml": "",
		"files/forebay.alerts.yml": "- alert: ", "files/forebay.json": "panels",
	} {
		name = filepath.Join(work, "forebay", name)
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
		if info, err := os.Lstat(name); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is no file: %v", name, err)
		}
	}
}

func checkRecipes(t *testing.T, dir, sums string) {
	for _, name := range []string{"forebay.rb", "forebay.nix"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sum, _, _ := strings.Cut(sums[:strings.Index(sums, "  forebay_9.8.7-rc.1_linux_amd64.tar.gz")][strings.LastIndex(sums[:strings.Index(sums, "  forebay_9.8.7-rc.1_linux_amd64.tar.gz")], "\n")+1:], " ")
		for _, want := range []string{"https://forebay.example/9.8.7/forebay_9.8.7-rc.1_linux_amd64.tar.gz", sum, "9.8.7-rc.1"} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s has no %q:\n%s", name, want, text)
			}
		}
	}
}

func checkProvenance(t *testing.T, dir, sums string) {
	text, err := os.ReadFile(filepath.Join(dir, "forebay_9.8.7-rc.1_provenance.json"))
	if err != nil {
		t.Fatal(err)
	}
	var statement struct {
		Subject []struct {
			Name   string
			Digest map[string]string
		}
	}
	if err := json.Unmarshal(text, &statement); err != nil {
		t.Fatal(err)
	}
	if len(statement.Subject) < 8 {
		t.Errorf("it names %d files", len(statement.Subject))
	}
	for _, s := range statement.Subject {
		if !strings.Contains(sums, s.Digest["sha256"]+"  "+s.Name+"\n") {
			t.Errorf("it names %s %s, which the checksums do not", s.Name, s.Digest)
		}
	}
}

func TestNotesAreThoseOfTheVersion(t *testing.T) {
	const text = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [0.2.0] - 2026-01-01\n\n- old\n\n## [0.1.0]\n\n- oldest\n"
	for version, want := range map[string]string{"0.2.0": "- old\n", "0.1.0": "- oldest\n", "0.0.0-dev.1": "- new\n"} {
		if got, err := notesOf(text, version); err != nil || got != want {
			t.Errorf("notesOf %s = %q, %v; want %q", version, got, err, want)
		}
	}
	if got, err := notesOf(text, "0.3.0"); err == nil {
		t.Errorf("a version without notes is released with %q", got)
	}
}

func TestNothingIsReleasedUnderAnotherName(t *testing.T) {
	for _, version := range []string{"1.2.3", "v1.2", "latest", "v1.2.3 ", "v1.2.3+x"} {
		r := release{}
		if err := r.name(version); err == nil {
			t.Errorf("version %q is taken as %q", version, r.version)
		}
	}
}

// A unit that was changed needs a look at how packages change it.
func TestPackagedUnitRunsWhatThePackageHas(t *testing.T) {
	text, err := os.ReadFile("../../deploy/forebay.service")
	if err != nil {
		t.Fatal(err)
	}
	unit, err := packagedUnit(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(unit, "/usr/local") || strings.Contains(unit, "DynamicUser") || !strings.Contains(unit, "\nUser=forebay\n") {
		t.Errorf("the unit is\n%s", unit)
	}
	if _, err := packagedUnit("[Unit]\n"); err == nil {
		t.Error("a unit without what is changed is packaged")
	}
}
