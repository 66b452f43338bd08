package minio

import (
	"context"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// Survey tries what the operations, and undoing them, will need, as far as that can be
// done by reading: the clients' and the admin's ways in, each node's answer to the
// question whether it is well, the programs that start and stop it, and the state
// directory, where what is removed is kept.
func (s *store) Survey(ctx context.Context, ops []target.Operation) (target.Survey, error) {
	var rights bool
	var unknown strict.Problems
	for _, op := range ops {
		_, err := target.Named(operations(), op.Name, operationKind.title)
		unknown = append(unknown, err)
		rights = rights || op.Name == FaultReadOnly
	}
	var looks []func(*strict.Problems)
	for i, n := range s.nodes {
		looks = append(looks, func(p *strict.Problems) { s.surveyNode(ctx, i, n, len(ops) > 0, p) })
	}
	looks = append(looks, func(p *strict.Problems) { s.surveyService(ctx, rights, p) })
	found := append(unknown, strict.Gather(looks...)...)
	return target.Survey{Parts: s.parts()}, found.Scrubbed(s.scrub)
}

// parts are all that an operation may hit.
func (s *store) parts() []event.Part {
	var out []event.Part
	for _, n := range s.nodes {
		out = append(out,
			s.part(n, "pid", event.AnyEnd, "drives", strings.Join(n.Drives, " "), "key", event.AnyEnd, "user", s.cfg.User),
			event.Part{ID: "disk:" + n.Name + ":" + event.AnyEnd, Kind: "filesystem", Labels: map[string]string{"host": n.Host}})
		for _, drive := range n.Drives {
			out = append(out, s.part(n, "drive", drive))
		}
	}
	return out
}

func (s *store) surveyService(ctx context.Context, rights bool, p *strict.Problems) {
	if err := s.needBucket(ctx); err != nil {
		p.Add("endpoint", s.cfg.Endpoint, fmt.Sprintf("it does not answer the probes' user: %v; give the address that clients use, and this user's secretKey", err))
	}
	if !rights {
		return
	}
	if _, err := s.policiesOf(ctx, s.cfg.User); err != nil {
		p.Add("admin.user", s.cfg.Admin.User, fmt.Sprintf("giving the probes' user its rights back needs it: %v", err))
	}
}

// surveyNode asks a node's machine whether the server could be started there again and
// what is broken be put back. operated is false where nothing is to be done to it.
func (s *store) surveyNode(ctx context.Context, i int, n *node, operated bool, p *strict.Problems) {
	if !operated {
		return
	}
	at := fmt.Sprintf("nodes[%d].", i)
	if err := s.health(ctx, n, healthLive); err != nil {
		p.Add(at+"port", n.Address().String(), fmt.Sprintf("undoing waits until it is well, and it does not answer: %v; give its own address, and make it answer where firedrill runs", err))
	}
	words := []string{n.Start[0]}
	if len(n.Stop) > 0 {
		words = append(words, n.Stop[0])
	}
	lacking, writable, err := s.machine(n).Survey(ctx, "", append(words, "flock", "cp", "sha256sum")...)
	if err != nil {
		*p = append(*p, err)
		return
	}
	for _, program := range lacking {
		field, value := at+"control", "" // an argument may be a secret, and findings are for all to read
		switch {
		case program == n.Start[0]:
			field, value = at+"start", program
		case len(n.Stop) > 0 && program == n.Stop[0]:
			field, value = at+"stop", program
		}
		p.Add(field, value, fmt.Sprintf("%s cannot be run on the machine of node %s: name a program that is there, or install it", program, n.Name))
	}
	if !writable {
		p.Add("stateDir", s.cfg.StateDir, fmt.Sprintf("firedrill cannot write there on the machine of node %s: let it, or choose another directory", n.Name))
	}
}
