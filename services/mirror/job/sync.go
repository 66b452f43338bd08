package job

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/pace"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// SyncOptions say how one run is made.
type SyncOptions struct {
	Check  engine.Check
	DryRun bool
	// Pool carries the work out; nil does it in this process.
	Pool engine.Pool
	// Items is how many items of work are under way in this process; 0 means
	// engine.DefaultItems.
	Items int
	// AcceptPlaces sets the mirror up anew with the places as they are now.
	AcceptPlaces bool
	// Run names the run, as what it deletes is listed by; "" gives it a name.
	Run string
	// MayDelete raises the limits of deletes for this run: less than 0 takes them
	// off, 0 leaves them.
	MayDelete int64
	// Pass, Each and Watch are as in engine.Job.
	Pass  func(context.Context) error
	Each  func(engine.Done)
	Watch func(engine.Progress)
}

// Result is what a run came to.
type Result struct {
	engine.Report
	// Root stands for what both places hold by what is remembered. It says nothing
	// about what they hold now.
	Root proof.Signed
	// Mended counts, by side, the entries whose permissions were set by the rules after the
	// copy, or, at the source, would be by a run that is not dry.
	Mended [2]int64
	// Disowned counts what was written, or would be, and keeps an owner or a group that is
	// not that of the other side, as this process may not change owners there: a run
	// that may sets them.
	Disowned int64
	// Unread counts the contents of the manifest that were taken for equal without ever
	// having been read, so that nothing can be shown of them.
	Unread int64
	// Compared counts, by side, the contents that were read for nothing but to compare them.
	// What else is equal was told by times, or by hashes that are kept with it.
	Compared [2]int64
	// Untried are the buckets that a dry run would write to: whether these credentials may
	// is known only once something is written.
	Untried []string
	// Unasked is why ZFS did not tell which files of a dataset were written since the last
	// run, or will not at the next one, so that their times do; "" if it is as it should be.
	Unasked string
	// Aside names what the run put aside of what it deleted; "" where nothing is put aside. Pruned
	// counts the runs whose bins were removed, as their time was over.
	Aside  string
	Pruned int
	// New says that there was nothing yet at the destination, before the mirror's first
	// run: no directory, or no object below the prefix.
	New bool
}

// Sync makes one run. What went wrong with single entries is in the result; the
// error says why a run could not go on, and the result then holds what it did.
func (j *Job) Sync(ctx context.Context, o SyncOptions) (res Result, err error) {
	past := j.sealing()
	defer func() { err = errors.Join(err, past.close()) }()
	var a asked
	e, spill, err := j.engine(o, past, &a)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, spill.Close()) }()
	var writes [2]bool
	foresees := o.DryRun && j.groupsAlone()
	if foresees {
		a.planned = map[string]bool{}
	}
	e.Each = func(d engine.Done) {
		if foresees {
			j.foresee(&d, &a, &res)
		}
		writes[d.Action.To] = writes[d.Action.To] || d.Err == nil && d.Action.Op.Changes()
		if j.disowned(&d, o.DryRun) {
			res.Disowned++
		}
		if o.Each != nil {
			o.Each(d)
		}
	}
	first := j.store.Empty()
	var unasked error
	e.Touched, unasked = j.dataset.touched(ctx)
	defer func() {
		if unasked != nil {
			res.Unasked = unasked.Error()
		}
	}()
	pool := &comparing{Pool: e.Pool}
	e.Pool = pool
	res.Report, err = e.Run(ctx)
	res.Aside = e.Bin.Run
	res.Compared = pool.counts()
	res.New = first && (j.made || j.roots[plan.Dest] == "" && err == nil && res.Seen[plan.Dest] == 0)
	if _, gaveUp := errors.AsType[*engine.GaveUpError](err); gaveUp {
		// What was done is remembered. More would be refused just so.
		var failed error
		res.Root, res.Unread, failed = j.seal(past)
		return res, errors.Join(err, failed)
	}
	if err == nil && o.DryRun {
		if res.Untried, err = j.couldWrite(writes); err == nil {
			err = j.mendRights(ctx, o, past, &a, &res)
		}
	}
	if err != nil || o.DryRun {
		return res, err
	}
	if err = j.carryRoot(&res.Report); err != nil {
		return res, err
	}
	if err = j.mendRights(ctx, o, past, &a, &res); err != nil {
		return res, err
	}
	if res.Root, res.Unread, err = j.seal(past); err != nil {
		return res, err
	}
	unasked = errors.Join(unasked, j.dataset.keep(ctx, j.store))
	if res.Whole() {
		res.Pruned = j.prune(ctx, &res.Report)
	}
	return res, nil
}

