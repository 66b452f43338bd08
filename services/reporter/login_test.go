package reporter_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter"
)

// login sends the form and returns the answer, without following it.
func (c *client) login(form url.Values, header ...string) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "POST", c.base+"/login", strings.NewReader(form.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { res.Body.Close() })
	return res
}

// TestLogin: a browser reads after its user has entered the token once, and can
// do nothing else with that.
func TestLogin(t *testing.T) {
	c := newWorld(t).http(nil)
	code, body, _ := c.do("GET", "/v1/drills?x=1", "", "Authorization", "", "Accept", "text/html,*/*;q=0.8")
	if code != http.StatusUnauthorized || !strings.Contains(body, `action="/login"`) || !strings.Contains(body, `value="/v1/drills"`) {
		t.Fatalf("a browser without a session: %d %s", code, body)
	}
	if code, body, _ := c.do("GET", "/login", "", "Authorization", ""); code != http.StatusOK || !strings.Contains(body, `type="password"`) {
		t.Errorf("the form: %d %s", code, body)
	}
	for _, wrong := range []string{"", "x", token + "x"} {
		if res := c.login(url.Values{"token": {wrong}}); res.StatusCode != http.StatusUnauthorized || len(res.Cookies()) != 0 {
			t.Errorf("token %q: %d, cookies %v", wrong, res.StatusCode, res.Cookies())
		}
	}
	res := c.login(url.Values{"token": {token}, "next": {"/v1/drills"}})
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/v1/drills" || len(res.Cookies()) != 1 {
		t.Fatalf("logged in: %d, to %q, cookies %v", res.StatusCode, res.Header.Get("Location"), res.Cookies())
	}
	k := res.Cookies()[0]
	if !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || k.Secure || k.Path != "/" || strings.Contains(k.Value, token) {
		t.Errorf("cookie %s", k)
	}
	session := k.Name + "=" + k.Value
	for method, want := range map[string]int{"GET": http.StatusOK, "HEAD": http.StatusOK, "POST": http.StatusUnauthorized} {
		if code, body, _ := c.do(method, "/v1/drills", smallDrill, "Authorization", "", "Cookie", session); code != want {
			t.Errorf("%s with the session: %d %s, want %d", method, code, body, want)
		}
	}
	if strings.Contains(c.log.String(), token) || strings.Contains(c.log.String(), k.Value) {
		t.Error("the token or the session is in the log")
	}
}

// sessionUntil is a session as whoever knows a token could make it.
func sessionUntil(until time.Time, token string) string {
	mac := hmac.New(sha256.New, []byte(token))
	fmt.Fprintf(mac, "firedrill session until %d", until.Unix())
	return fmt.Sprintf("firedrill-session=%d.%s", until.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// session logs in and returns the cookie.
func (c *client) session() string {
	c.t.Helper()
	res := c.login(url.Values{"token": {token}})
	if len(res.Cookies()) != 1 {
		c.t.Fatalf("no session: %d", res.StatusCode)
	}
	return res.Cookies()[0].Name + "=" + res.Cookies()[0].Value
}

func TestSessionsThatDoNotCount(t *testing.T) {
	c := newWorld(t).http(nil)
	good := c.session()
	if code, body, _ := c.do("GET", "/", "", "Authorization", "", "Cookie", good); code != http.StatusOK {
		t.Fatalf("a good session: %d %s", code, body)
	}
	end, mac, _ := strings.Cut(strings.TrimPrefix(good, "firedrill-session="), ".")
	for name, cookie := range map[string]string{
		// A proof by the token would let whoever stole a cookie try tokens on it.
		"made with the token": sessionUntil(time.Now().Add(time.Hour), token),
		"another process's":   newWorld(t).http(nil).session(),
		"lengthened":          "firedrill-session=9" + end + "." + mac,
		"no proof":            "firedrill-session=" + end + ".",
		"nothing":             "firedrill-session=",
		"the token":           "firedrill-session=" + token,
	} {
		if code, _, _ := c.do("GET", "/", "", "Authorization", "", "Cookie", cookie); code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, code)
		}
	}
	tokenless := newWorld(t).http(func(rc *reporter.Config) { rc.Token, rc.PublicReads = "", true })
	if res := tokenless.login(url.Values{"token": {""}}); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a login without a token at a reporter that has none: %d", res.StatusCode)
	}
}

// TestLoginGoesNowhereElse: the form must not send its user to another site.
func TestLoginGoesNowhereElse(t *testing.T) {
	c := newWorld(t).http(nil)
	for next, want := range map[string]string{
		"": "/", "/v1/drills/a-1/report.html": "/v1/drills/a-1/report.html", "//evil.example": "/", "https://evil.example": "/",
		`/\evil.example`: "/", "/\t/evil.example": "/", "evil": "/",
	} {
		res := c.login(url.Values{"token": {token}, "next": {next}}, "X-Forwarded-Proto", "https")
		if got := res.Header.Get("Location"); got != want {
			t.Errorf("next %q leads to %q, want %q", next, got, want)
		}
		k := res.Cookies()[0]
		if !k.Secure || !strings.HasPrefix(k.Name, "__Host-") {
			t.Errorf("behind TLS the cookie is %s", k)
		}
		if code, _, _ := c.do("GET", "/", "", "Authorization", "", "X-Forwarded-Proto", "https", "Cookie", k.Name+"="+k.Value); code != http.StatusOK {
			t.Errorf("behind TLS the session reads: %d", code)
		}
	}
}

