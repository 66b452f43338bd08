package reporter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

const (
	// maxBody is the largest request for a drill: what the stream of requests
	// takes in a message.
	maxBody = 512 << 10
	// writeWait bounds an answer to a slow reader.
	writeWait = 30 * time.Second
	// maxKey bounds an Idempotency-Key.
	maxKey = 128
	// shutdownWait bounds the wait for requests under way at the end.
	shutdownWait = 5 * time.Second
)

// problem is an error's JSON.
type problem struct {
	Error string `json:"error"`
	// Problems say which field is wrong and how to mend it.
	Problems drill.Problems `json:"problems,omitempty"`
}

// Listen takes an address, host:port, for the HTTP server. An error says what to do.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %w: another process has it: end that, or give another address", addr, syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: give an address of this machine, as 127.0.0.1:8080", addr, err)
	}
	return l, nil
}

// serveHTTP serves until ctx ends.
func (s *service) serveHTTP(ctx context.Context) error {
	l := s.HTTP
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	s.Log.Info("HTTP is served", "address", l.Addr().String())
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	err := server.Shutdown(wait)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-served
	return err
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("POST /v1/drills", s.guard(false, s.postDrill))
	mux.Handle("GET /v1/drills", s.guard(true, s.getDrills))
	mux.Handle("GET /v1/drills/{id}", s.guard(true, s.getDrill))
	mux.Handle("GET /v1/drills/{id}/events", s.guard(true, s.getEvents))
	mux.Handle("GET /v1/drills/{id}/{file}", s.guard(true, s.getReport))
	mux.Handle("GET /{$}", s.guard(true, s.getIndex))
	mux.HandleFunc("GET /login", s.getLogin)
	mux.HandleFunc("POST /login", s.postLogin)
	for _, rest := range []string{"/", "/v1", "/v1/"} {
		mux.HandleFunc(rest, s.unknown(mux))
	}
	return mux
}

// tokenFix says which token is meant, and where whoever runs firedrill finds it.
const tokenFix = "send the header Authorization: Bearer <token>; the token is the value of FIREDRILL_HTTP_TOKEN where `firedrill up` was started, or what stands in the file of firedrill-reporter's --http-token-file"

// guard lets those through who may: see mayRead and admit.
func (s *service) guard(read bool, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			s.Log.Debug("no write deadline", "error", err)
		}
		if read && s.mayRead(r) || s.admit(w, r, read) {
			next(w, r)
		}
	})
}

// admit reports whether the request carries the bearer token, and answers one that
// does not. Whoever tries tokens here waits as the login's users do.
func (s *service) admit(w http.ResponseWriter, r *http.Request, read bool) bool {
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	problem := drill.Problem{Field: "Authorization", Fix: tokenFix}
	if !given {
		if read && wantsPage(r) {
			s.loginForm(w, r, http.StatusUnauthorized, r.URL.EscapedPath(), "")
			return false
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.refuse(w, http.StatusUnauthorized, "the bearer token is missing", problem)
		return false
	}
	ok, err := s.tryToken(r.Context(), token)
	switch {
	case r.Context().Err() != nil:
		return false // nobody listens any more
	case err != nil:
		w.Header().Set("Retry-After", "1")
		s.refuse(w, http.StatusTooManyRequests, "too many wrong bearer tokens were sent", drill.Problem{Field: "Authorization", Fix: "wait a second, then send the request again; if it stays so, find out who sends the wrong ones: they are in the reporter's log"})
	case !ok:
		s.Log.Warn("request refused: the bearer token is wrong", "from", r.RemoteAddr)
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.refuse(w, http.StatusUnauthorized, "the bearer token is wrong", problem)
	}
	return ok && err == nil
}

// unknown answers for every path and method that nothing else answers for: in
// the API's own words below its prefix, with a small page elsewhere.
func (s *service) unknown(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		code, text, fix := http.StatusNotFound, "there is nothing at this path", "ask for /v1/drills, /v1/drills/{drill}, or a file below it"
		if allowed := methods(mux, r); len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			code, text, fix = http.StatusMethodNotAllowed, r.Method+" is not possible here", "use "+strings.Join(allowed, " or ")
		}
		if r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/") {
			s.refuse(w, code, text, drill.Problem{Field: "path", Value: r.URL.Path, Fix: fix})
			return
		}
		page, err := render.Notice(strings.ToUpper(text[:1]) + text[1:])
		s.page(w, r, code, page, err)
	}
}

// methods are those that would be answered at a request's path.
func methods(mux *http.ServeMux, r *http.Request) []string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = m
		if _, pattern := mux.Handler(other); strings.HasPrefix(pattern, m+" ") {
			out = append(out, m)
		}
	}
	return out
}

