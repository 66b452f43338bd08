package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// Seed is the private nkey by which the clients of a private server log in. It prints
// as what it is and not as its value; only JSON holds that. Clients prove that they
// have it and do not send it: who listens where the server once was learns nothing.
type Seed string

// String hides the seed.
func (Seed) String() string { return "[hidden]" }

// GoString hides the seed from %#v.
func (Seed) GoString() string { return "[hidden]" }

// login is the option of a client that has the seed. The error does not repeat it.
func (s Seed) login() (nats.Option, error) {
	pair, err := nkeys.FromSeed([]byte(s))
	if err != nil {
		return nil, errors.New("the login of the private server is no nkey seed")
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, errors.New("the login of the private server is no nkey seed")
	}
	return nats.Nkey(public, pair.Sign), nil
}

// onlyWith makes the server let in only who has the seed that it returns, a random one.
func onlyWith(opts *server.Options) (Seed, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return "", fmt.Errorf("make a login: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return "", fmt.Errorf("make a login: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return "", fmt.Errorf("make a login: %w", err)
	}
	opts.Nkeys = []*server.NkeyUser{{Nkey: public}}
	return Seed(seed), nil
}

// StoreHolder looks who has the store directory open, in this process or another: the
// error is then a *StoreLockedError, which says so, and nil where nobody has it. It takes
// the lock for a moment where nobody has it, and makes nothing.
func StoreHolder(dir string) error {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whether the store directory is in use: %w", err)
	}
	err = filelock.TryShared(f)
	switch {
	case errors.Is(err, filelock.ErrHeld):
		return errors.Join(lockedBy(dir, f), f.Close())
	case err != nil:
		return errors.Join(fmt.Errorf("look whether the store directory %s is in use: %w", dir, err), f.Close())
	}
	return filelock.LetGo(f)
}
