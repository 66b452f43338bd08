package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Announcement is what a relay writes into its announce file.
type Announcement struct {
	Name    string `json:"name"`
	Listen  string `json:"listen"`
	Control string `json:"control"`
	PID     int    `json:"pid"`
}

// Serve runs one relay until ctx ends; nil on a clean end.
func Serve(ctx context.Context, o Options) error { return ServeAll(ctx, []Options{o}) }

// ServeAll runs relays in one process until ctx ends; nil on a clean end.
func ServeAll(ctx context.Context, all []Options) error {
	for _, o := range all {
		r, err := Start(ctx, o)
		if err != nil {
			return err
		}
		defer r.Close()
	}
	<-ctx.Done()
	return nil
}

// ServeFile runs the relays that a JSON file lists, an array of Options, until
// ctx ends. A detached lab runs its relays so.
func ServeFile(ctx context.Context, path string, log *slog.Logger) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("relay file: %w", err)
	}
	var all []Options
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("relay file %s: %w; it must be a JSON array of relay options", path, err)
	}
	for i := range all {
		all[i].Log = log
	}
	return ServeAll(ctx, all)
}

func (r *Relay) announce(path string) error {
	raw, err := json.Marshal(Announcement{
		Name: r.name, Listen: r.listener.Addr().String(), Control: r.ControlURL(), PID: os.Getpid(),
	})
	if err != nil {
		return fmt.Errorf("relay %s: announce: %w", r.name, err)
	}
	// Renamed into place, so that whoever waits for the file never reads half.
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".part")
	if err := os.WriteFile(part, raw, 0o600); err != nil {
		return fmt.Errorf("relay %s: announce: %w", r.name, err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("relay %s: announce: %w", r.name, err)
	}
	return nil
}

func (r *Relay) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { answer(w, r.State(), nil) })
	mux.HandleFunc("PUT /upstream", func(w http.ResponseWriter, q *http.Request) {
		var body struct {
			Address string `json:"address"`
		}
		if !read(w, q, &body) {
			return
		}
		s, err := r.Switch(body.Address)
		answer(w, s, err)
	})
	mux.HandleFunc("POST /pause", func(w http.ResponseWriter, q *http.Request) {
		body := struct {
			Mode Mode   `json:"mode"`
			For  string `json:"for"`
		}{Mode: Hold, For: "0s"}
		if !read(w, q, &body) {
			return
		}
		bound, err := time.ParseDuration(body.For)
		if err != nil {
			answer(w, State{}, fmt.Errorf("for %q: give a time, such as 30s", body.For))
			return
		}
		s, err := r.PauseFor(body.Mode, bound)
		answer(w, s, err)
	})
	mux.HandleFunc("POST /keep", func(w http.ResponseWriter, _ *http.Request) { answer(w, r.Keep(), nil) })
	mux.HandleFunc("POST /resume", func(w http.ResponseWriter, _ *http.Request) { answer(w, r.Resume(), nil) })
	mux.HandleFunc("PUT /link", func(w http.ResponseWriter, q *http.Request) {
		body := r.link.get()
		if !read(w, q, &body) {
			return
		}
		s, err := r.SetLink(body)
		answer(w, s, err)
	})
	return mux
}

// read decodes a small JSON body, where an empty one leaves the defaults.
func read(w http.ResponseWriter, q *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, q.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		answer(w, State{}, fmt.Errorf("request body: %w", err))
		return false
	}
	return true
}

func answer(w http.ResponseWriter, s State, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(s)
}
