package minio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// The checks.
const (
	CheckHealth   = "health"
	CheckWritable = "writable"
	CheckCanaries = "canaries"
	CheckSpace    = "space"
	CheckSettings = "settings"
)

// checkParams are the parameters of any check; each allows some.
type checkParams struct {
	SettleSeconds int64 `json:"settleSeconds"`
	// MinFree is what each drive must have free, in bytes; nil means not judged.
	MinFree *int64 `json:"minFree"`
}

// defaultSettle is how long a state gets to come about, in seconds.
const defaultSettle = 10

// checkKind is one row of the table of checks.
type checkKind struct {
	name          string
	doc           string
	allowed       []string
	needsBaseline bool
	check         func(*store, context.Context, target.CheckSpec, checkParams, json.RawMessage) ([]event.Property, error)
}

func checkKinds() []checkKind {
	return []checkKind{
		{name: CheckHealth, allowed: []string{"settleSeconds"}, check: (*store).checkHealth,
			doc: "Every node runs, and its health endpoints live, ready and cluster say yes. params: settleSeconds (10)."},
		{name: CheckWritable, allowed: []string{"settleSeconds"}, check: (*store).checkWritable,
			doc: "The probes' user can write, read and delete in the bucket. params: settleSeconds (10)."},
		{name: CheckCanaries, check: (*store).checkCanaries,
			doc: "Every canary of the drill is read in full, and its hash compared."},
		{name: CheckSpace, allowed: []string{"minFree"}, check: (*store).checkSpace,
			doc: "Free bytes of each drive. params: minFree (not judged)."},
		{name: CheckSettings, needsBaseline: true, check: (*store).checkSettings,
			doc: "The bucket's versioning and policy, and with an admin the probes' user's policies, are as before the fault."},
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
	var ps strict.Problems
	if p.SettleSeconds < 0 {
		ps.Add("settleSeconds", strconv.FormatInt(p.SettleSeconds, 10), "give 0 or more")
	}
	if p.SettleSeconds == 0 {
		p.SettleSeconds = defaultSettle
	}
	if p.MinFree != nil && *p.MinFree < 0 {
		ps.Add("minFree", strconv.FormatInt(*p.MinFree, 10), "give 0 or more bytes")
	}
	return p, errors.Join(ps...)
}

func (p checkParams) settle() time.Duration { return time.Duration(p.SettleSeconds) * time.Second }

// Baseline records what a check compares with later; nil for checks that need none.
func (s *store) Baseline(ctx context.Context, spec target.CheckSpec) (json.RawMessage, error) {
	k, err := checkNamed(spec.Check)
	if err != nil {
		return nil, err
	}
	if _, err := k.readParams(spec.Params); err != nil || !k.needsBaseline {
		return nil, err
	}
	now, err := s.settings(ctx)
	if err != nil {
		return nil, s.scrub(fmt.Errorf("baseline of %s: %w", spec.Name, err))
	}
	return json.Marshal(now)
}

// Check makes one check.
func (s *store) Check(ctx context.Context, spec target.CheckSpec, baseline json.RawMessage) ([]event.Property, error) {
	k, err := checkNamed(spec.Check)
	if err != nil {
		return nil, err
	}
	p, err := k.readParams(spec.Params)
	if err != nil {
		return nil, err
	}
	props, err := k.check(s, ctx, spec, p, baseline)
	if err != nil {
		return props, s.scrub(fmt.Errorf("check %s: %w", spec.Name, err))
	}
	for i := range props {
		props[i].Found = s.secrets.Text(props[i].Found)
		props[i].Samples = props[i].Samples[:min(len(props[i].Samples), 20)]
		for j := range props[i].Samples {
			props[i].Samples[j] = s.secrets.Text(props[i].Samples[j])
		}
	}
	return props, nil
}

// settles asks until the answer is nil or the time is over, and judges the last one.
func settles(ctx context.Context, limit time.Duration, name, wanted string, ask func(context.Context) error) event.Property {
	began := time.Now()
	err := target.Poll(ctx, limit, 100*time.Millisecond, name, func(ctx context.Context) (bool, string, error) {
		err := ask(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", nil
	})
	if err != nil {
		return target.Judge(name, false, err.Error(), wanted)
	}
	return target.Judge(name, true, fmt.Sprintf("yes, after %v", time.Since(began).Round(time.Millisecond)), wanted)
}

func (s *store) checkHealth(ctx context.Context, _ target.CheckSpec, p checkParams, _ json.RawMessage) ([]event.Property, error) {
	var props []event.Property
	for _, n := range s.nodes {
		ps, err := s.processes(ctx, n)
		if err != nil {
			return nil, err
		}
		found := "no process"
		if len(ps) > 0 {
			found = fmt.Sprintf("process %s in state %c", pidList(ps), ps[0].State)
		}
		props = append(props, target.Judge("node "+n.Name+" runs", len(ps) > 0 && !ps[0].Stopped(), found, "a process that runs"))
		for _, path := range []string{healthLive, healthReady, healthCluster} {
			props = append(props, settles(ctx, p.settle(), "node "+n.Name+" "+path, "200", func(ctx context.Context) error { return s.health(ctx, n, path) }))
		}
	}
	return props, nil
}

func (s *store) checkWritable(ctx context.Context, spec target.CheckSpec, p checkParams, _ json.RawMessage) ([]event.Property, error) {
	name := undo.Token(spec.Drill, spec.Step+"/"+spec.Name)
	return []event.Property{settles(ctx, p.settle(), "bucket "+s.cfg.Bucket+" is writable", "an object written, read back and deleted",
		func(ctx context.Context) error { return s.tryWrite(ctx, name) })}, nil
}

// checkCanaries reads every canary of the drill.
func (s *store) checkCanaries(ctx context.Context, spec target.CheckSpec, _ checkParams, _ json.RawMessage) ([]event.Property, error) {
	var all []found
	err := s.listCanaries(ctx, s.tree().Drill(spec.Drill)+"/", func(key string, size, _ int64) {
		all = append(all, found{key: key, size: size})
	})
	if err != nil {
		return nil, err
	}
	err = s.readAll(ctx, all)
	var t canary.Tally
	if err == nil { // else some were not read
		for _, f := range all {
			t.Add(f.key, f.size, f.damaged)
		}
	}
	return []event.Property{t.Property(err)}, nil
}

// freeScript prints the free bytes of a directory's file system.
const freeScript = `df -P -B1 -- "$1" | sed -n 's/  */ /g;2p' | cut -d' ' -f4`

func (s *store) free(ctx context.Context, n *node, drive string) (int64, error) {
	out, err := s.run(ctx, n, control.Command{What: "measure " + drive, Script: freeScript, Args: []string{drive}})
	if err != nil {
		return 0, err
	}
	free, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("node %s: free bytes of %s: %w", n.Name, drive, err)
	}
	return free, nil
}

func (s *store) checkSpace(ctx context.Context, _ target.CheckSpec, p checkParams, _ json.RawMessage) ([]event.Property, error) {
	var props []event.Property
	for _, n := range s.nodes {
		for _, drive := range n.Drives {
			name := fmt.Sprintf("free on drive %s of node %s", drive, n.Name)
			free, err := s.free(ctx, n, drive)
			switch {
			case err != nil:
				props = append(props, event.Property{Name: name, Result: event.ResultInconclusive, Found: err.Error(), Wanted: "a drive that can be measured"})
			case p.MinFree == nil:
				props = append(props, event.Property{Name: name, Result: event.ResultInfo, Found: fmt.Sprintf("%d bytes", free)})
			default:
				props = append(props, target.Judge(name, free >= *p.MinFree, fmt.Sprintf("%d bytes", free), fmt.Sprintf("at least %d bytes", *p.MinFree)))
			}
		}
	}
	return props, nil
}

// bucketSettings are what a drill must leave as it was.
type bucketSettings struct {
	Versioning string `json:"versioning"`
	Policy     string `json:"policy"`
	// UserPolicies is nil without an admin who could ask for them.
	UserPolicies *string `json:"user_policies,omitempty"`
}

// settings reads them: the admin's part as the admin, else as the client, who may
// not be allowed to read the policy of the bucket.
func (s *store) settings(ctx context.Context) (bucketSettings, error) {
	var out bucketSettings
	c := s.users
	if s.admin.user != "" {
		var err error
		if c, err = newConns(s.service, s.admin, true); err != nil {
			return out, err
		}
		defer c.reset()
		policies, err := s.policiesOf(ctx, s.cfg.User)
		if err != nil {
			return out, err
		}
		out.UserPolicies = &policies
	}
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	v, err := c.client().GetBucketVersioning(ctx, s.cfg.Bucket)
	if err != nil {
		return out, fmt.Errorf("versioning of bucket %s: %w", s.cfg.Bucket, err)
	}
	out.Versioning = v.Status
	out.Policy, err = c.client().GetBucketPolicy(ctx, s.cfg.Bucket)
	if _, code := refused(err); err != nil && code != "NoSuchBucketPolicy" {
		return out, fmt.Errorf("policy of bucket %s: %w; let the user read it (s3:GetBucketPolicy), or set admin", s.cfg.Bucket, err)
	}
	return out, nil
}

func (s *store) checkSettings(ctx context.Context, _ target.CheckSpec, _ checkParams, baseline json.RawMessage) ([]event.Property, error) {
	now, err := s.settings(ctx)
	if err != nil {
		return nil, err
	}
	if len(baseline) == 0 {
		return []event.Property{{Name: "settings", Result: event.ResultInconclusive, Found: fmt.Sprintf("versioning %q, without a baseline to compare with", now.Versioning), Wanted: "a baseline"}}, nil
	}
	var was bucketSettings
	if err := json.Unmarshal(baseline, &was); err != nil {
		return nil, fmt.Errorf("the baseline: %w", err)
	}
	same := func(name, now, was string) event.Property {
		return target.Judge(name, now == was, strconv.Quote(now), strconv.Quote(was))
	}
	props := []event.Property{same("versioning of the bucket", now.Versioning, was.Versioning), same("policy of the bucket", now.Policy, was.Policy)}
	if now.UserPolicies != nil && was.UserPolicies != nil {
		props = append(props, same("policies of user "+s.cfg.User, *now.UserPolicies, *was.UserPolicies))
	}
	return props, nil
}
