package reporter

import (
	"testing"
	"time"
)

// TestASessionEnds: what this process signed is good until then, and no longer.
func TestASessionEnds(t *testing.T) {
	s := &service{Config: Config{Token: "sixteen--bytes--"}, logins: newLogins()}
	until := time.Now().Add(time.Hour)
	value := s.newSession(until)
	if !s.validSession(value, until.Add(-time.Minute)) || s.validSession(value, until.Add(time.Second)) {
		t.Error("the session is not good until its end, or after it")
	}
}