func (s *service) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := s.Bus.Ready(ctx); err != nil {
		s.Log.Warn("not ready", "error", err)
		writeText(w, http.StatusServiceUnavailable, "not ready: the connection to NATS does not work; see the log\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

// whoPattern is what can stand as <who> in a subject.
var whoPattern = lazy.Regexp(`^[A-Za-z0-9_-]{1,64}$`)

// postDrill stores a request for a drill and answers with the drill's id, which
// is fixed as soon as the request is stored.
func (s *service) postDrill(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		s.refuse(w, http.StatusRequestEntityTooLarge, "the drill is too large", drill.Problem{Fix: fmt.Sprintf("send at most %d bytes", maxBody)})
		return
	case err != nil:
		s.refuse(w, http.StatusBadRequest, "the body could not be read", drill.Problem{Fix: "send the drill as YAML or JSON in the body"})
		return
	}
	kind, name, err := drill.CheckRequest(body)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, "the drill has problems", drill.AsProblems(err)...)
		return
	}
	who := r.URL.Query().Get("who")
	if who == "" {
		who = fold.Nameless
	}
	key := r.Header.Get("Idempotency-Key")
	switch {
	case !whoPattern().MatchString(who):
		s.refuse(w, http.StatusBadRequest, "the requester's name cannot be used", drill.Problem{Field: "who", Fix: "use up to 64 letters, digits, dashes and underscores"})
		return
	case len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < '!' || c > '~' }):
		s.refuse(w, http.StatusBadRequest, "the idempotency key cannot be used", drill.Problem{Field: "Idempotency-Key", Fix: fmt.Sprintf("use up to %d visible ASCII characters", maxKey)})
		return
	}
	// Halting stops drills, not those who put back what an earlier one left.
	if kind == drill.Kind && s.halted(w, r) {
		return
	}
	s.store(w, r, request{who: who, name: name, key: key, body: body})
}

// halted refuses a drill while firedrill is halted. The injector would reject it
// later all the same, but whoever asks over HTTP may never read that answer.
func (s *service) halted(w http.ResponseWriter, r *http.Request) bool {
	h, err := s.Bus.HaltState(r.Context())
	if err != nil {
		s.Log.Warn("whether firedrill is halted cannot be read; the injector will decide", "error", err)
		return false
	}
	if !h.Halted {
		return false
	}
	text := "all drills are halted by " + h.By
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	s.refuse(w, http.StatusConflict, text, drill.Problem{Fix: "release with `firedrill halt --release`, then send the same request again, with the same Idempotency-Key if it has one"})
	return true
}

// request is a drill that is asked for.
type request struct {
	who, name, key string
	body           []byte
}

func (q request) subject() string { return bus.RequestSubject(q.who, q.name) }

// msgID makes the key one of the requester's own: two may choose the same. The
// drill's name is no part of it, so that one key never stands for two drills.
func (q request) msgID() string {
	if q.key == "" {
		return ""
	}
	return "http/" + q.who + "/" + q.key
}

// store publishes the request. A key that was used before gives the drill of
// that time, if it was the same request.
func (s *service) store(w http.ResponseWriter, r *http.Request, q request) {
	ack, err := s.Bus.Publish(r.Context(), q.subject(), q.body, q.msgID())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if ack.Duplicate && q.key != "" {
		before, err := s.Bus.RequestAt(r.Context(), ack.Seq)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if before.Subject != q.subject() || !bytes.Equal(before.Data, q.body) {
			_, name, _ := bus.ReadRequestSubject(before.Subject)
			s.refuse(w, http.StatusConflict, "the idempotency key was used before, with another body", drill.Problem{Field: "Idempotency-Key",
				Fix: fmt.Sprintf("use a new key for another drill; this one stands for %s, asked for at %s, and nothing was stored now", drill.ID(name, ack.Seq), before.Stored.UTC().Format(time.RFC3339))})
			return
		}
	}
	id := drill.ID(q.name, ack.Seq)
	if ack.Duplicate {
		no, err := s.rejected(r.Context(), id)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if no != nil {
			s.refuseAgain(w, no)
			return
		}
	}
	s.Log.Info("drill asked for over HTTP", "drill", id, "who", q.who, "duplicate", ack.Duplicate)
	w.Header().Set("Location", "/v1/drills/"+id)
	s.writeJSON(w, http.StatusAccepted, struct {
		Drill     string `json:"drill"`
		StatusURL string `json:"status_url"`
		EventsURL string `json:"events_url"`
		Duplicate bool   `json:"duplicate,omitempty"`
	}{id, "/v1/drills/" + id, "/v1/drills/" + id + "/events", ack.Duplicate})
}

