package registries

import (
	"os"
	"path/filepath"
)

// LoginFiles are the names of files in which clients keep their logins: docker, mounted secrets of
// Kubernetes (the second as it was before 1.2, without "auths" around its entries), podman.
func LoginFiles() []string {
	return []string{"config.json", ".dockerconfigjson", ".dockercfg", "auth.json"}
}

// LoginFile returns the file with logins that path is, or the first that is in it as a folder.
func LoginFile(path string) string {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return path
	}
	for _, name := range LoginFiles() {
		if _, err := os.Stat(filepath.Join(path, name)); err == nil {
			return filepath.Join(path, name)
		}
	}
	return filepath.Join(path, LoginFiles()[0])
}
