package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/pace"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// describe adds the flags that describe a mirror of two locations.
func (o *mirrorOptions) describe(f *pflag.FlagSet) {
	f.StringVar(&o.spec.Mode, "mode", drill.MirrorCopy, "copy (removes nothing), mirror (removes what FROM no longer has, guarded) or two-way (carries changes both ways)")
	f.StringVar(&o.spec.Overwrite, "overwrite", drill.OverwriteAlways, "what a copy may write over: always (whatever differs) or unedited (only what its last run left there; what was changed there since stays, and is reported)")
	f.DurationVar((*time.Duration)(&o.spec.KeepDeleted), "keep-deleted", 0, "how long what is removed can be listed and brought back, such as 168h; 0 removes it for good")
	o.describeFilter(f, "")
	f.BoolVar(&o.spec.Xattrs, "xattrs", false, "mirror extended attributes, too")
	f.BoolVar(&o.spec.Privileged, "privileged", false, "make devices, setuid and setgid files and the attributes security.* and trusted.* that a bucket tells of, which all who may write to it can use; left out, they are reported and not made")
	f.BoolVar(&o.spec.OneFileSystem, "one-file-system", false, "leave out what is mounted below the directory, and a dataset's children")
	o.describeLimit(f)
	o.describeHeavy(f)
}

// describeHeavy adds --heavy.
func (o *mirrorOptions) describeHeavy(f *pflag.FlagSet) {
	f.Var(&maybe{&o.spec.Heavy}, "heavy", "whether this is heavy work, of which a machine does one after the other: true from the beginning, false never; left out, from the second minute on, but never with --bwlimit")
	f.Lookup("heavy").NoOptDefVal = "true"
}

func (o *mirrorOptions) describeFilter(f *pflag.FlagSet, more string) {
	f.StringArrayVar(&o.spec.Filter, "filter", nil, `rule such as "- *.tmp" or "+ /keep/**"; may be repeated, the first that matches decides`+more)
}

func (o *mirrorOptions) describeLimit(f *pflag.FlagSet) {
	f.Var((*bandwidth)(&o.spec.BytesPerSecond), "bwlimit", "bytes read per second, such as 10M (10,000,000) or 10Mi (10,485,760); 0 is no limit")
}

func (o *mirrorOptions) describeWait(f *pflag.FlagSet) {
	f.BoolVar(&o.wait, "wait", false, "wait while another process has the mirror open, instead of failing")
}

// describing lists the flags that were given and describe a mirror.
func describing(f *pflag.FlagSet) (out []string) {
	for _, name := range []string{"mode", "overwrite", "keep-deleted", "filter", "xattrs", "privileged", "one-file-system", "bwlimit", "heavy"} {
		if f.Changed(name) {
			out = append(out, "--"+name)
		}
	}
	return out
}

// checkMirror refuses a mirror of two locations that cannot be run as it is
// described. Those of an inventory were checked with it.
func (s *subject) check() error {
	if s.named {
		return nil
	}
	var errs []error
	for _, p := range mirror.Check(s.Mirror, s.env.Stores) {
		field, _, _ := strings.Cut(p.Field, "[")
		switch field {
		case "from", "to":
			field = strings.ToUpper(field)
		case "keepDeleted":
			field = "--keep-deleted"
		default:
			field = "--" + field
		}
		if p.Value != "" || strings.HasPrefix(field, "--") {
			field += fmt.Sprintf(": %q", p.Value)
		}
		errs = append(errs, fmt.Errorf("%s: %s%s", field, p.Fix, s.otherForm(p)))
	}
	return errors.Join(errs...)
}

// otherForm says how a bucket is written that is in no store of the inventory.
func (s *subject) otherForm(p drill.Problem) string {
	l, err := location.Parse(p.Value)
	if err != nil || l.Store == "" || slices.ContainsFunc(s.env.Stores, func(known drill.Store) bool { return known.Name == l.Store }) {
		return ""
	}
	inventory := ""
	if s.inventory == "" {
		inventory = ", as no inventory was given (--inventory)"
	}
	return inventory + "; or name the bucket by its server, s3+https://host:port/bucket/prefix, with the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
}

// recall fills in what a later command is not told again: with what the last run of
// these locations left out, and what else describes what it looked at. It returns
// what to warn of.
func (s *subject) recall(f *pflag.FlagSet) (warning string) {
	past := s.log.Mirror
	switch {
	case past.From == "":
		return ""
	case s.named && !slices.Equal(s.Filter, past.Filter):
		return fmt.Sprintf("the inventory's filter is not that of the last run (%s): what this one leaves out is not compared, and what that one left out shows as extra", rules(past.Filter))
	case s.named:
		return ""
	}
	s.Mode, s.Xattrs, s.Privileged, s.OneFileSystem, s.KeepDeleted = past.Mode, past.Xattrs, past.Privileged, past.OneFileSystem, past.KeepDeleted
	switch {
	case !f.Changed("filter"):
		s.Filter = past.Filter
	case !slices.Equal(s.Filter, past.Filter):
		return fmt.Sprintf("--filter differs from that of the last run (%s): what this one leaves out is not compared, and what that one left out shows as extra", rules(past.Filter))
	}
	return ""
}

