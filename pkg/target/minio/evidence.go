package minio

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
)

// logTail is how many bytes of a node's log are kept, and collectLimit bounds the
// evidence of one node.
const (
	logTail      = 16 << 10
	collectLimit = 10 * time.Second
)

// Collect gathers, for each node, its state, drives and log, and the bucket's
// settings. What could not be had is in the error; the rest is returned.
func (s *store) Collect(ctx context.Context) ([]event.Artifact, error) {
	all, errs := make([][]event.Artifact, len(s.nodes)), make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, collectLimit)
			defer cancel()
			all[i], errs[i] = s.collectNode(ctx, n)
		})
	}
	wg.Wait()
	var out []event.Artifact
	for _, a := range all {
		out = append(out, a...)
	}
	now, err := s.settings(ctx)
	if err == nil {
		text := fmt.Sprintf("bucket %s at %s: versioning %q\npolicy: %s", s.cfg.Bucket, s.service, now.Versioning, now.Policy)
		if now.UserPolicies != nil {
			text += fmt.Sprintf("\npolicies of user %s: %s", s.cfg.User, *now.UserPolicies)
		}
		out = append(out, event.Artifact{Name: "bucket", Text: s.secrets.Text(text)})
	}
	return out, s.scrub(errors.Join(append(errs, err)...))
}

func (s *store) collectNode(ctx context.Context, n *node) ([]event.Artifact, error) {
	var out []event.Artifact
	var errs []error
	keep := func(name, text string, cut bool, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of node %s: %w", name, n.Name, err))
		}
		if text != "" {
			out = append(out, event.Artifact{Name: n.Name + "/" + name, Text: s.secrets.Text(text), Truncated: cut})
		}
	}
	var state strings.Builder
	ps, err := s.processes(ctx, n)
	for _, p := range ps {
		fmt.Fprintf(&state, "process %d %s in state %c\n", p.PID, p.Name, p.State)
	}
	if len(ps) == 0 {
		state.WriteString("no process\n")
	}
	for _, path := range []string{healthLive, healthReady, healthCluster} {
		said := "200"
		if err := s.health(ctx, n, path); err != nil {
			said = err.Error()
		}
		fmt.Fprintf(&state, "%s: %s\n", path, said)
	}
	keep("state", state.String(), false, err)
	text, err := s.run(ctx, n, control.Command{What: "measure the drives", Script: `df -P -- "$@"; df -P -i -- "$@"; for d; do echo "$d:"; cat -- "$d/.minio.sys/format.json"; echo; done`, Args: n.Drives})
	keep("drives", text, false, err)
	if n.LogFile != "" {
		log, cut, err := n.host.Tail(ctx, n.LogFile, logTail)
		keep("log", string(log), cut, err)
	}
	return out, errors.Join(errs...)
}
