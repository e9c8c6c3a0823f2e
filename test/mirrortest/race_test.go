//go:build race

package mirrortest_test

// crowd is smaller under the race detector, which makes a thousand clients on two busy processors
// wait longer than the mirror lets anybody wait.
const crowd = 200
