package minio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/firedrill/firedrill/pkg/target"
)

// adminTime bounds one request to the admin API.
const adminTime = 10 * time.Second

// AdminError is a refusal of the store's admin API.
type AdminError struct {
	// Op is what was tried, and Status and Code what the server said.
	Op     string
	Status int
	Code   string
}

// Error says what was tried and what the server said.
func (e *AdminError) Error() string {
	return fmt.Sprintf("%s: the server says %d %s; may the admin user do that?", e.Op, e.Status, e.Code)
}

// ask makes a request to the admin API and returns the answer's body. The few
// requests that are needed here take and give plain JSON.
func (s *store) ask(ctx context.Context, method, op string, query neturl.Values, body []byte) ([]byte, error) {
	if s.admin.user == "" {
		return nil, errors.New("the target has no admin, who can change users' policies: set admin in its configuration")
	}
	ctx, cancel := context.WithTimeout(ctx, adminTime)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, s.service.String()+"/minio/admin/v3/"+op+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	sum := sha256.Sum256(body)
	q.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	q = signer.SignV4(*q, s.admin.user, s.admin.secret, "", "us-east-1")
	t := s.service.transport(true)
	defer t.CloseIdleConnections()
	a, err := t.RoundTrip(q)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", op, s.service, err)
	}
	defer func() { _ = a.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", op, s.service, err)
	}
	if a.StatusCode/100 != 2 {
		var said struct{ Code string }
		_ = json.Unmarshal(raw, &said) // an answer of something else has no code
		return nil, &AdminError{Op: op, Status: a.StatusCode, Code: said.Code}
	}
	return raw, nil
}

// builtIn is a policy that every MinIO has once it has read its users and policies.
const builtIn = "consoleAdmin"

// awaitUsers waits until the server knows its users and policies. Right after a start
// it says that it is well, and answers as if there were none: an undo would find
// nothing to undo.
func (s *store) awaitUsers(ctx context.Context) error {
	return target.Poll(ctx, adminTime, 20*time.Millisecond, "the server to know its users", func(ctx context.Context) (bool, string, error) {
		there, err := s.hasPolicy(ctx, builtIn)
		return there, "it does not know its built-in policy " + builtIn, err
	})
}

// policiesOf is the list of a user's policies, as the server writes it.
func (s *store) policiesOf(ctx context.Context, user string) (string, error) {
	if err := s.awaitUsers(ctx); err != nil {
		return "", err
	}
	raw, err := s.ask(ctx, http.MethodGet, "user-info", neturl.Values{"accessKey": {user}}, nil)
	if err != nil {
		return "", err
	}
	var u struct {
		PolicyName string `json:"policyName"`
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		return "", fmt.Errorf("user-info: %w", err)
	}
	return u.PolicyName, nil
}

func (s *store) setPolicies(ctx context.Context, user, policies string) error {
	_, err := s.ask(ctx, http.MethodPut, "set-user-or-group-policy", neturl.Values{"userOrGroup": {user}, "isGroup": {"false"}, "policyName": {policies}}, nil)
	return err
}

func (s *store) addPolicy(ctx context.Context, name string, document []byte) error {
	_, err := s.ask(ctx, http.MethodPut, "add-canned-policy", neturl.Values{"name": {name}}, document)
	return err
}

func (s *store) hasPolicy(ctx context.Context, name string) (bool, error) {
	_, err := s.ask(ctx, http.MethodGet, "info-canned-policy", neturl.Values{"name": {name}}, nil)
	if e, ok := errors.AsType[*AdminError](err); ok && strings.Contains(e.Code, "NoSuchPolicy") {
		return false, nil
	}
	return err == nil, err
}

// removePolicy removes a policy, and reports whether it was there.
func (s *store) removePolicy(ctx context.Context, name string) (bool, error) {
	if there, err := s.hasPolicy(ctx, name); err != nil || !there {
		return false, err
	}
	_, err := s.ask(ctx, http.MethodDelete, "remove-canned-policy", neturl.Values{"name": {name}}, nil)
	return err == nil, err
}
