package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// turnLimit bounds each run: far above what any takes.
const turnLimit = 30 * time.Minute

// settleTime is how long a tree rests before it is mirrored: what was written just
// now may still change within the same tick of its clock, so a careful contestant
// looks at it again in the next run, and that would be measured.
const settleTime = 2500 * time.Millisecond

// Run is one measured run.
type Run struct {
	Server     string `json:"server"`
	Case       string `json:"case"`
	Contestant string `json:"contestant"`
	// Round counts from 1.
	Round int `json:"round"`
	Usage
	// Failure says why the run does not count, if so.
	Failure string `json:"failure,omitempty"`
}

// Options say what is raced, and where.
type Options struct {
	// Bin has the programs of the contestants and MinIO.
	Bin string
	// Self is the program that measures, which is this one.
	Self string
	// Disk and RAM are directories on a disk and in memory for trees and servers.
	Disk, RAM string
	Runners   []Runner
	Servers   []Server
	Cases     []Case
	// Rounds is how often each contestant takes its turn in each case.
	Rounds int
	// Settle is how long a tree rests after it was written or changed.
	Settle time.Duration
	Say    func(format string, a ...any)
	// Took is told each run as it ends.
	Took func(Run) error
}

// Race runs all cases on all servers. A contestant that fails or does not do its
// work is told to Took as that; the error is one of the race itself.
func Race(ctx context.Context, o Options) error {
	for _, s := range o.Servers {
		if err := raceOn(ctx, o, s); err != nil {
			return fmt.Errorf("server %s: %w", s.Name, err)
		}
	}
	return nil
}

