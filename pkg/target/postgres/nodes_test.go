package postgres

import (
	"slices"
	"testing"
)

func TestNodeNames(t *testing.T) {
	for config, want := range map[string][]string{
		`{"nodes":[{"name":"a"},{"name":"b"}]}`: {"a", "b"},
		`{"nodes":[{"name":"a"},{}]}`:           nil,
		`{"nodes":3}`:                           nil,
	} {
		if got := (Driver{}).NodeNames([]byte(config)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}
