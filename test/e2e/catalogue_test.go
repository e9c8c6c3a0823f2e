package e2e

import (
	"fmt"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// repo names an image of the catalogue as Docker Hub does: "library/plain:1.0".
// A test that moves tags uses a repository of its own.
const (
	plainDocker = "library/plain-docker" // one platform, docker types
	plainOCI    = "library/plain-oci"    // one platform, OCI types
	manyDocker  = "library/many-docker"  // manifest list, docker types
	manyOCI     = "acme/many-oci"        // index with attestations, OCI types, a user's repository
	zstdOCI     = "library/zstd-oci"     // layers packed with zstd
	deepOCI     = "library/deep-oci"     // twenty layers
	bigDocker   = "library/big-docker"   // a layer of 64 MiB
	movingOCI   = "library/moving-oci"   // has a second version, which no tag has at first
)

const (
	bigLayerBytes  = 64 << 20
	realFilesBytes = 4 << 20
	deepLayers     = 20
	catalogueTag   = "1.0"
)

var (
	amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	// unknown is what BuildKit gives the attestations that it puts in an index.
	unknown = v1.Platform{OS: "unknown", Architecture: "unknown"}
)

// catalogue makes every image once per run. They are real: a static busybox,
// programs of this machine, and noise where size is the point.
var catalogue = sync.OnceValues(makeCatalogue)

func makeCatalogue() (map[string]image, error) {
	k, err := makeLayers()
	if err != nil {
		return nil, fmt.Errorf("make layers: %w", err)
	}
	made := make(map[string]image)
	for repo, make := range map[string]func() (image, error){
		plainDocker: func() (image, error) { return platformImage(docker, amd64, plainDocker, []layer{k.base, k.real}) },
		plainOCI:    func() (image, error) { return platformImage(oci, amd64, plainOCI, []layer{k.base, k.real}) },
		zstdOCI:     func() (image, error) { return platformImage(oci, amd64, zstdOCI, []layer{k.baseZstd, k.realZstd}) },
		bigDocker:   func() (image, error) { return platformImage(docker, amd64, bigDocker, []layer{k.base, k.big}) },
		deepOCI:     func() (image, error) { return platformImage(oci, amd64, deepOCI, append([]layer{k.base}, k.deep...)) },
		movingOCI:   func() (image, error) { return platformImage(oci, amd64, movingOCI, []layer{k.base, k.deep[0]}) },
		manyDocker:  func() (image, error) { return manyPlatforms(docker, manyDocker, k) },
		manyOCI:     func() (image, error) { return manyPlatforms(oci, manyOCI, k) },
	} {
		if made[repo], err = make(); err != nil {
			return nil, fmt.Errorf("make image %s: %w", repo, err)
		}
	}
	return made, nil
}

// movedImage is the second version of movingOCI. It keeps the first layer.
func movedImage() (image, error) {
	k, err := makeLayers()
	if err != nil {
		return image{}, err
	}
	return platformImage(oci, amd64, movingOCI+" moved", []layer{k.base, k.deep[1]})
}

// manyPlatforms joins amd64 and arm64 under one index; the OCI one has an
// attestation for each, as BuildKit makes them.
func manyPlatforms(d dialect, says string, k layers) (image, error) {
	var children []image
	platforms := []v1.Platform{amd64, arm64}
	for _, p := range platforms {
		child, err := platformImage(d, p, says, []layer{k.base, k.real})
		if err != nil {
			return image{}, err
		}
		children = append(children, child)
	}
	if d == oci {
		for _, c := range children[:2] {
			a, err := attestation(c)
			if err != nil {
				return image{}, err
			}
			children, platforms = append(children, a), append(platforms, unknown)
		}
	}
	return indexImage(d, platforms, children)
}

// layers are shared by the images, as those of real base images are.
type layers struct {
	// The archives differ too: a client unpacks none that it has in another packing.
	base, baseZstd layer // busybox
	real, realZstd layer // some MiB of programs of this machine
	big            layer // bigLayerBytes of noise
	deep           []layer
}

var makeLayers = sync.OnceValues(func() (layers, error) {
	var k layers
	var err error
	if k.base, err = baseLayer("base", gzipped); err != nil {
		return k, err
	}
	if k.baseZstd, err = baseLayer("base-zstd", zstandard); err != nil {
		return k, err
	}
	content, err := machineFiles("/usr/bin", realFilesBytes)
	if err != nil {
		return k, err
	}
	if k.real, err = newLayer("real", gzipped, content); err != nil {
		return k, err
	}
	if k.realZstd, err = newLayer("real-zstd", zstandard, content); err != nil {
		return k, err
	}
	if k.big, err = newLayer("big", gzipped, files{"big": noise(1, bigLayerBytes)}); err != nil {
		return k, err
	}
	for n := range deepLayers {
		name := fmt.Sprintf("deep-%d", n)
		l, err := newLayer(name, gzipped, files{name: noise(byte(10+n), 1000*(n+1))})
		if err != nil {
			return k, err
		}
		k.deep = append(k.deep, l)
	}
	return k, nil
})