func raceOn(ctx context.Context, o Options, s Server) (err error) {
	var cases []Case
	for _, c := range o.Cases {
		// A million objects on a disk take hours to write, and to list them is the same.
		if !c.Million || s == (Server{Name: "ram"}) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return nil
	}
	disk, err := os.MkdirTemp(o.Disk, "bench-mirror-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(disk)) }()
	medium := disk
	if !s.Disk {
		if medium, err = os.MkdirTemp(o.RAM, "bench-mirror-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(medium)) }()
	}
	h, err := startHost(ctx, s, filepath.Join(o.Bin, "minio"), filepath.Join(medium, "minio"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	home := filepath.Join(disk, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	m := &meet{
		Options: o, server: s, host: h, disk: disk, medium: medium,
		measurer: measurer{
			self: o.Self, bin: o.Bin, env: environment(home, h.roots), limit: turnLimit,
			hide: strings.NewReplacer(h.server.SecretKey, "***", medium, "DATA", disk, "DISK"),
		},
	}
	for len(cases) > 0 {
		set := cases[0].Set
		n := slices.IndexFunc(cases, func(c Case) bool { return c.Set != set })
		if n < 0 {
			n = len(cases)
		}
		if err := m.raceSet(ctx, cases[:n]); err != nil {
			return fmt.Errorf("%s: %w", set.Name, err)
		}
		cases = cases[n:]
	}
	return nil
}

// meet is all that happens on one server.
type meet struct {
	Options
	server Server
	host   *host
	measurer
	// disk is for trees and states; medium, which is where the server's data is too,
	// for downloads.
	disk, medium string
	tree         *Tree
	// sites are the contestants' buckets as far as they are filled.
	sites map[string]*site
	// unable has why a contestant could not fill its bucket: it is not asked again.
	unable map[string]error
	// made counts sites, so that none has the name of an earlier one.
	made int
}

// site is a bucket which holds what the tree holds, and the state that belongs to it.
type site struct {
	bucket, state string
	// print is the bucket's fingerprint.
	print string
}

// raceSet runs cases that have one set.
func (m *meet) raceSet(ctx context.Context, cases []Case) (err error) {
	dir := filepath.Join(m.disk, "tree")
	m.Say("%s: writing %s", m.server.Name, cases[0].Set.Describe())
	if m.tree, err = Generate(ctx, dir, cases[0].Set); err != nil {
		return err
	}
	m.sites, m.unable = map[string]*site{}, map[string]error{}
	for _, c := range cases {
		for round := range m.Rounds {
			if err := m.round(ctx, c, round); err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
		}
	}
	for name := range m.sites {
		if err := m.drop(ctx, name); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// round gives each contestant one turn; who comes first changes.
func (m *meet) round(ctx context.Context, c Case, round int) error {
	var taking []Runner
	for _, r := range m.Runners {
		if c.takes(r.Name()) {
			taking = append(taking, r)
		}
	}
	if len(taking) == 0 {
		return nil
	}
	if c.Work != Upload {
		// Before anything changes: what is filled now must hold what the others do.
		for _, r := range taking {
			if _, err := m.filled(ctx, c, r); err != nil && m.unable[m.filler(c, r).Name()] == nil {
				return err
			}
		}
	}
	if c.Work == Changed {
		if _, err := m.tree.Change(); err != nil {
			return err
		}
	}
	first := round % len(taking)
	for _, r := range slices.Concat(taking[first:], taking[:first]) {
		run := Run{Server: m.server.Name, Case: c.Name, Contestant: r.Name(), Round: round + 1}
		usage, err := m.turn(ctx, c, r, round)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		run.Usage = usage
		if failure, failed := errors.AsType[*turnError](err); failed {
			run.Failure = failure.Error()
			m.Say("%s %s %s: FAILED: %v", run.Server, run.Case, run.Contestant, err)
		} else if err != nil {
			return err
		} else {
			m.Say("%s %s %s: %.2f s, CPU %.2f s, %.0f MiB", run.Server, run.Case, run.Contestant, run.Wall, run.CPU, run.RSS)
		}
		if err := m.Took(run); err != nil {
			return err
		}
	}
	return nil
}

// turnError says that a contestant failed, by what it said or by what was found.
type turnError struct{ reason error }

func (e *turnError) Error() string { return e.reason.Error() }
func (e *turnError) Unwrap() error { return e.reason }

// blame makes an error of a look at the result the contestant's, if it is one.
func blame(err error) error {
	if errors.Is(err, ErrWrong) {
		return &turnError{err}
	}
	return err
}

// cleaned is the error of a turn, unless what comes after it failed: then the race
// cannot go on, whoever is to blame for the turn.
func cleaned(turn, cleaning error) error {
	if cleaning == nil {
		return turn
	}
	return fmt.Errorf("clean up after a turn (%v): %w", turn, cleaning)
}

// turn is one measured run from the case's true state, and the look at its result.
func (m *meet) turn(ctx context.Context, c Case, r Runner, round int) (Usage, error) {
	switch c.Work {
	case Upload:
		return m.upload(ctx, c, r, round == 0)
	case Download:
		return m.download(ctx, c, r)
	case CheckHash, CheckContent:
		return m.check(ctx, c, r, round == 0)
	}
	s, err := m.filled(ctx, c, r)
	if err != nil {
		return Usage{}, err
	}
	usage, err := m.measure(ctx, c, r, s, "")
	if err == nil && c.Work == Changed {
		err = blame(m.host.compare(ctx, s.bucket, m.tree, round == 0))
	}
	// A million objects take long to list: once will do.
	if err == nil && (!c.Million || round == 0) {
		var now string
		now, err = m.host.fingerprint(ctx, s.bucket)
		if err == nil && c.Work == Unchanged && now != s.print {
			err = &turnError{fmt.Errorf("%w: objects were written though nothing had changed", ErrWrong)}
		}
		s.print = now
	}
	if err != nil && c.Work == Changed {
		// What it left undone it would have to do beside the next change.
		err = cleaned(err, m.drop(ctx, r.Name()))
	}
	return usage, err
}

// measure runs the contestant, and looks at what only it is known to leave.
func (m *meet) measure(ctx context.Context, c Case, r Runner, s *site, dest string) (Usage, error) {
	if err := m.tree.settle(ctx, m.Settle); err != nil {
		return Usage{}, err
	}
	// What somebody has left to be written belongs to nobody's time.
	syscall.Sync()
	if err := touchMemory(2*c.Set.Size*int64(c.Set.Files) + 1<<30); err != nil {
		return Usage{}, err
	}
	task := Task{
		Work: c.Work, Set: c.Set, Look: c.Look, Tree: m.tree.Dir, Dest: dest, State: s.state,
		Endpoint: m.host.server.Endpoint, Bucket: s.bucket, AccessKey: m.host.server.AccessKey, SecretKey: m.host.server.SecretKey,
	}
	usage, err := m.runAll(ctx, r.Steps(task))
	if err != nil && ctx.Err() == nil {
		err = &turnError{err}
	}
	if p, proves := r.(prover); proves && err == nil {
		err = blame(p.Prove(task, m.tree))
	}
	return usage, err
}

// upload gives the contestant an empty bucket and no state; its earlier ones go.
func (m *meet) upload(ctx context.Context, c Case, r Runner, deep bool) (Usage, error) {
	if err := m.drop(ctx, r.Name()); err != nil {
		return Usage{}, err
	}
	m.made++
	name := fmt.Sprintf("bench-%d", m.made)
	s := &site{bucket: name, state: filepath.Join(m.disk, "state-"+name)}
	if err := m.host.makeBucket(ctx, s.bucket); err != nil {
		return Usage{}, err
	}
	m.sites[r.Name()] = s
	usage, err := m.measure(ctx, c, r, s, "")
	if err == nil {
		err = blame(m.host.compare(ctx, s.bucket, m.tree, deep))
	}
	if err == nil {
		s.print, err = m.host.fingerprint(ctx, s.bucket)
	}
	if err != nil {
		err = cleaned(err, m.drop(ctx, r.Name()))
	}
	return usage, err
}

// filled is the site that the contestant works on in a case, which is uploaded,
// unmeasured, if it is not there.
func (m *meet) filled(ctx context.Context, c Case, r Runner) (*site, error) {
	r = m.filler(c, r)
	if s := m.sites[r.Name()]; s != nil {
		return s, nil
	}
	if err := m.unable[r.Name()]; err != nil {
		return nil, err
	}
	m.Say("%s %s: %s uploads what the next cases need", m.server.Name, c.Name, r.Name())
	_, err := m.upload(ctx, Case{Work: Upload, Set: c.Set}, r, false)
	if failure, failed := errors.AsType[*turnError](err); failed {
		err = &turnError{fmt.Errorf("%s cannot upload what is needed here: %w", r.Name(), failure)}
		m.unable[r.Name()] = err
	}
	if err != nil {
		return nil, err
	}
	return m.sites[r.Name()], nil
}

// filler is who fills the bucket that a contestant works on.
func (m *meet) filler(c Case, r Runner) Runner {
	if c.shares() {
		// Runners begin with firedrill where it takes part.
		return m.Runners[0]
	}
	return r
}

// drop removes a contestant's site, if it has one.
func (m *meet) drop(ctx context.Context, name string) error {
	s := m.sites[name]
	if s == nil {
		return nil
	}
	delete(m.sites, name)
	return errors.Join(m.host.dropBucket(ctx, s.bucket), os.RemoveAll(s.state), os.RemoveAll(s.state+"-down"))
}

func (m *meet) download(ctx context.Context, c Case, r Runner) (Usage, error) {
	s, err := m.filled(ctx, c, r)
	if err != nil {
		return Usage{}, err
	}
	dest := filepath.Join(m.medium, "download")
	if err := os.Mkdir(dest, 0o755); err != nil {
		return Usage{}, err
	}
	usage, err := m.measure(ctx, c, r, s, dest)
	if err == nil {
		err = blame(m.tree.CompareDir(ctx, dest))
	}
	return usage, cleaned(err, errors.Join(os.RemoveAll(dest), os.RemoveAll(s.state+"-down")))
}

// check also makes sure, unmeasured, that the contestant can find something.
func (m *meet) check(ctx context.Context, c Case, r Runner, prove bool) (Usage, error) {
	s, err := m.filled(ctx, c, r)
	if err != nil {
		return Usage{}, err
	}
	usage, err := m.measure(ctx, c, r, s, "")
	if err != nil || !prove {
		return usage, err
	}
	restore, err := m.host.spoil(ctx, s.bucket, c.Set.pathOf(c.Set.Files/2), m.tree)
	if err != nil {
		return usage, err
	}
	_, err = m.measure(ctx, c, r, s, "")
	if _, found := errors.AsType[*ExitError](err); found {
		err = nil
	} else if err == nil {
		err = &turnError{fmt.Errorf("%w: it did not find an object with other content", ErrWrong)}
	}
	return usage, cleaned(err, restore(ctx))
}
