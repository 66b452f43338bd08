package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Client talks to a relay's control, in this process or another.
type Client struct {
	// URL is the control's base, as in Announcement.Control.
	URL string
}

// State asks for the present state.
func (c Client) State(ctx context.Context) (State, error) {
	return c.call(ctx, http.MethodGet, "/state", nil)
}

// Switch sends new connections to another upstream and resets the present ones.
func (c Client) Switch(ctx context.Context, address string) (State, error) {
	return c.call(ctx, http.MethodPut, "/upstream", map[string]string{"address": address})
}

// Pause stops forwarding, in mode Hold or Refuse.
func (c Client) Pause(ctx context.Context, m Mode) (State, error) {
	return c.call(ctx, http.MethodPost, "/pause", map[string]Mode{"mode": m})
}

// Resume forwards again.
func (c Client) Resume(ctx context.Context) (State, error) {
	return c.call(ctx, http.MethodPost, "/resume", nil)
}

// SetLink changes delay and rate.
func (c Client) SetLink(ctx context.Context, l Link) (State, error) {
	return c.call(ctx, http.MethodPut, "/link", l)
}

func (c Client) call(ctx context.Context, method, path string, body any) (State, error) {
	var in bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&in).Encode(body); err != nil {
			return State{}, fmt.Errorf("relay %s %s: %w", method, path, err)
		}
	}
	q, err := http.NewRequestWithContext(ctx, method, c.URL+path, &in)
	if err != nil {
		return State{}, fmt.Errorf("relay %s %s%s: %w", method, c.URL, path, err)
	}
	// One request, one connection: nothing idle stays behind.
	q.Close = true
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return State{}, fmt.Errorf("relay %s %s%s: %w; does it still run?", method, c.URL, path, err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(a.Body, 64<<10))
	if err != nil {
		return State{}, fmt.Errorf("relay %s %s%s: %w", method, c.URL, path, err)
	}
	if a.StatusCode != http.StatusOK {
		return State{}, fmt.Errorf("relay %s %s%s: %s: %s", method, c.URL, path, a.Status, bytes.TrimSpace(raw))
	}
	var s State
	if err := json.Unmarshal(raw, &s); err != nil {
		return State{}, fmt.Errorf("relay %s %s%s: answer %q: %w", method, c.URL, path, raw, err)
	}
	return s, nil
}
