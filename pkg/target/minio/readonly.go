package minio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

// A policy of the bucket would not do: MinIO asks it about anonymous requests only.
// So the user gets one more policy, which denies what its others may allow.

func (s *store) planReadOnly(ctx context.Context, o *operation, p *target.Plan) error {
	user := s.cfg.User
	before, err := s.policiesOf(ctx, user)
	if e, ok := errors.AsType[*AdminError](err); ok && e.Status == http.StatusNotFound {
		return fmt.Errorf("%w; let the probes have a user of the store's own (user): neither the root user nor one of another directory can be denied anything", err)
	}
	if err != nil {
		return err
	}
	if policyHolds(before, o.rec.Token) {
		return fmt.Errorf("user %s has the policy %s of this step already", user, o.rec.Token)
	}
	o.rec.Undo, o.rec.User, o.rec.Policies = undoPolicy, user, &before
	p.Parts = []event.Part{s.part(o.node, "user", user)}
	p.Does = []string{
		fmt.Sprintf("make the policy %s, which denies every write to bucket %s", o.rec.Token, s.cfg.Bucket),
		fmt.Sprintf("give it to user %s, beside %q", user, before),
	}
	p.Undoes = fmt.Sprintf("give user %s exactly the policies %q, and remove %s", user, before, o.rec.Token)
	return nil
}

func policyHolds(list, name string) bool { return slices.Contains(strings.Split(list, ","), name) }

// denial is the policy that takes the writes to a bucket away.
func denial(bucket string) ([]byte, error) {
	return json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": []any{map[string]any{
			"Effect":   "Deny",
			"Action":   []string{"s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"},
			"Resource": []string{"arn:aws:s3:::" + bucket + "/*"},
		}},
	})
}

func (s *store) readOnly(ctx context.Context, o *operation) (target.Effect, error) {
	var e target.Effect
	if o.rec.Policies == nil || o.rec.User == "" {
		return e, errors.New("the plan names no user")
	}
	document, err := denial(s.cfg.Bucket)
	if err != nil {
		return e, err
	}
	if err := s.addPolicy(ctx, o.rec.Token, document); err != nil {
		return e, err
	}
	e.Began = s.clock.Now()
	err = s.setPolicies(ctx, o.rec.User, strings.TrimPrefix(*o.rec.Policies+","+o.rec.Token, ","))
	e.Ended = s.clock.Now()
	if err != nil {
		return e, err
	}
	// Nodes tell one another of a policy: it may take a moment to hold on all.
	err = target.Poll(ctx, 10*time.Second, 20*time.Millisecond, "a write to be refused", func(ctx context.Context) (bool, string, error) {
		err := s.tryWrite(ctx, o.rec.Token)
		status, code := refused(err)
		if status != http.StatusForbidden {
			e.Ended = s.clock.Now()
			return false, fmt.Sprintf("a write gets %v", err), nil
		}
		e.Proof = event.Proof{Proven: true, How: "a write by the user is refused", Observations: []string{fmt.Sprintf("%d %s", status, code)}}
		return true, "", nil
	})
	return e, err
}

// tryWrite writes an object that no ledger holds, as the client, and removes it.
func (s *store) tryWrite(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	c, key := s.users.client(), s.cfg.Prefix+"/.try/"+name
	body := []byte(name)
	u, err := c.PutObject(ctx, s.cfg.Bucket, key, bytes.NewReader(body), int64(len(body)), "", "", minio.PutObjectOptions{})
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	got, err := get(ctx, c, s.cfg.Bucket, key)
	if err == nil && !bytes.Equal(got, body) {
		err = errors.New("what is read is not what was written")
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", key, err)
	}
	if rerr := c.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{VersionID: u.VersionID}); rerr != nil {
		err = errors.Join(err, fmt.Errorf("delete %s: %w", key, rerr))
	}
	return err
}

// undoReadOnly gives the user its policies back. What somebody else has changed
// meanwhile stays changed: only this fault's own policy is taken away then.
func (s *store) undoReadOnly(ctx context.Context, o *operation, j *undo.Journal) error {
	r := o.rec
	if r.Policies == nil || r.User == "" {
		return errors.New("the record names no user")
	}
	now, err := s.policiesOf(ctx, r.User)
	if err != nil {
		return err
	}
	if policyHolds(now, r.Token) {
		back := *r.Policies
		if now != strings.TrimPrefix(back+","+r.Token, ",") {
			rest := slices.DeleteFunc(strings.Split(now, ","), func(p string) bool { return p == r.Token })
			// The server keeps the list as a set, whose order may differ.
			if !sameSet(rest, strings.Split(back, ",")) {
				back = strings.Join(rest, ",")
			}
		}
		if err := s.setPolicies(ctx, r.User, back); err != nil {
			return err
		}
		j.Add("gave user %s the policies %q", r.User, back)
	}
	removed, err := s.removePolicy(ctx, r.Token)
	if removed {
		j.Add("removed the policy %s", r.Token)
	}
	return err
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