func (j *Job) engine(o SyncOptions, past engine.Store, a *asked) (*engine.Job, *state.Spill, error) {
	spill, err := j.store.Spill()
	if err != nil {
		return nil, nil, fmt.Errorf("mirror %s: keep deletes until the end: %w", j.spec.Name, err)
	}
	e := &engine.Job{
		Places: j.copied(a), Mode: j.spec.mode, Unedited: j.unedited(), Check: o.Check, Filter: j.filter(), LeftOut: j.leftOut(),
		Guards: j.guards(o.MayDelete), DryRun: o.DryRun, AcceptPlaces: o.AcceptPlaces, Boot: bootID(), Store: past, Spill: spill, Pool: o.Pool,
		Now: j.env.Now, AsOf: j.dataset.moment(), Pass: o.Pass, Each: o.Each, Watch: o.Watch,
	}
	if j.spec.KeepDeleted > 0 {
		e.Bin = j.bin(o.Run)
	}
	w := j.Worker()
	if e.Limit = w.Limit; e.Pool == nil {
		e.Pool = engine.Local{Worker: w, Items: o.Items}
	}
	if j.spec.mode == plan.TwoWay {
		e.Trust = plan.TrustHashes // whoever edits both sides can set times
	}
	return e, spill, nil
}

// bootID is the machine's boot; "" where it does not say.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Worker is one that carries out items of this job in this process.
func (j *Job) Worker() *engine.Worker {
	w := &engine.Worker{Places: j.copied(nil), Limit: pace.NewLimit(j.spec.BytesPerSecond)}
	if j.env.Pace != nil {
		w.Pace = j.env.Pace
	}
	return w
}

func (j *Job) filter() func(string, entry.Kind) bool {
	if len(j.spec.Filter) == 0 {
		return j.dataset.without(nil)
	}
	return j.dataset.without(j.spec.filter.Match)
}

func (j *Job) listOptions() place.ListOptions { return place.ListOptions{Filter: j.filter()} }

func (j *Job) guards(may int64) plan.Guards {
	d := j.spec.Deletes
	g := plan.Guards{Number: d.Most, Percent: d.MostPercent, Scans: d.Scans}
	if may != 0 {
		g.Number, g.Percent, g.Once = may, 100, true
	}
	return g
}

// subject says of what and when a root is.
func (j *Job) subject(at time.Time) string {
	return j.subjectAt() + at.UTC().Format(time.RFC3339)
}

// subjectAt is the subject without the time.
func (j *Job) subjectAt() string {
	return fmt.Sprintf("mirror %s: %s to %s at ", j.spec.Name, j.spec.From, j.spec.To)
}

// ErrNothingKnown says that no run has left anything to compare with.
var ErrNothingKnown = errors.New("no run of this mirror has come to its end yet: run it first")

