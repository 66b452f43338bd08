package postgres

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/control"
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

// TestWhoSaysThatThereIsNoPrimarySaysWhy: a wrong password is not mended by naming a node.
func TestWhoSaysThatThereIsNoPrimarySaysWhy(t *testing.T) {
	s := &servers{}
	refused := errors.New("password authentication failed")
	views := []view{
		{node: &node{Node: Node{Name: "a"}}, Procs: []control.Process{{PID: 7}}, SQLError: refused},
		{node: &node{Node: Node{Name: "b"}}, SQLError: errors.New("it is down")},
	}
	err := s.choose(&operation{}, views)
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "node a runs and does not answer") || strings.Contains(err.Error(), "it is down") {
		t.Errorf("%v", err)
	}
	if err := s.choose(&operation{}, views[1:]); err == nil || !strings.Contains(err.Error(), "params.node") {
		t.Errorf("without any that runs: %v", err)
	}
}
