package job

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// rclone asks rclone for its opinion, which is that of whoever reads all files.
func (p *pair) rclone(where string, sides [2]map[string]content) {
	p.Helper()
	at := p.dirs
	for side, prefix := range p.prefixes {
		if p.buckets[side] {
			at[side] = ":s3:" + p.bucket.Bucket + "/" + strings.TrimSuffix(prefix, "/")
		}
	}
	without := []string{awkward}
	for _, all := range sides {
		for path, c := range all {
			if !c.file { // It follows no links, and for a bucket all is a file.
				without = append(without, "/"+inGlob.Replace(path))
				delete(sides[0], path)
				delete(sides[1], path)
			}
		}
	}
	for _, all := range sides {
		for path := range all {
			if strings.Contains(entry.Entry{Path: path}.Key(), "%") {
				delete(all, path)
			}
		}
	}
	differences := differences(sides)
	if said := p.checker.check(p, at, without); said.Success != (len(differences) == 0) {
		p.Fatalf("%s: rclone says %+v, of all but %q\nand there are differences: %q", where, said, without, differences)
	}
}

// awkward is what rclone leaves out: it would have to know how the names are escaped that a
// key cannot be, and calls them otherwise itself.
const awkward = `{{[\s\S]*[%\\\x{FFFD}\x{2400}-\x{2421}][\s\S]*}}`

// inGlob writes a name as a pattern.
var inGlob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `{`, `\{`, `}`, `\}`)

// checker is an rclone that compares whatever it is asked to.
type checker struct{ url, password string }

// checked is what rclone says of two places.
type checked struct {
	Success                            bool
	Status                             string
	Differ, MissingOnSrc, MissingOnDst []string
	// Error are the files that it could not compare, or why it has compared nothing.
	Error any
}

// startChecker starts rclone, which ends with the test: a process of its own for each
// comparison would cost more than that does.
func startChecker(t *testing.T) *checker {
	t.Helper()
	r := &checker{password: rand.Text()}
	c := rcloneCommand(t, "rcd", "--rc-addr", "127.0.0.1:0", "--rc-user", checkerUser)
	c.Env = append(c.Env, "RCLONE_RC_PASS="+r.password)
	says, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	var rest sync.WaitGroup
	t.Cleanup(func() {
		_ = c.Process.Kill()
		rest.Wait()
		_ = c.Wait() // It was killed; the error says only that.
	})
	lines := bufio.NewScanner(says)
	for lines.Scan() {
		if _, url, ok := strings.Cut(lines.Text(), "Serving remote control on "); ok {
			r.url = url
			t.Cleanup(http.DefaultClient.CloseIdleConnections)
			rest.Go(func() { _, _ = io.Copy(io.Discard, says) })
			return r
		}
	}
	t.Fatalf("rclone does not serve: %v", lines.Err())
	return nil
}

const checkerUser = "test"

// check has all that two places hold read and compared, without what the patterns say.
func (c *checker) check(t testing.TB, at [2]string, without []string) (said checked) {
	t.Helper()
	ask, err := json.Marshal(map[string]any{
		"srcFs": at[plan.Source], "dstFs": at[plan.Dest], "download": true,
		"_config": map[string]any{"NoUnicodeNormalization": true}, "_filter": map[string]any{"ExcludeRule": without},
	})
	must(t, err)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"operations/check", bytes.NewReader(ask))
	must(t, err)
	q.Header.Set("Content-Type", "application/json")
	q.SetBasicAuth(checkerUser, c.password)
	answer, err := http.DefaultClient.Do(q)
	must(t, err)
	must(t, errors.Join(json.NewDecoder(answer.Body).Decode(&said), answer.Body.Close()))
	if said.Status == "" {
		t.Fatalf("rclone answers %s: %v", answer.Status, said.Error)
	}
	return said
}

// rclone runs rclone against the tests' server.
func rclone(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := rcloneCommand(t, args...).CombinedOutput()
	return string(out), err
}

func rcloneCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	m := server.Start(t)
	c := exec.CommandContext(t.Context(), enginetest.Binary(t, "rclone"), append([]string{"--config", "/dev/null"}, args...)...)
	c.Env = append(os.Environ(), "RCLONE_S3_PROVIDER=Minio", "RCLONE_S3_ACCESS_KEY_ID="+m.AccessKey,
		"RCLONE_S3_SECRET_ACCESS_KEY="+m.SecretKey, "RCLONE_S3_ENDPOINT="+m.Endpoint, "AWS_EC2_METADATA_DISABLED=true")
	return c
}
