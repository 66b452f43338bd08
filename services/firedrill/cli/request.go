package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror"
)

// readFile reads a drill from a file, or from standard input for "-".
func (a *app) readFile(path string) ([]byte, error) {
	in := a.In
	if path != "-" {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: there is no such file: name the file with the drill, or - for standard input", path)
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	// Some files have no end, and what is larger is refused anyway.
	raw, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%s: it has more than %d bytes: no drill is that long", path, maxFile)
	}
	return raw, err
}

// maxFile is the longest file that is read as a drill or an inventory, in bytes.
const maxFile = 16 << 20

// ownInventory is what the caller may drill with a firedrill of his own: the
// entries of --inventory, and whatever a drill brings itself.
func (a *app) ownInventory() (drill.Inventory, error) {
	if a.inventory == "" {
		return drill.OpenInventory(), nil
	}
	inv, err := injector.ReadInventory(a.inventory, a.registry, mirror.CheckInventory)
	inv.Spec.InlineTargets = true
	return inv, err
}

// check reads a drill from a file and checks or plans it.
func (a *app) check(ctx context.Context, path, verb string) (document, injector.Checked, error) {
	raw, err := a.readFile(path)
	if err != nil {
		return document{}, injector.Checked{}, err
	}
	c, err := a.checkDrill(ctx, verb, raw)
	if err != nil {
		return document{}, c, fmt.Errorf("%s: %w", path, err)
	}
	d, err := drill.Parse(raw)
	return document{raw: raw, name: d.Metadata.Name}, c, err
}

// checkDrill lets whoever has the inventory that a drill names check or plan it:
// this process with --inventory or for a drill that brings everything itself, else
// the running firedrill.
func (a *app) checkDrill(ctx context.Context, verb string, raw []byte) (injector.Checked, error) {
	check := a.checkHere
	if a.asks(raw) {
		check = a.ask
	}
	c, err := check(ctx, verb, raw)
	if err == nil && !c.Valid {
		err = &c.Problems
	}
	return c, err
}

// asks reports whether a drill is checked by the running firedrill.
func (a *app) asks(raw []byte) bool { return a.inventory == "" && len(drill.EntriesOf(raw)) > 0 }

// document is a drill as it was written, and its name.
type document struct {
	raw  []byte
	name string
}

func (a *app) checkHere(ctx context.Context, verb string, raw []byte) (injector.Checked, error) {
	inv, err := a.ownInventory()
	if err != nil {
		return injector.Checked{}, err
	}
	log, err := a.log()
	if err != nil {
		return injector.Checked{}, err
	}
	return injector.Check(ctx, injector.Config{Registry: a.registry, Inventory: inv, Clock: clock.System(), Log: log}, verb, raw), nil
}

// ask has the running firedrill check or plan a drill.
func (a *app) ask(ctx context.Context, verb string, raw []byte) (injector.Checked, error) {
	var c injector.Checked
	s, err := a.join(ctx)
	if errors.Is(err, errNoServer) || errors.Is(err, errOneRun) {
		return c, withoutInventory(raw)
	}
	if err != nil {
		return c, err
	}
	defer s.close()
	data, err := s.bus.Call(ctx, verb, raw)
	if err != nil {
		return c, failure(fmt.Errorf("asking the injector: %w", err))
	}
	return c, json.Unmarshal(data, &c)
}

// withoutInventory is what is wrong with a drill as far as that can be said when
// nobody here knows the entries that it names.
func withoutInventory(raw []byte) error {
	_, err := drill.Parse(raw)
	ps := append(drill.AsProblems(err), drill.Problem{Field: "spec.targets",
		Fix: "these name entries of an inventory that is not known here, so the rest is not checked: give its file with --inventory, or start a firedrill that has it, with `firedrill up --inventory FILE`"})
	return &ps
}

// asked is a request as it is published.
type asked struct {
	document
	subject string
	msgID   string
}

// asking makes a request of a document; without an idempotency key it gets a random one.
func asking(d document, who, msgID string) (asked, error) {
	if msgID == "" {
		var err error
		if msgID, err = randomID(); err != nil {
			return asked{}, err
		}
	}
	return asked{document: d, subject: bus.RequestSubject(who, d.name), msgID: msgID}, nil
}

// is reports whether a stored request is this one.
func (r asked) is(subject string, data []byte, msgID string) bool {
	return subject == r.subject && msgID == r.msgID && bytes.Equal(data, r.raw)
}

// request publishes a request and returns the id of its drill. Where another request
// has its idempotency key, nothing was stored, and it says so: nobody would answer.
func (a *app) request(ctx context.Context, s *session, r asked) (string, error) {
	ack, err := s.bus.Publish(ctx, r.subject, r.raw, r.msgID)
	if err != nil {
		return "", failure(fmt.Errorf("publishing the request: %w", err))
	}
	if ack.Duplicate {
		before, err := s.bus.RequestAt(ctx, ack.Seq)
		switch {
		case errors.Is(err, bus.ErrDenied):
			fmt.Fprintf(a.Err, "firedrill: request %d has the --id %q already, and may not be read from here: should it be another one, take another --id\n", ack.Seq, r.msgID)
		case err != nil:
			return "", failure(fmt.Errorf("--id %q was used before: %w", r.msgID, err))
		case !r.is(before.Subject, before.Data, before.MsgID):
			return "", fmt.Errorf("--id %q: another request has it, stored on %s on %q, so this one was not taken: take another --id", r.msgID, before.Stored.Format(time.RFC3339), before.Subject)
		}
	}
	return drill.ID(r.name, ack.Seq), nil
}

// requester is the token that stands for the caller in subjects.
func requester() string {
	uid := strconv.Itoa(os.Getuid())
	name := "uid-" + uid
	// Not user.Current, which believes $USER where a static program finds no such user.
	if u, err := user.LookupId(uid); err == nil && u.Username != "" {
		name = u.Username
	}
	return notToken().ReplaceAllString(name, "-")
}

var notToken = lazy.Regexp(`[^A-Za-z0-9_-]+`)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return errors.Join(errors.New("writing JSON"), err)
	}
	return nil
}
