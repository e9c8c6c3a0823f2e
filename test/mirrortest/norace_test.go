//go:build !race

package mirrortest_test

// crowd is how many clients want one blob at once.
const crowd = 1000
