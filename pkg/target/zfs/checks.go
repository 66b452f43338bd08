package zfs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// The checks.
const (
	CheckHealth   = "health"
	CheckScrub    = "scrub"
	CheckCanaries = "canaries"
	CheckSettings = "settings"
)

// checkParams are the parameters of any check; each allows some.
type checkParams struct {
	SettleSeconds int64 `json:"settleSeconds"`
}

// defaultSettle is how long a state gets to come about, in seconds.
const defaultSettle = 10

// checkKind is one row of the table of checks.
type checkKind struct {
	name    string
	doc     string
	allowed []string
	// baseline records what is compared with later; nil for checks that need none.
	baseline func(*pool, context.Context) (json.RawMessage, error)
	check    func(*pool, context.Context, target.CheckSpec, checkParams, json.RawMessage) ([]event.Property, error)
}

func checkKinds() []checkKind {
	return []checkKind{
		{name: CheckHealth, allowed: []string{"settleSeconds"}, check: (*pool).checkHealth,
			doc: "The pool and each of its disks are online, no error is counted, no data is lost, and nothing that a fault damaged is left. params: settleSeconds (10)."},
		{name: CheckScrub, baseline: (*pool).scanNow, check: (*pool).checkScrub,
			doc: "A scrub has gone over the whole pool since the baseline, and repaired everything."},
		{name: CheckCanaries, check: (*pool).checkCanaries,
			doc: "Every canary of the drill is read in full, and its hash compared."},
		{name: CheckSettings, baseline: (*pool).settingsNow, check: (*pool).checkSettings,
			doc: "The dataset's properties that were set for it, or that it inherits, are as before the fault."},
	}
}

func checkNamed(name string) (checkKind, error) {
	for _, k := range checkKinds() {
		if k.name == name {
			return k, nil
		}
	}
	return checkKind{}, fmt.Errorf("check %q: %w; see the driver's README", name, target.ErrUnsupported)
}

func (k checkKind) readParams(raw json.RawMessage) (checkParams, error) {
	var p checkParams
	if err := strict.DecodeAllowed(raw, &p, k.allowed); err != nil {
		return p, err
	}
	if p.SettleSeconds < 0 {
		return p, &target.FieldError{Field: "settleSeconds", Value: strconv.FormatInt(p.SettleSeconds, 10), Fix: "give 0 or more"}
	}
	if p.SettleSeconds == 0 {
		p.SettleSeconds = defaultSettle
	}
	return p, nil
}

// Baseline records what a check compares with later; nil for checks that need none.
func (p *pool) Baseline(ctx context.Context, spec target.CheckSpec) (json.RawMessage, error) {
	k, err := checkNamed(spec.Check)
	if err != nil {
		return nil, err
	}
	if _, err := k.readParams(spec.Params); err != nil || k.baseline == nil {
		return nil, err
	}
	out, err := k.baseline(p, ctx)
	if err != nil {
		return nil, fmt.Errorf("baseline of %s: %w", spec.Name, err)
	}
	return out, nil
}

// Check makes one check.
func (p *pool) Check(ctx context.Context, spec target.CheckSpec, baseline json.RawMessage) ([]event.Property, error) {
	k, err := checkNamed(spec.Check)
	if err != nil {
		return nil, err
	}
	params, err := k.readParams(spec.Params)
	if err != nil {
		return nil, err
	}
	props, err := k.check(p, ctx, spec, params, baseline)
	if err != nil {
		return props, fmt.Errorf("check %s: %w", spec.Name, err)
	}
	for i := range props {
		props[i].Samples = props[i].Samples[:min(len(props[i].Samples), 20)]
	}
	return props, nil
}

func inconclusive(name, found, wanted string) []event.Property {
	return []event.Property{{Name: name, Result: event.ResultInconclusive, Found: found, Wanted: wanted}}
}

