package job

import (
	"errors"
	"fmt"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// manifestForm grows when manifests are made otherwise: older ones are made anew.
const manifestForm = 4

const (
	manifestName = "manifest"
	rootName     = "root"
)

// sealed is the signed root as it is kept: with the generation of the past that it
// was made of.
type sealed struct {
	proof.Signed
	Generation int64 `json:"generation"`
	Form       int   `json:"form"`
	// Keeps says that what the source holds no more is marked in it as kept, and not as
	// waiting for deletion.
	Keeps bool `json:"keeps,omitempty"`
	// Unread is [Result.Unread].
	Unread int64 `json:"unread,omitempty"`
}

// seal signs the root of the manifest of what is remembered, and writes that unless the
// run has done so, or the one that is there is of just that. It tells how many contents
// no run has read.
func (j *Job) seal(past *sealing) (signed proof.Signed, unread int64, err error) {
	facts, _, err := j.Facts()
	if err != nil {
		return signed, 0, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	var signer proof.Signer
	public := ""
	if j.env.Signer != nil {
		if signer, err = j.env.Signer(); err != nil {
			return signed, 0, fmt.Errorf("mirror %s: sign the manifest: %w", j.spec.Name, err)
		}
		public = signer.Public()
	}
	var before sealed
	known, err := j.store.Load(rootName, &before)
	if err != nil || known && before.Generation == facts.Generation && before.Signer == public && before.Form == manifestForm && before.Keeps == past.keeps {
		return before.Signed, before.Unread, err
	}
	root, err := past.manifest()
	if err != nil {
		return signed, 0, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	signed = proof.Signed{Root: root, Subject: j.subject(j.env.Now())}
	if signer != nil {
		if signed, err = proof.Sign(root, signed.Subject, signer); err != nil {
			return signed, 0, fmt.Errorf("mirror %s: %w", j.spec.Name, err)
		}
	}
	return signed, past.unread, j.store.Save(rootName, sealed{signed, facts.Generation, manifestForm, past.keeps, past.unread})
}

// sealing is the state of one run. When it is committed, the manifest of what it holds
// from then on is written beside it: that saves reading all of it once more.
type sealing struct {
	*state.Store
	// keeps says that the mirror removes nothing.
	keeps bool
	// file is the manifest of the last commit, and root its root; nil if there is none.
	file *state.File
	root proof.Root
	// unread is how many of the contents in the manifest no run has read.
	unread int64
}

// sealing is for one run, or for what is noted beside one.
func (j *Job) sealing() *sealing {
	return &sealing{Store: j.store, keeps: j.spec.mode == plan.Copy}
}

// Commit is the store's. A manifest that cannot be written keeps nothing from being
// remembered: manifest says then what is wrong with it.
func (s *sealing) Commit() error {
	before := s.close()
	file, err := s.Create(manifestName)
	if err != nil {
		return errors.Join(s.Store.Commit(), before)
	}
	failed := errNotWritten
	err = s.CommitRead(func(past iter.Seq2[plan.Past, error]) error {
		s.root, failed = verify.Manifest(file, s.counted(past), s.keeps)
		return nil
	})
	if err != nil { // perhaps there was no room for both
		return errors.Join(file.Close(), s.Store.Commit(), before)
	}
	if failed != nil {
		return errors.Join(file.Close(), before)
	}
	s.file = file
	return before
}

// errNotWritten stands for a commit that had nothing to do.
var errNotWritten = errors.New("nothing was committed")

// manifest gives the manifest that was written its name, or writes it now.
func (s *sealing) manifest() (proof.Root, error) {
	if file := s.file; file != nil {
		s.file = nil
		return s.root, file.Commit()
	}
	file, err := s.Create(manifestName)
	if err != nil {
		return proof.Root{}, err
	}
	root, err := verify.Manifest(file, s.counted(s.Past()), s.keeps)
	if err != nil {
		return root, errors.Join(err, file.Close())
	}
	return root, file.Commit()
}

// counted is the past, of which it counts the contents that both sides hold still and that
// nothing is known of together.
func (s *sealing) counted(past iter.Seq2[plan.Past, error]) iter.Seq2[plan.Past, error] {
	s.unread = 0
	return func(yield func(plan.Past, error) bool) {
		for p, err := range past {
			if p.Source.Kind == entry.File && plan.Present(p.Source) && plan.Present(p.Dest) && verify.Lone(&p, s.keeps) == entry.NotLone && p.Source.Sum.Shared(p.Dest.Sum).Has == 0 {
				s.unread++
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// close gives up a manifest that got no name.
func (s *sealing) close() error {
	file := s.file
	if s.file = nil; file == nil {
		return nil
	}
	return file.Close()
}
