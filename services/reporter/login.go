package reporter

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
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
)

// mayRead lets readers in: everybody where reading is public, and browsers whose
// user has logged in. The cookie is good for nothing but reading, so that no other
// site can have a browser ask for a drill.
func (s *service) mayRead(r *http.Request) bool {
	if s.PublicReads {
		return true
	}
	c, err := r.Cookie(sessionCookie)
	return err == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) && s.validSession(c.Value, time.Now())
}

// holdsToken reports whether the request carries the bearer token.
func (s *service) holdsToken(r *http.Request) bool {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return bearer && s.isToken(token)
}

func (s *service) isToken(token string) bool {
	// Hashes have one length, so the comparison tells nothing about the token's.
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.Token))
	return s.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// newSession is a cookie's value: until when it is good, and a proof of that by
// the token. Nothing is kept of it, so every reporter with the token takes it, and
// a new token ends all sessions.
func (s *service) newSession(until time.Time) string {
	end := strconv.FormatInt(until.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(s.Token))
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
	if !s.isToken(strings.TrimSpace(r.PostFormValue("token"))) {
		s.loginForm(w, r, http.StatusUnauthorized, next, "That is not the token: enter the one that firedrill was started with.")
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: s.newSession(time.Now().Add(sessionTime)), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		// A proxy that ends TLS says so; whoever lies about it only hurts themselves.
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// ownPath is a path of this server, or / for what could lead elsewhere.
func ownPath(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsFunc(next, func(c rune) bool { return c == '\\' || c < ' ' }) {
		return "/"
	}
	return next
}
