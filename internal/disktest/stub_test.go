package disktest

func serveWithFewFiles() int { return 0 }
func fillTheDisk() int       { return 0 }
func readBadDisk() int       { return 0 }
