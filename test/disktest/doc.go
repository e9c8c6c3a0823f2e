// Package disktest tests a whole cache against what disks and machines do: kills at every
// change of the disk, losses of power, full and broken file systems. There is no code here
// but tests. They mount file systems in a mount namespace of their own, which takes root
// on Linux and Debian's e2fsprogs; without them they fail and say so.
package disktest
