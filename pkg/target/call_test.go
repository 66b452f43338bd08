package target

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

type opener struct {
	Driver
	open func(ctx context.Context) (*Target, error)
}

func (o opener) Name() string                                        { return "fake" }
func (o opener) Check(json.RawMessage) error                         { return nil }
func (o opener) Describe() Description                               { return Description{} }
func (o opener) Open(ctx context.Context, _ Config) (*Target, error) { return o.open(ctx) }

func TestCallTurnsPanicsIntoErrors(t *testing.T) {
	_, err := Call(t.Context(), time.Minute, "asking it", func(context.Context) (int, error) { panic("boom") }, nil)
	if err == nil || err.Error() != "asking it: the driver panicked: boom" {
		t.Fatal(err)
	}
}

func TestCallOutlastsADriverThatHangs(t *testing.T) {
	release, late := make(chan struct{}), make(chan int, 1)
	_, err := Call(t.Context(), time.Millisecond, "asking it", func(context.Context) (int, error) {
		<-release
		return 7, nil
	}, func(v int) { late <- v })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not return within 1ms") {
		t.Fatal(err)
	}
	close(release)
	if v := <-late; v != 7 {
		t.Fatalf("late got %d", v)
	}
}

func TestCallLetsADriverSayWhyItStopped(t *testing.T) {
	_, err := Call(t.Context(), time.Millisecond, "asking it", func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, errors.New("the server is busy")
	}, nil)
	if err == nil || err.Error() != "asking it: the server is busy" {
		t.Fatal(err)
	}
}

func TestRegistryOpen(t *testing.T) {
	closed := 0
	reg := NewRegistry(opener{open: func(context.Context) (*Target, error) {
		return &Target{Close: func() error { closed++; panic("at the end") }}, nil
	}})
	got, err := reg.Open(t.Context(), "fake", Config{Name: "db"})
	if err != nil || got.Driver.Name() != "fake" {
		t.Fatal(got, err)
	}
	if err := got.Release(t.Context()); err == nil || closed != 1 {
		t.Fatalf("a panic on closing is an error: %v, closed %d times", err, closed)
	}
	if err := new(Target).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Open(t.Context(), "nope", Config{Name: "db"}); err == nil || !strings.Contains(err.Error(), `target "db": unknown driver "nope": this build has fake`) {
		t.Fatal(err)
	}
}
