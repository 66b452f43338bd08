// Package place is what the mirror needs of a location, whatever it is made of: a
// stream of what it holds, reading, and writing that stores nothing torn. The
// packages below it are the kinds of locations; placetest holds the contract that
// each of them must pass.
package place

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

var (
	// ErrChanged says that what was to be read, or to be overwritten, is no longer
	// what was seen there: nothing was written. The next run sees it as it is then.
	ErrChanged = errors.New("it changed since it was looked at")
	// ErrReadOnly says that a place cannot be written to.
	ErrReadOnly = errors.New("the place is read-only")
	// ErrRefused is part of the error of a change that the place refuses, and will refuse
	// again until somebody gives it rights, room, or the place itself back.
	ErrRefused = errors.New("the place refuses to be changed")
	// ErrNoUpload says that an upload in parts is gone, or that its parts are not what
	// they were said to be: it has to be begun anew.
	ErrNoUpload = errors.New("the upload is gone")
	// ErrNotEmpty says that a directory is not removed because it holds something.
	ErrNotEmpty = errors.New("the directory is not empty")
	// ErrCorrupt says that a place gave back, or took, other bytes than its own
	// checksum says.
	ErrCorrupt = errors.New("the content does not match its checksum")
	// ErrDamaged, which is an ErrCorrupt, says that other bytes arrived than were sent, and
	// that the place stored none of them: they may be sent again.
	ErrDamaged = fmt.Errorf("%w: it was damaged on its way, and not stored", ErrCorrupt)
)

// Place is one location, opened. Its methods may be used concurrently.
type Place interface {
	// String names the location as its user wrote it, without secrets.
	String() string
	// Traits are what was found out when it was opened.
	Traits() Traits
	// Entries streams what it holds, sorted by key, without its root and what has the name
	// of a [Trash], or lies in one. An error
	// does not end the stream unless nothing follows it; a stream that ended
	// without one was complete.
	Entries(ctx context.Context, o ListOptions) iter.Seq2[entry.Entry, error]
	// Look gives what it holds at the key of e now, with all that listing and
	// looking alone tells, but maybe without what tells changes; false if nothing.
	Look(ctx context.Context, e entry.Entry) (entry.Entry, bool, error)
	// Open opens the content of a file from byte off on: n bytes of it, or all if
	// n is negative. The error is ErrChanged where the file is no longer e. The
	// caller closes it.
	Open(ctx context.Context, e entry.Entry, off, n int64) (Content, error)

	// Put writes one entry of any kind but a directory, and makes the directories
	// above it where they are missing. It gives what the place holds then, as
	// Entries would, with the hashes that are known without reading it again.
	// Put is done wholly or not at all, and may be repeated.
	Put(ctx context.Context, w Write) (entry.Entry, error)
	// PutBatch is Put for many small files, in one request where Traits.Batch says
	// so. The outcomes are in the order of the writes.
	PutBatch(ctx context.Context, ws []Write) []Outcome
	// MakeDir makes a directory with the attributes of want, or gives them to the
	// one that is there, and the directories above it where they are missing.
	MakeDir(ctx context.Context, want entry.Entry) (entry.Entry, error)
	// SetAttrs gives have, which the place holds, the attributes of want. The
	// content stays. Where have is no longer there as it was it is ErrChanged.
	SetAttrs(ctx context.Context, want, have entry.Entry) (entry.Entry, error)
	// Remove removes what the place holds, of a directory only itself: it must be
	// empty. What is gone already is fine; what is no longer as it was is
	// ErrChanged. The errors are in the order of the entries, nil for those that
	// are gone. Where Traits.Versioned, what is removed stays as a version.
	Remove(ctx context.Context, have []entry.Entry) []error

	// Finish is called once after all writing of a run: it gives directories the
	// times that they were made with and makes what was written durable.
	Finish(ctx context.Context) error
	// Close frees what the place holds open.
	Close() error
}

// Parts is what a place can do that writes large files in parts, which may be
// put by several processes at once.
type Parts interface {
	// StartParts begins the upload of w, whose Open is not used. The token can be
	// stored, and sent to other processes.
	StartParts(ctx context.Context, w Write, partSize int64) (token []byte, err error)
	// PutPart writes part number, from 1, of size bytes from r, and may be repeated.
	// The result can be stored, and sent to other processes. The error wraps
	// ErrNoUpload where that is the reason.
	PutPart(ctx context.Context, token []byte, number int, r io.Reader, size int64) (part []byte, err error)
	// FinishParts joins the parts, in order, into the entry of w. The error wraps
	// ErrNoUpload where that is the reason.
	FinishParts(ctx context.Context, w Write, token []byte, parts [][]byte) (entry.Entry, error)
	// AbortParts frees what the upload holds. One that is gone is fine.
	AbortParts(ctx context.Context, token []byte) error
}

// Named is what a place can do where names cost less to list than attributes, which
// come with the content.
type Named interface {
	// OpenNamed opens the whole content of what was listed by its name only (see
	// [ListOptions.Names]), of any kind, and tells what it is, just as Entries would have
	// listed it with its attributes. Of what is no file there is no content: it is nil.
	// The error is ErrChanged where it is no longer what was listed, and says what is
	// wrong where that stands for no entry. The caller closes the content.
	OpenNamed(ctx context.Context, listed entry.Entry) (Content, entry.Entry, error)
}

