package reporter

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/reporter/render"
)

const (
	// sessionCookie is what a browser reads with after its user has entered the token.
	sessionCookie = "firedrill-session"
	// sessionTime is how long that is good for.
	sessionTime = 12 * time.Hour
	// maxForm bounds what the login form may send.
	maxForm = 8 << 10
	// minToken is how many bytes a token has at least: who has it orders drills.
	minToken = 16
	// loginPause is how long nobody can try another token after a wrong one.
	loginPause = 500 * time.Millisecond
	// loginWait is how long a login, or a request with a token, waits for its turn.
	loginWait = 5 * time.Second
)

// CheckToken refuses a token that could be guessed. None at all is no mistake here.
func CheckToken(token string) error {
	if token == "" || len(token) >= minToken {
		return nil
	}
	return fmt.Errorf("the HTTP token has %d bytes, and needs at least %d: put the output of `openssl rand -hex 16` into FIREDRILL_HTTP_TOKEN, or into the file of the reporter's --http-token-file", len(token), minToken)
}

// logins lets browsers in.
type logins struct {
	// key signs sessions. It is this process's own, so that a session that got into
	// wrong hands says nothing about the token, by trying tokens on it or otherwise.
	key [32]byte
	// turn is held by whoever tries a token, and by nobody for a while after a wrong one.
	turn chan struct{}
}

func newLogins() logins {
	l := logins{turn: make(chan struct{}, 1)}
	rand.Read(l.key[:]) // never fails: see its documentation
	return l
}

// cookieName is the session's. Behind TLS no other host of the domain, and no
// connection without TLS, can set it.
func cookieName(r *http.Request) string {
	if overTLS(r) {
		return "__Host-" + sessionCookie
	}
	return sessionCookie
}

// overTLS reports whether the browser's connection is encrypted. A proxy that ends
// TLS says so; whoever lies about it only hurts themselves.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

// mayRead lets readers in: everybody where reading is public, and browsers whose
// user has logged in. The cookie is good for nothing but reading, so that no other
// site can have a browser ask for a drill.
func (s *service) mayRead(r *http.Request) bool {
	if s.PublicReads {
		return true
	}
	c, err := r.Cookie(cookieName(r))
	return err == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) && s.validSession(c.Value, time.Now())
}

func (s *service) isToken(token string) bool {
	// Hashes have one length, so the comparison tells nothing about the token's.
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.Token))
	return s.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// newSession is a cookie's value: until when it is good, and a proof of that by
// this process. Nothing is kept of it; all sessions end with the process.
func (s *service) newSession(until time.Time) string {
	end := strconv.FormatInt(until.Unix(), 10)
	mac := hmac.New(sha256.New, s.logins.key[:])
	mac.Write([]byte("firedrill session until " + end))
	return end + "." + hex.EncodeToString(mac.Sum(nil))
}

func (s *service) validSession(value string, now time.Time) bool {
	end, _, _ := strings.Cut(value, ".")
	seconds, err := strconv.ParseInt(end, 10, 64)
	until := time.Unix(seconds, 0)
	return err == nil && s.Token != "" && now.Before(until) && hmac.Equal([]byte(value), []byte(s.newSession(until)))
}

// wantsPage reports whether a browser asks, on behalf of somebody who can fill in
// a form.
func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

func (s *service) getLogin(w http.ResponseWriter, r *http.Request) {
	s.loginForm(w, r, http.StatusOK, "/", "")
}

// loginForm asks for the token; next is the page to show then.
func (s *service) loginForm(w http.ResponseWriter, r *http.Request, code int, next, problem string) {
	page, err := render.Login(next, problem)
	s.page(w, r, code, page, err)
}

// postLogin turns the token into a cookie. The token itself stays out of
// addresses, cookies and logs.
func (s *service) postLogin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	next := ownPath(r.PostFormValue("next"))
	ok, err := s.tryToken(r.Context(), strings.TrimSpace(r.PostFormValue("token")))
	switch {
	case r.Context().Err() != nil:
		return // nobody listens any more
	case err != nil:
		s.loginForm(w, r, http.StatusTooManyRequests, next, "Too many wrong tokens were entered. Wait a moment, then try again.")
		return
	case !ok:
		s.Log.Warn("login refused: the token is wrong", "from", r.RemoteAddr)
		s.loginForm(w, r, http.StatusUnauthorized, next, "That is not the token. See below where it is found.")
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: s.newSession(time.Now().Add(sessionTime)), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: overTLS(r),
	})
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// tryToken checks a token that was entered or sent. One is checked at a time, and none for a
// while after a wrong one: were only the answer late, many could be tried at once.
func (s *service) tryToken(ctx context.Context, token string) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, loginWait)
	defer cancel()
	select {
	case s.logins.turn <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	done := func() { <-s.logins.turn }
	if s.isToken(token) {
		done()
		return true, nil
	}
	time.AfterFunc(loginPause, done)
	return false, nil
}

// ownPath is a path of this server, or / for what could lead elsewhere.
func ownPath(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, func(c rune) bool { return c == '\\' || c < ' ' }) {
		return "/"
	}
	return next
}