// manifest opens the manifest of the last run and checks that it is the one that
// was signed.
func (j *Job) manifest() (*proof.Manifest, proof.Signed, func() error, error) {
	var signed proof.Signed
	known, err := j.store.Load(rootName, &signed)
	if err != nil {
		return nil, signed, nil, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	if !known {
		return nil, signed, nil, fmt.Errorf("mirror %s: nothing is remembered in %s: %w", j.spec.Name, j.Dir(), ErrNothingKnown)
	}
	f, err := os.Open(j.store.Path(manifestName))
	if err != nil {
		return nil, signed, nil, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, signed, nil, errors.Join(err, f.Close())
	}
	m, err := proof.Open(f, st.Size())
	if err == nil && m.Root() != signed.Root {
		err = fmt.Errorf("%w: it is not the one that was signed", proof.ErrCorrupt)
	}
	if err == nil {
		err = j.vouched(signed)
	}
	if err != nil {
		return nil, signed, nil, errors.Join(fmt.Errorf("mirror %s: manifest: %w", j.spec.Name, err), f.Close())
	}
	return m, signed, f.Close, nil
}

// vouched checks the signature, where this environment signs.
func (j *Job) vouched(signed proof.Signed) error {
	if j.env.Signer == nil {
		return nil
	}
	own, err := j.env.Signer()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(signed.Subject, j.subjectAt()) {
		return fmt.Errorf("%w: it is for %q, not for this mirror", proof.ErrSignature, signed.Subject)
	}
	return signed.Verify(signed.Root, signed.Subject, func(public string) bool { return public == own.Public() })
}

// VerifyOptions say how a mirror is verified.
type VerifyOptions struct {
	// Level is L1 to L4. At L3 a part of the contents is read, so that of calls that are
	// made regularly each content is read once in a period; what L4 reads counts, too.
	Level proof.Level
	// Period is that of L3; 0 means DefaultPeriod.
	Period time.Duration
	// Read is how much is read at L3: the zero value is what the time since the last
	// such call makes due.
	Read verify.Amount
	// Pass, if not nil, is asked before more is looked at, and returns once that may be, or
	// with an error, which ends the look. It is called concurrently.
	Pass func(ctx context.Context) error
	// Seen is told of each entry that was looked at, by one goroutine at a time.
	Seen func(plan.Side, entry.Entry)
	// Bytes, if not nil, is told how many bytes were read, again and again and by several
	// goroutines at once.
	Bytes func(int)
	// Parallel is how many contents are read at once.
	Parallel int
}

func (o VerifyOptions) period() time.Duration {
	if o.Period <= 0 {
		return DefaultPeriod
	}
	return o.Period
}

// Verified is what verifying one side has shown.
type Verified struct {
	verify.Result
	Place string
	// Side is the place's, Mode the mirror's.
	Side plan.Side
	Mode plan.Mode
	// Unedited says that the next run leaves alone what was edited at the destination.
	Unedited bool
	// Entries is how many the manifest has, Filter are the rules that say which take part.
	Entries int64
	Filter  []string
	// Disowning says that this process may not give what lies there to its owner.
	Disowning bool
}

// differs reports whether the place is not what the last run left, as far as that was
// seen.
func (v Verified) differs() bool { return v.astray() || v.Verdict.MetadataOnly.Count > 0 }

// astray is differs, but for owners alone that this process could not set.
func (v Verified) astray() bool {
	d := v.Verdict
	attributes := d.MetadataOnly.Count
	if v.Disowning && attributes == d.Owners {
		attributes = 0
	}
	return d.Missing.Count+d.Extra.Count+d.Different.Count+attributes+v.Unreadable.Count > 0
}

// Verify compares one side with the manifest of the last run. What it finds makes the
// next run list the destination, whatever that is asked to believe.
func (j *Job) Verify(ctx context.Context, side plan.Side, o VerifyOptions) (Verified, error) {
	all, err := j.VerifySides(ctx, []plan.Side{side}, o)
	if len(all) == 0 {
		return Verified{}, err
	}
	return all[0], err
}

// VerifySides is Verify of several sides at once. It gives, in their order, those that
// could be compared; the error is of the others.
func (j *Job) VerifySides(ctx context.Context, sides []plan.Side, o VerifyOptions) ([]Verified, error) {
	m, _, done, err := j.manifest()
	if err != nil {
		return nil, err
	}
	defer func() { _ = done() }() // opened for reading
	limit := pace.NewLimit(j.spec.BytesPerSecond)
	var seen sync.Mutex
	var g sync.WaitGroup
	all, errs := make([]Verified, len(sides)), make([]error, len(sides))
	for i, side := range sides {
		c := verify.Check{
			Place: j.places[side], Level: o.Level, Filter: j.filter(), Side: side, Parallel: o.Parallel,
			Limit: limit, Known: j.known(side), Pass: o.Pass, Read: o.Bytes, Claimed: side == plan.Dest && j.spec.mode != plan.TwoWay,
		}
		if o.Seen != nil {
			c.Seen = func(e entry.Entry) {
				seen.Lock()
				defer seen.Unlock()
				o.Seen(side, e)
			}
		}
		g.Go(func() {
			all[i] = Verified{
				Place: j.places[side].String(), Side: side, Mode: j.spec.mode, Unedited: j.unedited(), Entries: m.Root().Entries, Filter: j.spec.Filter,
				Disowning: j.places[side].Traits().Lists&plan.AttrOwner == 0,
			}
			all[i].Result, errs[i] = j.against(side, o, func(r *verify.Rolling) (verify.Result, error) {
				c.Rolling = r
				return c.Against(ctx, m.Entries())
			})
			if errs[i] == nil {
				j.unlooked(&all[i])
				errs[i] = j.verifyRoot(side, &all[i])
			}
		})
	}
	g.Wait()
	var compared []Verified
	differs := false
	for i, v := range all {
		if errs[i] == nil {
			compared, differs = append(compared, v), differs || v.differs()
		}
	}
	if differs {
		errs = append(errs, j.distrust())
	}
	return compared, errors.Join(errs...)
}

// known is what a side held after the last run, with all that is known of the
// contents.
func (j *Job) known(side plan.Side) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for p, err := range j.store.Past() {
			e := p.At(side)
			e.Sum = verify.Sum(&p, side, j.lone(&p))
			if err == nil && (!plan.Present(e) || p.Dirty[side]) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// lone tells why the last run left an entry on one side only, if it did.
func (j *Job) lone(p *plan.Past) entry.Lone { return verify.Lone(p, j.spec.mode == plan.Copy) }

// Root is what stands for the last run that came to its end.
func (j *Job) Root() (proof.Signed, error) {
	_, signed, done, err := j.manifest()
	if err == nil {
		err = done()
	}
	return signed, err
}

// Facts is what the mirror remembers of itself; false before its first run.
func (j *Job) Facts() (engine.Facts, bool, error) {
	var f engine.Facts
	known, err := j.store.Load(engine.FactsName, &f)
	return f, known, err
}
