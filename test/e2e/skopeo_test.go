package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// skopeoStore is a folder to which skopeo copies images, all platforms of them.
type skopeoStore struct {
	dir string
}

func openSkopeo(t testing.TB, addr string) store {
	t.Helper()
	s := &skopeoStore{dir: stateDir(t)}
	clientConfig(t, "crio", addr, s.dir, "--registry", "docker.io")
	return s
}

func (s *skopeoStore) skopeo(ctx context.Context, args ...string) (string, error) {
	env := []string{"HOME=" + s.dir, "XDG_RUNTIME_DIR=" + s.dir}
	return run(ctx, env, debianProgram("skopeo"), append([]string{
		"--insecure-policy", "--registries-conf", filepath.Join(s.dir, registriesConf),
	}, args...)...)
}

func (s *skopeoStore) pull(ctx context.Context, name string) ([]string, error) {
	out, err := os.MkdirTemp(s.dir, "image")
	if err != nil {
		return nil, err
	}
	if _, err := s.skopeo(ctx, "copy", "--all", "--preserve-digests", "docker://docker.io/"+name, "dir:"+out); err != nil {
		return nil, err
	}
	digest, err := checkDir(out)
	return []string{digest}, err
}

// checkDir sums every file that skopeo named by its digest, and returns the
// digest of the manifest.
func checkDir(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var digest string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		want, isManifest := strings.CutSuffix(e.Name(), ".manifest.json")
		switch {
		case e.Name() == "version":
		case e.Name() == "manifest.json":
			digest = "sha256:" + sum
		case isManifest && want != sum, !isManifest && e.Name() != sum:
			return "", fmt.Errorf("file %s has the sum %s", e.Name(), sum)
		}
	}
	return digest, nil
}
