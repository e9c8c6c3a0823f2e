package fill

import "sync/atomic"

// Memory bounds what blobs take that arrive in memory, all together, until their last reader
// has left. Those that find no room arrive in files. nil is no memory.
type Memory struct{ left atomic.Int64 }

// NewMemory returns a Memory of so many bytes.
func NewMemory(bytes int64) *Memory {
	m := &Memory{}
	m.left.Store(bytes)
	return m
}

// take takes n bytes if they are there.
func (m *Memory) take(n int64) bool {
	if m == nil {
		return false
	}
	if m.left.Add(-n) < 0 {
		m.left.Add(n)
		return false
	}
	return true
}

func (m *Memory) give(n int64) { m.left.Add(n) }