// TestWrongTokensTakeTime: they can be tried neither fast nor all at once, and are
// in the log without the token that was tried.
func TestWrongTokensTakeTime(t *testing.T) {
	c := newWorld(t).http(nil)
	began := time.Now()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if res := c.login(url.Values{"token": {"not-the-token-at-all"}}); res.StatusCode != http.StatusUnauthorized {
				t.Errorf("a wrong token: %d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	c.session() // whoever knows the token waits no longer than the others
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("three wrong tokens and the right one took %s", took)
	}
	if log := c.log.String(); strings.Count(log, "login refused") != 3 || strings.Contains(log, "not-the-token-at-all") {
		t.Errorf("the log: %s", log)
	}
}

// TestWrongBearerTokensTakeTime: the API is no quicker way to try tokens than the form
// is. Who sends none, or reads with a session, waits for nobody.
func TestWrongBearerTokensTakeTime(t *testing.T) {
	c := newWorld(t).http(nil)
	session := c.session()
	began := time.Now()
	var wg sync.WaitGroup
	for _, method := range []string{"GET", "POST", "GET"} {
		wg.Go(func() {
			code, body, header := c.do(method, "/v1/drills", "", "Authorization", "Bearer not-the-token-at-all", "Accept", "text/html")
			if code != http.StatusUnauthorized || !strings.Contains(body, "FIREDRILL_HTTP_TOKEN") || !strings.Contains(body, "--http-token-file") || header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("a wrong token: %d %s", code, body)
			}
		})
	}
	wg.Wait()
	for _, x := range []struct {
		code   int
		header []string
	}{{http.StatusUnauthorized, []string{"Authorization", ""}}, {http.StatusOK, []string{"Authorization", "", "Cookie", session}}} {
		if code, body, _ := c.do("GET", "/v1/drills", "", x.header...); code != x.code {
			t.Errorf("%v: %d %s", x.header, code, body)
		}
	}
	if took := time.Since(began); took < 1000*time.Millisecond {
		t.Errorf("three wrong tokens took %s", took)
	}
	if code, body, _ := c.do("GET", "/v1/drills", ""); code != http.StatusOK {
		t.Errorf("the right token: %d %s", code, body)
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("three wrong tokens and the right one took %s", took)
	}
	if log := c.log.String(); strings.Count(log, "the bearer token is wrong") != 3 || strings.Contains(log, "not-the-token-at-all") {
		t.Errorf("the log: %s", log)
	}
}

// TestTheTurnIsNotWaitedForForever: whoever has the token and comes into a flood of
// wrong ones is told so.
func TestTheTurnIsNotWaitedForForever(t *testing.T) {
	c := newWorld(t).http(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 16 { // eight seconds' worth
		wg.Go(func() {
			code, _, header := c.do("GET", "/v1/drills", "", "Authorization", "Bearer wrong")
			mu.Lock()
			defer mu.Unlock()
			if codes[code]++; (code == http.StatusTooManyRequests) != (header.Get("Retry-After") != "") {
				t.Errorf("%d with Retry-After %q", code, header.Get("Retry-After"))
			}
		})
	}
	wg.Wait()
	if codes[http.StatusUnauthorized] == 0 || codes[http.StatusTooManyRequests] == 0 || len(codes) != 2 {
		t.Errorf("answers: %v", codes)
	}
}

// TestShortTokensAreRefused: the message says how to make a better one.
func TestShortTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	err := reporter.Run(t.Context(), reporter.Config{Bus: w.buses[event.Reporter], Log: quiet(), Keyring: w.ring, HTTP: listen(t), Token: "fifteen-bytes--"})
	if err == nil {
		t.Fatal("a token of 15 bytes is taken")
	}
	for _, part := range []string{"FIREDRILL_HTTP_TOKEN", "--http-token-file", "openssl rand -hex 16"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the message lacks %s: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), "fifteen") {
		t.Errorf("the message holds the token: %v", err)
	}
	if err := reporter.CheckToken("sixteen--bytes--"); err != nil {
		t.Error(err)
	}
}

// TestUnknownPaths: the API answers in JSON whatever is asked of it; only its page
// answers with a page.
func TestUnknownPaths(t *testing.T) {
	c := newWorld(t).http(nil)
	for _, x := range []struct {
		method, path, allow string
		code                int
	}{
		{"GET", "/v1", "", 404}, {"GET", "/v1/", "", 404}, {"GET", "/v1/drill", "", 404}, {"POST", "/v1/drills/a-1/report.md/x", "", 404},
		{"DELETE", "/v1/drills", "GET, POST", 405}, {"POST", "/v1/drills/a-1", "GET", 405},
	} {
		code, body, header := c.do(x.method, x.path, "")
		var p struct {
			Error    string
			Problems []struct{ Field, Value, Fix string }
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil || code != x.code || header.Get("Content-Type") != "application/json" || header.Get("Allow") != x.allow ||
			p.Error == "" || len(p.Problems) != 1 || p.Problems[0].Value != x.path || p.Problems[0].Fix == "" {
			t.Errorf("%s %s: %d, allow %q: %s", x.method, x.path, code, header.Get("Allow"), body)
		}
	}
	for path, want := range map[string]int{"/v2": 404, "/favicon.ico": 404, "/healthz": 405} {
		code, body, header := c.do("POST", path, "")
		if code != want || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || !strings.Contains(body, "<h1>") {
			t.Errorf("POST %s: %d %s", path, code, body)
		}
	}
}
