package job

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// Use is what a job does at a mirror's two places.
type Use uint8

const (
	// Looks writes to neither: a dry run, a verification.
	Looks Use = iota
	// Runs writes as the mirror's mode says.
	Runs
	// Repairs may write to both.
	Repairs
)

// access is what a job does at one place.
type access uint8

const (
	reads  access = iota
	sets          // modes and owners, by rules, and nothing else
	writes        // whatever is to be there
)

// access says what a job does at each place.
func (u Use) access(m drill.Mirror, from location.Location) (a [2]access) {
	ruled := slices.ContainsFunc(m.Permissions, func(p drill.Permission) bool { return sideOf(p) == plan.Source })
	switch {
	case u == Looks:
		return a
	case u == Runs && m.Mode == drill.MirrorTwoWay, u == Repairs && from.Scheme != location.ZFS:
		a[plan.Source] = writes
	case u == Runs && ruled:
		a[plan.Source] = sets
	}
	a[plan.Dest] = writes
	return a
}

// Turn is what a job needs for itself: its places, as they are called by all.
type Turn struct {
	note turnNote
	at   [2]location.Location
}

// turnNote is what others of the machine read.
type turnNote struct {
	// By is who it is, for people.
	By    string    `json:"by"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
	// At are the two locations, quoted as Go does, since names are bytes.
	At     [2]string `json:"at"`
	Writes [2]bool   `json:"writes"`
}

// Called is what others of the machine are told of a mirror.
func Called(m drill.Mirror) string {
	if m.Name == "" {
		return fmt.Sprintf("the mirror of %s to %s", m.From, m.To)
	}
	return "mirror " + m.Name
}

// Turn says what a job of a mirror needs. What cannot be understood of its places is
// refused when they are opened.
func (e Env) Turn(m drill.Mirror, u Use) Turn {
	t := Turn{note: turnNote{By: Called(m), PID: os.Getpid()}}
	for side, text := range []string{m.From, m.To} {
		l, err := location.Parse(text)
		if err != nil {
			continue
		}
		t.at[side] = e.Settled(l)
		t.note.At[side] = strconv.QuoteToASCII(t.at[side].String())
	}
	for side, a := range u.access(m, t.at[plan.Source]) {
		t.note.Writes[side] = a != reads
	}
	return t
}

// Settled is a location by its one name: links are followed, stores are their servers. It
// asks the file system, which may take for ever where that does not answer.
func (e Env) Settled(l location.Location) location.Location {
	if l.Scheme == location.Dir {
		l.Path = resolved(l.Path)
		return l
	}
	for _, s := range e.Stores {
		if l.Store == "" || s.Name != l.Store {
			continue
		}
		if scheme, _, ok := strings.Cut(s.Endpoint, "://"); ok {
			l.Scheme, l.Store, l.Endpoint = "s3+"+strings.ToLower(scheme), "", s.Endpoint
		}
	}
	l.Endpoint = location.Server(l.Endpoint)
	return l
}

// resolved follows the links of a path as far as there is anything.
func resolved(path string) string {
	for dir, rest := path, ""; dir != "/"; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		if found, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(found, rest)
		}
	}
	return path
}

// Against gives the place that two jobs cannot have both: where one of them writes, the
// other one has no business. Places that are only read are for all that read.
func (t Turn) Against(o Turn) (place location.Location, against bool) {
	for i, a := range t.at {
		for k, b := range o.at {
			if (t.note.Writes[i] || o.note.Writes[k]) && a.Scheme != "" && location.Overlap(a, b) {
				return a, true
			}
		}
	}
	return location.Location{}, false
}

// Begin has the turn on this machine, in whatever process another job may be. The error is
// a *state.LockedError while one has a place that is needed, which is not waited for, or
// that of ctx. The caller calls end when the job has ended. Where nothing can be locked no
// turns are taken.
func (e Env) Begin(ctx context.Context, t Turn) (end func() error, err error) {
	t.note.Since = e.Now().UTC()
	posted, err := e.Locks.Post(ctx, "mirrors", func(others [][]byte) ([]byte, error) {
		for _, other := range others {
			o, ok := readTurn(other)
			if !ok {
				continue // nobody's who means well
			}
			if place, against := t.Against(o); against {
				return nil, &state.LockedError{Dir: place.String(), By: o.note.By, PID: o.note.PID, Since: o.note.Since}
			}
		}
		return json.Marshal(t.note)
	})
	if errors.Is(err, state.ErrLocked) || err != nil && ctx.Err() != nil {
		return nil, err
	}
	return posted.Remove, nil
}

// InTurn opens a mirror once its turn is begun, which ends when the job is closed, or when
// open returns without one. The error is a *state.LockedError while another job has a place
// that is needed, or somebody has the mirror itself, neither of which is waited for; or that
// of open.
func (e Env) InTurn(ctx context.Context, m drill.Mirror, u Use, open func() (*Job, error)) (*Job, error) {
	name := cmp.Or(m.Name, AdHoc(m))
	// Who has the mirror has its places, too, but is no other mirror's job. If that cannot be
	// seen, open says why.
	if busy, _ := state.Holder(e.dir(name)); busy != nil {
		return nil, fmt.Errorf("mirror %s: %w", name, busy)
	}
	end, err := e.Begin(ctx, e.Turn(m, u))
	if err != nil {
		return nil, fmt.Errorf("mirror %s: %w", name, err)
	}
	j, err := open()
	if j == nil {
		return nil, errors.Join(err, end())
	}
	j.cleanUp = append([]func(context.Context) error{func(context.Context) error { return end() }}, j.cleanUp...) // which is last
	return j, err
}

// readTurn reads a note, which anybody may have written.
func readTurn(note []byte) (t Turn, ok bool) {
	if json.Unmarshal(note, &t.note) != nil {
		return t, false
	}
	t.note.By = machine.Printable(t.note.By)
	for side, quoted := range t.note.At {
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return t, false
		}
		if t.at[side], err = location.Parse(text); err != nil {
			return t, false
		}
	}
	return t, true
}
