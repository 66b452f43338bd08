package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// systemIDForm is what initdb makes: a number of 64 bits that is never 0.
var systemIDForm = lazy.Regexp(`^[1-9][0-9]{0,19}$`)

// source is one place that told a cluster's system identifier.
type source struct {
	id, where string
	err       error
}

// Identify is "postgres/" and the cluster's system identifier, which initdb
// draws and every copy keeps: the same through any node, address or name.
//
// Every node is asked by its control file, which is there whether it runs or not,
// and where that cannot be read over SQL. One answer is enough; two that differ
// are an error, because then the configuration mixes clusters and a drill of it
// would hit both.
func (s *servers) Identify(ctx context.Context) (string, error) {
	found := make([]source, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() {
			if found[i] = s.idOfFiles(ctx, n); found[i].err == nil {
				return
			}
			if sql := s.idOverSQL(ctx, n); sql.err == nil {
				found[i] = sql
			} else {
				found[i].err = errors.Join(found[i].err, sql.err)
			}
		})
	}
	wg.Wait()
	var known source
	var errs []error
	for _, f := range found {
		switch {
		case f.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", f.where, f.err))
		case known.id == "":
			known = f
		case known.id != f.id:
			return "", fmt.Errorf("%s has system identifier %s, %s has %s: %w; list the nodes of one cluster",
				known.where, known.id, f.where, f.id, ErrFence)
		}
	}
	if known.id == "" {
		return "", s.scrub(fmt.Errorf("no node tells its system identifier, running or not; make one node, or its machine, reachable: %w", errors.Join(errs...)))
	}
	return Name + "/" + known.id, nil
}

func (s *servers) idOverSQL(ctx context.Context, n *node) source {
	// A frozen server accepts and never answers.
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	f := source{where: fmt.Sprintf("node %s at %s", n.Name, n.Address())}
	r, err := s.ask(ctx, n, "SELECT system_identifier FROM pg_control_system()")
	if err != nil {
		f.err = err
		return f
	}
	f.id, f.err = checkSystemID(r[0])
	return f
}

func (s *servers) idOfFiles(ctx context.Context, n *node) source {
	f := source{where: fmt.Sprintf("data directory %s of node %s", n.DataDir, n.Name)}
	id, err := s.systemIDOfFiles(ctx, n)
	if err != nil {
		f.err = err
		return f
	}
	f.id, f.err = checkSystemID(id)
	return f
}

// checkSystemID keeps half-written output from becoming an identity.
func checkSystemID(id string) (string, error) {
	if !systemIDForm().MatchString(id) {
		return "", fmt.Errorf("%q is not a system identifier", id)
	}
	return id, nil
}

// systemIDOfFiles reads the control file of a node, which may be down.
func (s *servers) systemIDOfFiles(ctx context.Context, n *node) (string, error) {
	if n.host.Local() {
		if id, ok := controlFileID(filepath.Join(n.DataDir, "global", "pg_control")); ok {
			return id, nil
		}
	}
	out, err := s.run(ctx, n, `"$1/pg_controldata" -D "$2"`, n.BinDir, n.DataDir)
	if err != nil {
		return "", err
	}
	var v view
	if err := v.offline(out); err != nil {
		return "", fmt.Errorf("node %s: %w", n.Name, err)
	}
	return v.SysID, nil
}

// controlFileSize is PG_CONTROL_FILE_SIZE: the data, then zeros.
const controlFileSize = 8192

// controlFileID reads the identifier from the file itself, as this stands right
// before each fault. It comes first, in the machine's byte order, and the checksum
// of all before it comes last: src/include/catalog/pg_control.h. It is not ok where
// the file cannot be read by firedrill, or is anything but a whole one;
// pg_controldata, which is asked then, knows more.
func controlFileID(path string) (id string, ok bool) {
	data, err := readRegular(path, controlFileSize)
	if err != nil || len(data) != controlFileSize || !isWhole(data) {
		return "", false
	}
	return strconv.FormatUint(binary.NativeEndian.Uint64(data), 10), true
}

// isWhole checks the checksum, a CRC-32C. Where it lies differs between versions,
// but only zeros follow it, so it is the last word that is not 0. A file that some
// other word ended, or half a write, fails: its sum is another.
func isWhole(data []byte) bool {
	for at := len(data) - 4; at >= 16; at -= 4 {
		if sum := binary.NativeEndian.Uint32(data[at:]); sum != 0 {
			return sum == crc32.Checksum(data[:at], crc32.MakeTable(crc32.Castagnoli))
		}
	}
	return false
}
