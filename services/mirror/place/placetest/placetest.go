// Package placetest is the contract of [place.Place] as a test: what its comments
// promise, tried on a real location, with a world around it that changes the
// location behind the place's back.
package placetest

import (
	"testing"

	"github.com/firedrill/firedrill/services/mirror/place"
)

// Under is a place under test and the world around it. The hooks fail the test
// where they cannot do what they are for; paths are those of entries.
type Under struct {
	// Place is freshly opened, empty and can be written to. Whoever made it closes
	// it when the test ends.
	Place place.Place
	// WriteBehind makes a file of the content, or replaces the one that is there,
	// as another program would: not through the place. Directories above it that
	// are missing are made.
	WriteBehind func(path, content string)
	// RemoveBehind removes a file as another program would.
	RemoveBehind func(path string)
	// ReadOnly opens the same location a second time, for reading only. Whoever
	// made it closes it when the test ends.
	ReadOnly func() place.Place
	// Litter names everything that the location's storage holds and that is no
	// entry, such as temporary files and uploads that nobody finished; nil where
	// there is no such thing.
	Litter func() []string
}

// Run holds the place that open gives to the contract. Each part of the contract
// gets a place of its own. What is asked of it follows from its Traits: what it
// does not keep is not looked at.
func Run(t *testing.T, open func(t *testing.T) Under) {
	for _, part := range []struct {
		name string
		test func(*suite)
	}{
		{"an empty place holds nothing", (*suite).empty},
		{"what Put gives is what Entries lists", (*suite).putIsListed},
		{"Put replaces what it was shown", (*suite).overwrite},
		{"nothing unseen is overwritten", (*suite).unseen},
		{"what changes while Put reads is not overwritten", (*suite).changesMeanwhile},
		{"a reader that fails stores nothing", (*suite).readers},
		{"Put may be repeated", (*suite).repeated},
		{"links and special files", (*suite).kinds},
		{"extended attributes", (*suite).xattrs},
		{"directories", (*suite).directories},
		{"directories get their times at the end", (*suite).finish},
		{"names are bytes", (*suite).names},
		{"the order is that of keys", (*suite).order},
		{"SetAttrs", (*suite).setAttrs},
		{"SetAttrs of what changed", (*suite).setAttrsChanged},
		{"Remove", (*suite).remove},
		{"Remove of what changed", (*suite).removeChanged},
		{"what is put aside comes back", (*suite).aside},
		{"what changed is not put aside, nor written over", (*suite).asideChanged},
		{"what could be brought back is told", (*suite).free},
		{"what was put aside long ago is pruned", (*suite).prune},
		{"the name of the trash is reserved", (*suite).reserved},
		{"a place to be read only puts nothing aside", (*suite).asideReadOnly},
		{"PutBatch", (*suite).batch},
		{"ranges", (*suite).ranges},
		{"reading what changes", (*suite).readChanged},
		{"Look", (*suite).look},
		{"what is listed can be chosen", (*suite).filter},
		{"what is opened tells what it is", (*suite).named},
		{"opening what changed tells nothing", (*suite).namedChanged},
		{"many at once", (*suite).concurrent},
		{"a context that ended", (*suite).cancelled},
		{"a place to be read only", (*suite).readOnly},
		{"parts", (*suite).parts},
		{"parts overwrite nothing unseen", (*suite).partsUnseen},
	} {
		t.Run(part.name, func(t *testing.T) {
			u := open(t)
			s := &suite{T: t, Under: u, traits: u.Place.Traits()}
			part.test(s)
			s.clean()
		})
	}
}