func (p *pool) checkHealth(ctx context.Context, _ target.CheckSpec, params checkParams, _ json.RawMessage) ([]event.Property, error) {
	var s status
	err := target.Poll(ctx, time.Duration(params.SettleSeconds)*time.Second, 100*time.Millisecond, "the pool to be well", func(ctx context.Context) (bool, string, error) {
		now, err := p.look(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		s = now
		return len(s.problems()) == 0, strings.Join(s.problems(), "; "), nil
	})
	if s.text == "" {
		return nil, err // it never answered
	}
	var props []event.Property
	for _, v := range s.vdevs {
		props = append(props, target.Judge(v.name, (v.state == online || v.state == "AVAIL") && v.clean(), strings.TrimSpace(v.String()), "online, and no error counted"))
	}
	props = append(props,
		target.Judge("data", s.errors == noDataLost, s.errors, noDataLost),
		target.Judge("resilver", !s.resilvering(), cmp.Or(s.scan, "none"), "none under way"),
		target.Judge("damage of a fault", len(s.damage) == 0, fmt.Sprintf("%d places", len(s.damage)), "none left"))
	props[len(props)-1].Samples = s.damage
	return props, nil
}

// scan is the baseline of a scrub's check: what the pool said of the latest one.
type scan struct {
	Scan string `json:"scan"`
}

func (p *pool) scanNow(ctx context.Context) (json.RawMessage, error) {
	s, err := p.look(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(scan{s.scan})
}

func (p *pool) checkScrub(ctx context.Context, _ target.CheckSpec, _ checkParams, baseline json.RawMessage) ([]event.Property, error) {
	const name, wanted = "scrub", "a scrub that ended since the baseline, with 0 errors"
	s, err := p.look(ctx)
	if err != nil {
		return nil, err
	}
	found := s.scan
	if found == "" {
		found = "there never was one"
	}
	if len(baseline) == 0 {
		return inconclusive(name, found+", without a baseline to compare with", "a baseline"), nil
	}
	var was scan
	if err := json.Unmarshal(baseline, &was); err != nil {
		return nil, fmt.Errorf("the baseline: %w", err)
	}
	left, ok := s.scrubbed()
	if !ok || s.scan == was.Scan {
		return inconclusive(name, "none since the baseline: "+found, wanted), nil
	}
	return []event.Property{target.Judge(name, left == 0, found, wanted), target.Judge("data", s.errors == noDataLost, s.errors, noDataLost)}, nil
}

// checkCanaries reads every canary of the drill.
func (p *pool) checkCanaries(ctx context.Context, spec target.CheckSpec, _ checkParams, _ json.RawMessage) ([]event.Property, error) {
	var t canary.Tally
	err := p.onDataset(ctx, func(root *os.Root) error {
		return eachCanary(ctx, root, p.tree().Drill(spec.Drill), func(file string) error {
			size, damaged, err := p.readWhole(root, file)
			if err == nil {
				t.Add(file, size, damaged)
			}
			return err
		})
	})
	return []event.Property{t.Property(err)}, nil
}

// settingsScript prints the dataset's properties that can be set.
const settingsScript = `zfs get -H -o property,value,source all "$1" | grep -v -e '	-$' -e '	received$'`

// settings are what a drill must leave as it was: the dataset's properties by name.
func (p *pool) settings(ctx context.Context) (map[string]string, error) {
	out, err := p.run(ctx, "read the properties of "+p.cfg.Dataset, settingsScript, p.cfg.Dataset)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		all[name] = strings.ReplaceAll(value, "\t", ", ")
	}
	return all, nil
}

func (p *pool) settingsNow(ctx context.Context) (json.RawMessage, error) {
	now, err := p.settings(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(now)
}

func (p *pool) checkSettings(ctx context.Context, _ target.CheckSpec, _ checkParams, baseline json.RawMessage) ([]event.Property, error) {
	const name = "settings"
	now, err := p.settings(ctx)
	if err != nil {
		return nil, err
	}
	if len(baseline) == 0 {
		return inconclusive(name, fmt.Sprintf("%d properties, without a baseline to compare with", len(now)), "a baseline"), nil
	}
	var was map[string]string
	if err := json.Unmarshal(baseline, &was); err != nil {
		return nil, fmt.Errorf("the baseline: %w", err)
	}
	var other []string
	for k, v := range was {
		if now[k] != v {
			other = append(other, fmt.Sprintf("%s is %q, was %q", k, now[k], v))
		}
	}
	for k, v := range now {
		if _, ok := was[k]; !ok {
			other = append(other, fmt.Sprintf("%s is %q, was not there", k, v))
		}
	}
	slices.Sort(other)
	prop := target.Judge(name, len(other) == 0, fmt.Sprintf("%d of %d properties differ", len(other), len(was)), "the properties of the baseline")
	prop.Samples = other
	return []event.Property{prop}, nil
}
