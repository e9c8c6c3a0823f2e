package main

// contender is one way to decide.
type contender struct {
	name  string
	build func(*room) policy
}

// Shares of the capacity for what is kept apart.
const (
	smallShare    = 0.05 // of manifests, configs and small layers together
	manifestShare = 0.02 // of manifests alone, and then
	blobShare     = 0.08 // of configs and small layers
)

func contenders(t *trace) []contender {
	two := func(large func(*room) policy) func(*room) policy {
		return newClasses(large, class{is: isSmall, share: smallShare, build: newLRU})
	}
	three := func(large, small func(*room) policy) func(*room) policy {
		return newClasses(large,
			class{is: isManifest, share: manifestShare, build: small},
			class{is: isSmall, share: blobShare, build: small})
	}
	digests := digestsOf(t)
	return []contender{
		{"FIFO", newFIFO},
		{"LRU", newLRU},
		{"SLRU", newSLRU},
		{"SIEVE", newSIEVE},
		{"GDSF, cost 1", newGDSF},
		{"GDSF, packets", newPackets},
		{"W-TinyLFU-AV", newTinyLFU(false)},
		{"W-TinyLFU-AV, adaptive", newTinyLFU(true)},
		{"S3-FIFO", newS3FIFO},
		{"2 classes, LRU", two(newLRU)},
		{"2 classes, SIEVE", two(newSIEVE)},
		{"2 classes, GDSF packets", two(newPackets)},
		{"2 classes, W-TinyLFU-AV adaptive", two(newTinyLFU(true))},
		{"2 classes, S3-FIFO", two(newS3FIFO)},
		{"3 classes, LRU", three(newLRU, newLRU)},
		{"3 classes, SIEVE", three(newSIEVE, newClock)},
		{"3 classes, S3-FIFO", three(newS3FIFO, newClock)},
		{"forebay", newProduct(digests, 0, true)},
		{"forebay, restarted weekly", newProduct(digests, 7, true)},
		{"forebay, restarted weekly without hints", newProduct(digests, 7, false)},
		{clairvoyantName, newClairvoyant(t.nexts())},
	}
}

// clairvoyantName is of the one contender that cannot be had.
const clairvoyantName = "clairvoyant"