// changed is what to warn of where a run is not described like the one before.
func (s *subject) changed() string {
	past := s.log.Mirror
	if s.named || past.From == "" || slices.Equal(s.Filter, past.Filter) {
		return ""
	}
	return fmt.Sprintf("the last run of these locations had %s, this one has %s", rules(past.Filter), rules(s.Filter))
}

func rules(filter []string) string {
	if len(filter) == 0 {
		return "no --filter"
	}
	var out []string
	for _, r := range filter {
		out = append(out, fmt.Sprintf("--filter %q", r))
	}
	return strings.Join(out, " ")
}

// bandwidth is a flag for bytes per second.
type bandwidth int64

// Type implements pflag.Value.
func (*bandwidth) Type() string { return "rate" }

// String implements pflag.Value.
func (b *bandwidth) String() string { return strconv.FormatInt(int64(*b), 10) }

// Set implements pflag.Value.
func (b *bandwidth) Set(text string) error {
	n, err := pace.ParseBytes(text)
	if err != nil {
		return errors.New("write bytes per second, such as 500K, 10M (10,000,000) or 10Mi (10,485,760), or 0 for no limit")
	}
	*b = bandwidth(n)
	return nil
}

// maybe is a flag that is true, false or left out.
type maybe struct{ is **bool }

// Type implements pflag.Value.
func (maybe) Type() string { return "bool" }

// String implements pflag.Value.
func (m maybe) String() string {
	if m.is == nil || *m.is == nil {
		return ""
	}
	return strconv.FormatBool(**m.is)
}

// Set implements pflag.Value.
func (m maybe) Set(text string) error {
	is, err := strconv.ParseBool(text)
	if err != nil {
		return errors.New("write true or false")
	}
	*m.is = &is
	return nil
}

// amount is a flag for bytes, or for a share of all.
type amount verify.Amount

// Type implements pflag.Value.
func (*amount) Type() string { return "amount" }

// String implements pflag.Value.
func (a *amount) String() string { return verify.Amount(*a).String() }

// Set implements pflag.Value.
func (a *amount) Set(text string) error {
	n, err := verify.ParseAmount(text)
	*a = amount(n)
	return err
}

// fleetFlags are those of what a running firedrill can do in place of this process.
type fleetFlags struct {
	fleet bool
	// timeout bounds how long a run of the fleet is watched; 0 does not.
	timeout time.Duration
}

func (ff *fleetFlags) describe(f *pflag.FlagSet, workers string) {
	f.BoolVar(&ff.fleet, "fleet", false, "ask the running firedrill up to do it, "+workers+", and watch it")
	f.DurationVar(&ff.timeout, "timeout", 0, "with --fleet: how long to watch, such as 2h; the run itself goes on, and mirror cancel calls it off; 0 is until it has ended")
}

// check refuses what a running firedrill cannot be told, and what is for one only.
func (ff *fleetFlags) check(f *pflag.FlagSet, args []string) error {
	switch {
	case ff.timeout < 0:
		return fmt.Errorf("--timeout: %s is no time to watch: write one such as 30m, or 0 to watch until the run has ended", event.Duration(ff.timeout))
	case ff.timeout > 0 && !ff.fleet:
		return errors.New("--timeout: it bounds how long a run of the fleet is watched: give --fleet, too, or interrupt a run that is made here")
	case !ff.fleet:
		return nil
	case len(args) != 1:
		return errors.New("--fleet: a running firedrill runs the mirrors of its inventory: give a name")
	}
	given := describing(f)
	for _, name := range []string{"may-delete", "accept-places", "transfers", "wait"} {
		if f.Changed(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 0 {
		return fmt.Errorf("--fleet: the running firedrill runs the mirror as its inventory describes it, without %s: leave that out, or leave --fleet out to run it here", strings.Join(given, ", "))
	}
	return nil
}

// asFlag says of a request's field what the command line calls it.
func asFlag(err error) error {
	e, ok := errors.AsType[*fleet.RequestError](err)
	if !ok {
		return err
	}
	name := e.Field
	if name == "repairSource" {
		name = "repair-source"
	}
	return fmt.Errorf("--%s: %s", name, e.Problem)
}
