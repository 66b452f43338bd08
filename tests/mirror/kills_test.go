package mirror

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// killRuns is how many runs the test makes; FIREDRILL_MIRROR_KILLS asks for another
// number, and FIREDRILL_MIRROR_SEED for other accidents.
const killRuns = 3

func TestNothingIsLostWhateverIsKilled(t *testing.T) {
	bin, self := programs(t)
	number := func(name string, other int) int {
		text := os.Getenv(name)
		if text == "" {
			return other
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	dir := t.TempDir()
	k := Kills{
		Bin: bin, Self: self, Dir: dir, Data: filepath.Join(dir, "minio"),
		Runs: number("FIREDRILL_MIRROR_KILLS", killRuns), Seed: uint64(number("FIREDRILL_MIRROR_SEED", 1)), Say: t.Logf,
	}
	res, err := k.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
}