// refuseAgain answers a request that was rejected when it was first made.
func (s *service) refuseAgain(w http.ResponseWriter, no *Rejection) {
	text := "this request was made before, and rejected"
	if no.Reason != "" {
		text += ": " + no.Reason
	}
	s.refuse(w, http.StatusConflict, text, append(no.Problems, drill.Problem{Field: "Idempotency-Key", Fix: "mend what is wrong, then ask again with a new key"})...)
}

func (s *service) getDrills(w http.ResponseWriter, r *http.Request) {
	l, err := s.list(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.writeJSON(w, http.StatusOK, struct {
		Drills []Line `json:"drills"`
	}{l})
}

func (s *service) getDrill(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	v, err := s.folded(r.Context(), id)
	if errors.Is(err, errUnknownDrill) || errors.Is(err, fold.ErrNoDrill) {
		if no, e := s.rejected(r.Context(), id); e != nil || no != nil {
			if e != nil {
				s.fail(w, r, e)
				return
			}
			s.writeJSON(w, http.StatusOK, no)
			return
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	st := statusOf(v)
	st.Reports = map[string]string{}
	for _, format := range []string{"json", "md", "html", "xml"} {
		st.Reports[format] = "/v1/drills/" + id + "/report." + format
	}
	s.writeJSON(w, http.StatusOK, st)
}

func (s *service) getReport(w http.ResponseWriter, r *http.Request) {
	file := r.PathValue("file")
	types := map[string]string{
		render.FileJSON: "application/json", render.FileMarkdown: "text/markdown; charset=utf-8", render.FileHTML: "text/html; charset=utf-8",
		render.FileJUnit: "application/xml", FileEvents: "application/jsonl",
	}
	kind, ok := types[file]
	if !ok {
		s.refuse(w, http.StatusNotFound, "there is no such file", drill.Problem{Field: "file", Fix: "ask for report.json, report.md, report.html, report.xml, events.jsonl or events"})
		return
	}
	b, err := s.file(r.Context(), r.PathValue("id"), file)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if file == render.FileHTML {
		w.Header().Set("Content-Security-Policy", pagePolicy)
	}
	w.Header().Set("Content-Type", kind)
	s.sent(w.Write(b))
}

func (s *service) getIndex(w http.ResponseWriter, r *http.Request) {
	l, err := s.list(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	entries := make([]render.Entry, 0, len(l))
	for _, x := range l {
		why := ""
		if x.Rejection != nil {
			why = x.Rejection.Why()
		}
		entries = append(entries, render.Entry{ID: x.Drill, Title: x.Title, State: x.State, Verdict: x.Verdict, Requester: x.Requester, When: x.Accepted, Why: why})
	}
	halt, err := s.Bus.HaltState(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	halted := ""
	if halt.Halted {
		halted = halt.String()
	}
	page, err := render.Index(entries, halted)
	s.page(w, r, http.StatusOK, page, err)
}

// pagePolicy lets a page load nothing, send its form only here, and stand in no
// other site's frame.
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// page answers with a page that was rendered, or failed to be.
func (s *service) page(w http.ResponseWriter, r *http.Request, code int, page []byte, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	s.sent(w.Write(page))
}

// refuse answers a request that is wrong.
func (s *service) refuse(w http.ResponseWriter, code int, text string, ps ...drill.Problem) {
	s.writeJSON(w, code, problem{Error: text, Problems: ps})
}

// fail answers a request that could not be carried out. What went wrong inside
// stays in the log.
func (s *service) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errUnknownDrill) || errors.Is(err, fold.ErrNoDrill) {
		s.refuse(w, http.StatusNotFound, "there is no such drill", drill.Problem{Field: "id", Value: r.PathValue("id"), Fix: "ask for a drill that is there: GET /v1/drills lists them; one that was just asked for may be not accepted yet"})
		return
	}
	if r.Context().Err() != nil {
		return // nobody listens any more
	}
	s.Log.Error("HTTP request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	s.refuse(w, http.StatusServiceUnavailable, "the request could not be carried out", drill.Problem{Fix: "try again; the reporter's log has the cause"})
}

// writeJSON answers with v. Texts stay readable: the answer is JSON and is never
// put into a page as it is, so < and & need no escapes.
func (s *service) writeJSON(w http.ResponseWriter, code int, v any) {
	var data bytes.Buffer
	out := json.NewEncoder(&data)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		s.Log.Error("answer cannot be encoded", "error", err)
		writeText(w, http.StatusInternalServerError, "the answer cannot be encoded; see the log\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	s.sent(w.Write(data.Bytes()))
}

// sent notes an answer that did not reach its reader.
func (s *service) sent(_ int, err error) {
	if err != nil {
		s.Log.Debug("answer not sent", "error", err)
	}
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	// A reader that went away needs no answer.
	_, _ = io.WriteString(w, text)
}
