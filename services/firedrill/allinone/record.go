package allinone

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/firedrill/firedrill/pkg/bus"
)

// Record is what up.json, which only its owner may read, says about a running
// all-in-one, for the command line.
type Record struct {
	PID     int    `json:"pid"`
	NATSURL string `json:"nats_url"`
	// Seed is the login; only a private all-in-one has one.
	Seed   bus.Seed `json:"nats_nkey_seed,omitempty"`
	HTTP   string   `json:"http,omitempty"`
	OutDir string   `json:"out_dir"`
}

// Private reports whether it is the firedrill of a single `firedrill run`, which ends
// with its drill.
func (r Record) Private() bool { return r.Seed != "" }

func recordPath(stateDir string) string { return filepath.Join(stateDir, "up.json") }

// StoreDir is where a state directory has its event store.
func StoreDir(stateDir string) string { return filepath.Join(stateDir, "nats") }

// writeRecord replaces a record. It is never there in part, nor for others to read,
// whatever the mode of a stale one is.
func writeRecord(path string, r Record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("record of the running firedrill: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".up-*.json") // with mode 0600
	if err != nil {
		return fmt.Errorf("record of the running firedrill: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("record of the running firedrill: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// ReadRecord finds the all-in-one that runs with a state directory; ok is false when
// none does. What a killed one has left is not taken for a running one, even if
// another process has its number by now: it does not have the store.
func ReadRecord(stateDir string) (r Record, ok bool) {
	data, err := os.ReadFile(recordPath(stateDir))
	if err != nil || json.Unmarshal(data, &r) != nil || r.PID == 0 {
		return Record{}, false
	}
	// Record and lock name the process as it knows itself, in whatever container.
	holder, used := errors.AsType[*bus.StoreLockedError](bus.StoreHolder(StoreDir(stateDir)))
	if !used || holder.PID != strconv.Itoa(r.PID) {
		return Record{}, false
	}
	return r, true
}
