package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Gatherer returns the metrics for those who read them within the process.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Families returns the metrics of the mirror itself, by name. Those of the Go runtime and
// of the process are client_golang's.
func Families() []Family {
	f := newFamilies()
	slices.SortFunc(f.all, func(a, b *Family) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	list := make([]Family, len(f.all))
	for i, one := range f.all {
		list[i] = *one
	}
	return list
}
