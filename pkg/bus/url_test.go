package bus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

// A URL that cannot be read is refused at once, and neither it nor its password is told.
func TestUnreadableURL(t *testing.T) {
	began := time.Now()
	b, err := bus.Connect(t.Context(), bus.Options{
		URL: "nats://user:hunter2%zz@127.0.0.1:4222", Identity: newSigners(t).identity("cli", "c"), Log: quiet(),
	})
	if err == nil {
		b.Close()
		t.Fatal("it was read")
	}
	if strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "URL") || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}
