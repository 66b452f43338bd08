package minio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"sync"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// deploymentForm is what MinIO makes when it formats a store's drives.
var deploymentForm = lazy.Regexp(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Identify is "minio/" and the deployment's id, which MinIO draws when it formats
// the drives and writes to each of them: the same through any node, address or name,
// running or not.
//
// Every node is asked by its drives. One answer is enough; two that differ are an
// error, because then the configuration mixes stores and a drill of it would hit
// both.
func (s *store) Identify(ctx context.Context) (string, error) {
	ids, errs := make([]string, len(s.nodes)), make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() { ids[i], errs[i] = s.deployment(ctx, n) })
	}
	wg.Wait()
	known := -1
	for i, id := range ids {
		switch {
		case errs[i] != nil && errors.Is(errs[i], ErrFence):
			return "", s.scrub(errs[i])
		case errs[i] != nil:
		case known < 0:
			known = i
		case ids[known] != id:
			return "", fmt.Errorf("node %s belongs to deployment %s, node %s to %s: %w; list the nodes of one store",
				s.nodes[known].Name, ids[known], s.nodes[i].Name, id, ErrFence)
		}
	}
	if known < 0 {
		return "", s.scrub(fmt.Errorf("no drive tells its deployment; make one node's machine reachable: %w", errors.Join(errs...)))
	}
	return Name + "/" + ids[known], nil
}

// deployment is the id that a node's drives hold. A drive that cannot be read, such
// as a new one, is passed over while another one can.
func (s *store) deployment(ctx context.Context, n *node) (string, error) {
	known := ""
	var errs []error
	for _, drive := range n.Drives {
		id, err := s.deploymentOf(ctx, n, drive)
		switch {
		case err != nil:
			errs = append(errs, err)
		case known == "":
			known = id
		case known != id:
			return "", fmt.Errorf("node %s: its drives belong to deployments %s and %s: %w", n.Name, known, id, ErrFence)
		}
	}
	if known == "" {
		return "", errors.Join(errs...)
	}
	return known, nil
}

func (s *store) deploymentOf(ctx context.Context, n *node, drive string) (string, error) {
	file := path.Join(drive, ".minio.sys", "format.json")
	raw, err := n.host.ReadFile(ctx, file)
	if err != nil {
		return "", fmt.Errorf("node %s: %w; is it a drive of MinIO?", n.Name, err)
	}
	var f struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return "", fmt.Errorf("node %s: %s: %w", n.Name, file, err)
	}
	if !deploymentForm().MatchString(f.ID) {
		return "", fmt.Errorf("node %s: %s: %q is not a deployment's id", n.Name, file, f.ID)
	}
	return f.ID, nil
}
