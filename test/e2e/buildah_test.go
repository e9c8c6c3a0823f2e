package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// buildahStore is buildah with storage of its own.
type buildahStore struct {
	dir string
}

func openBuildah(t testing.TB, addr string) store {
	t.Helper()
	b := &buildahStore{dir: stateDir(t)}
	clientConfig(t, "podman", addr, b.dir, "--registry", "docker.io")
	writeFile(t, b.dir, "policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	writeFile(t, b.dir, "auth.json", "{}")
	return b
}

func (b *buildahStore) at(name ...string) string {
	return filepath.Join(append([]string{b.dir}, name...)...)
}

func (b *buildahStore) pull(ctx context.Context, name string) ([]string, error) {
	env := []string{"HOME=" + b.dir, "XDG_RUNTIME_DIR=" + b.dir, "REGISTRY_AUTH_FILE=" + b.at("auth.json"), "CONTAINERS_REGISTRIES_CONF=" + b.at(registriesConf)}
	if _, err := run(ctx, env, debianProgram("buildah"), "--root", b.at("root"), "--runroot", b.at("run"), "--storage-driver", "vfs",
		"pull", "--quiet", "--policy", "always", "--signature-policy", b.at("policy.json"), "docker.io/"+name); err != nil {
		return nil, err
	}
	// Its commands tell the digest of the platform's manifest; its storage knows that of the index, too.
	text, err := os.ReadFile(b.at("root", "vfs-images", "images.json"))
	return anyDigest.FindAllString(string(text), -1), err
}

var anyDigest = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// umoci unpacks what skopeo brought through the mirror.
func TestUmociUnpacksWhatTheMirrorGave(t *testing.T) {
	w := newWorld(t, worldOptions{})
	for range 2 { // the second time with the hub off
		s := openSkopeo(t, w.mirror.addr).(*skopeoStore)
		layout := filepath.Join(s.dir, "layout")
		if _, err := s.skopeo(t.Context(), "copy", "docker://docker.io/"+manyOCI+":"+catalogueTag, "oci:"+layout+":1"); err != nil {
			t.Fatal(err)
		}
		if _, err := run(t.Context(), nil, debianProgram("umoci"), "unpack", "--image", layout+":1", filepath.Join(s.dir, "bundle")); err != nil {
			t.Fatal(err)
		}
		if files, err := os.ReadDir(filepath.Join(s.dir, "bundle", "rootfs")); err != nil || len(files) == 0 {
			t.Errorf("umoci unpacked %d files, %v", len(files), err)
		}
		w.hub.SwitchOff()
	}
	w.assertClean(t)
}