// Righter is what a place can do whose entries have modes and owners that are not only kept.
type Righter interface {
	// SetRights gives have, which the place holds, the mode and the owner of want, and
	// touches nothing else of it, as somebody may be at work on that. Where have is no longer
	// there as it was it is ErrChanged. A directory that the mode would lock the process out
	// of gets it at Finish.
	SetRights(ctx context.Context, want, have entry.Entry) (entry.Entry, error)
	// MaySetRights tells, without trying, why SetRights of the same would be refused; nil if
	// that is not known to be.
	MaySetRights(want, have entry.Entry) error
}

// Traits are what a place can do and keep.
type Traits struct {
	// Lists are the attributes that the place keeps and that Entries carries, whatever it
	// has to ask for them.
	Lists plan.Attr
	// Holds tells why the place cannot hold an entry; nil if it holds everything.
	Holds func(entry.Entry) error
	// Claims, if not nil, reports whether what has a key is somebody else's to write and to
	// delete, as the objects of an archive are, unless a mirror has put it there.
	Claims func(key string) bool
	// Both says that it can hold a file and a directory of one name.
	Both bool
	// Versioned says that what is removed or overwritten stays as a version.
	Versioned bool
	// Identity is what tells this place from another one that is mounted, or
	// answers, under the same name; "" where nothing does.
	Identity string
	// Address is the Identity where no more is known than where the place answers, and ""
	// where Identity is never that: another one may come to answer there.
	Address string
	// Dated goes with Address: it gives, by key, when the place says that files were written,
	// in nanoseconds since the epoch, as [ListOptions.Dated] is told: of the first ones
	// whose keys begin with prefix, at most n. The place sets these times itself where
	// Identity is no more than Address, so that nobody can write the same again.
	Dated func(ctx context.Context, prefix string, n int) (map[string]int64, error)
	// FS is the file system of its root; zero for a bucket.
	FS entry.FSID
	// Batch is how many files PutBatch best takes at once; 0 means that it is no
	// faster than Put. BatchBytes is how many bytes it takes at most.
	Batch      int
	BatchBytes int64
	// Small is the largest file that PutBatch takes.
	Small int64
	// Parts says that the place implements Parts and files above PartsAbove bytes
	// should be written in parts.
	Parts      bool
	PartsAbove int64
	// ETags says that Entries carries ETags, so that contents can be compared with
	// a manifest without reading them.
	ETags bool
	// Stamp, if not nil, gives the time that Entries shows with names only for what was
	// written with a time: what shows it was not written again since, neither by the
	// place, which gives nothing the same time twice, nor by anybody who does not set
	// times. 0 is no such time.
	Stamp func(mtime int64) int64
}

// ListOptions say what of a place is listed.
type ListOptions struct {
	// Filter reports whether an entry, by its raw path and kind, takes part; what
	// it rejects is not looked at, and of a directory nothing inside either. nil
	// keeps everything. It may be called concurrently. Of kinds it may tell no more than
	// directories from all others: names alone tell no more.
	Filter func(path string, kind entry.Kind) bool
	// Names asks for no more than names, sizes, ETags and, of a place with
	// [Traits.Stamp], those times, where that is cheaper. What is no directory then looks
	// like a file.
	Names bool
	// Known streams, sorted by key, what Entries has given of this place before, as far as
	// that is remembered; nil is nothing. Where attributes cost a request for each entry, it
	// is asked for those only that [entry.Entry.Change] does not show to be as they are
	// known. An error ends what is known. It is iterated once, by a goroutine of its own.
	Known iter.Seq2[entry.Entry, error]
	// LeftOut, if not nil, is told of each path that has the name of a [Trash], or of a
	// temporary file, and is none that a mirror made: it is left out all the same. It may be
	// called concurrently.
	LeftOut func(path string)
	// Dated, if not nil, is told when the place says that a file was written, in nanoseconds
	// since the epoch, where [Traits.Dated] is there. It may be called concurrently.
	Dated func(key string, at int64)
}

// ErrReserved says that a name is the mirror's own.
var ErrReserved = errors.New("the mirror keeps what it has deleted under this name, and leaves it out: rename it")

// ErrClaimed says that what is there is not the mirror's to change.
var ErrClaimed = errors.New("it is part of a ZFS archive, which no mirror deletes or writes over: keep the two in places that are apart")

// ErrTemporary says the same of another kind of names.
var ErrTemporary = errors.New("the mirror calls its own temporary files so, and leaves it out: rename it, or leave it out with a filter")

// Content is the content of a file, or a range of it.
type Content interface {
	io.ReadCloser
	// Unchanged looks again at what is read: ErrChanged says that the file was
	// touched since it was opened or replaced, so that what was read may be torn.
	// Objects never change while they are read.
	Unchanged() error
}

// Summed is what a [Content] can be that sums up what is read of it anyway, so that nobody
// has to do it again.
type Summed interface {
	// CRC32C gives what tells the CRC32C of all that was read so far; nil where that is not
	// summed up. It is asked before anything is read.
	CRC32C() func() uint32
}

// Write is one entry to be written.
type Write struct {
	// Entry is what is to be there: its attributes, and of its Sum what is known
	// already. A file's Size is exact.
	Entry entry.Entry
	// Have is what may be overwritten, as Entries gave it; if it is absent (see
	// [plan.Present]), nothing may. Else the error is ErrChanged.
	Have entry.Entry
	// Open gives a file's content; its reader must give exactly Entry.Size bytes,
	// and an error rather than the last byte if the source changed meanwhile. It
	// may be called again after a failed try. The place closes it. Links and
	// special files have none.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Outcome is what became of one write of a batch.
type Outcome struct {
	// Entry is what the place holds now, if Err is nil.
	Entry entry.Entry
	Err   error
}
