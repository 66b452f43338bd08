package bucket

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// emptySHA256 is the hash of a request without a body.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// signer signs requests. AWS's signer, other than minio-go's, derives
// the key of a day once and not for each request, which makes it twice as fast. The zero
// value is ready; it may be used concurrently.
type signer struct{ latest atomic.Pointer[secretSigner] }

// secretSigner keeps the key that was derived from one secret.
type secretSigner struct {
	secret string
	v4     *v4.Signer
}

// with returns what signs with a secret. AWS's signer knows the keys that it has derived
// by the access key alone: one that gets a new secret would go on with the old one.
func (s *signer) with(secret string) *v4.Signer {
	if l := s.latest.Load(); l != nil && l.secret == secret {
		return l.v4
	}
	l := &secretSigner{secret: secret, v4: v4.NewSigner(func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = true // S3 escapes paths once, other services twice.
	})}
	s.latest.Store(l)
	return l.v4
}

// sign signs a request for S3 in place. Anonymous keys are empty, and leave it unsigned.
func (s *signer) sign(q *http.Request, payload string, keys credentials.Value, region string) error {
	q.Header["X-Amz-Content-Sha256"] = []string{payload}
	if keys.AccessKeyID == "" || keys.SecretAccessKey == "" {
		return nil
	}
	as := aws.Credentials{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.SessionToken}
	if err := s.with(keys.SecretAccessKey).SignHTTP(q.Context(), as, q, payload, "s3", region, time.Now()); err != nil {
		return fmt.Errorf("sign the request: %w", err)
	}
	return nil
}
