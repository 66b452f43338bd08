// Package entry is what a location of the mirror holds: one [Entry] for each
// file, directory, link or special file, whether it lies in a directory or in a
// bucket. It knows the names that entries have on either side, the order in
// which both sides are streamed, and how a bucket remembers what only a
// directory knows. It does no input or output.
//
// Everything here is pure and may be used by any number of goroutines.
package entry

import "strings"

// Kind is what an entry is. The zero value is a regular file.
type Kind byte

// The kinds of entries.
const (
	File Kind = iota
	Dir
	Symlink
	Fifo
	Socket
	CharDevice
	BlockDevice
)

// String is the kind's name as the metadata and the reports have it.
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "symlink"
	case Fifo:
		return "fifo"
	case Socket:
		return "socket"
	case CharDevice:
		return "chardev"
	case BlockDevice:
		return "blockdev"
	}
	return "unknown"
}

// parseKind is the inverse of [Kind.String].
func parseKind(s string) (Kind, bool) {
	for k := File; k <= BlockDevice; k++ {
		if k.String() == s {
			return k, true
		}
	}
	return File, false
}

// Lone says why one side of a mirror alone holds what both held once.
type Lone uint8

const (
	// NotLone: both hold it.
	NotLone Lone = iota
	// Kept: the source had it no more, and the mirror removes nothing.
	Kept
	// GoneSource: the source had it no more, and the destination holds it until a run
	// deletes it there. GoneDest is the reverse.
	GoneSource
	GoneDest
)

// Entry is one thing that a location holds.
type Entry struct {
	// Path is the raw bytes of the name below the location's root, with '/'
	// between the components and none at either end. "" is the root itself.
	Path string
	Kind Kind
	// Lone says, in a manifest, that one side alone held it. No place tells it.
	Lone Lone
	// Closed says, of a directory in a listing, that what it holds was left out, as another
	// file system begins there. It is not stored.
	Closed bool
	// Size is the number of bytes of content: of a symbolic link the length of
	// its target, of everything that is neither file nor link 0.
	Size int64
	// Mode is the permission bits with setuid, setgid and sticky, as in chmod(2).
	Mode     uint32
	UID, GID uint32
	// MTime is the time of the last modification, in nanoseconds since the epoch.
	MTime int64
	// Target is where a symbolic link points, in raw bytes.
	Target string
	// Device is the number of a character or block device, as in mknod(2).
	Device uint64
	// Xattrs are the extended attributes by their full names, where they were
	// asked for.
	Xattrs map[string][]byte
	// Change is zero where nothing tells of changes, as in a bucket whose listing tells
	// all else.
	Change Change
	// Sum is what is known of the content.
	Sum Sum
}

// FSID says which file system an entry lies in, and says the same after a
// reboot, on another mount point and, where the caller chose it, in another
// snapshot. The zero value means that it is not known. It is never a device
// number: those change with every mount.
type FSID [16]byte

// Change is what tells, together with size and modification time, whether a file
// was touched since it was last seen. Changes are compared with ==; what has a
// zero FS can be compared within one run only.
type Change struct {
	FS FSID
	// Inode is 0 for what lies in a bucket.
	Inode uint64
	// CTime is the time of the last change of the inode, or that at which a server says
	// that an object was written, in nanoseconds since the epoch. Unlike the modification
	// time it cannot be set by a program.
	CTime int64
}

// OfInode reports whether it tells of something in a directory.
func (c Change) OfInode() bool { return c.Inode != 0 }

// Shows reports whether two changes of one entry show that it was touched between them.
// One that tells nothing shows nothing.
func (c Change) Shows(other Change) bool {
	return c != other && c != Change{} && other != Change{}
}

// Has says which fields of a [Sum] are known.
type Has uint8

// The fields of a [Sum].
const (
	HasBLAKE3 Has = 1 << iota
	HasCRC32C
	HasETag
	HasPartSize
)

// Sum is the hashes of an entry's content, as far as they are known.
type Sum struct {
	// Has says which of the other fields mean something.
	Has    Has
	BLAKE3 [32]byte
	CRC32C uint32
	// ETag is the object's, without quotes.
	ETag string
	// PartSize is the number of bytes in each part but the last of an object that
	// was written in parts: without it such an ETag cannot be computed again.
	PartSize int64
}

// Contains reports whether every field named by h is known.
func (s Sum) Contains(h Has) bool { return s.Has&h == h }

// Key is the entry's escaped path, with '/' appended for a directory; the root's
// is "". Entries are ordered by it everywhere. It is total: for an entry that no
// bucket can hold it still gives a place in the order; [Entry.Check] tells.
func (e Entry) Key() string {
	if e.Path == "" {
		return ""
	}
	if e.Kind == Dir {
		return escape(e.Path, true) + "/"
	}
	return escape(e.Path, false)
}

// Compare orders keys bytewise, as S3 lists them. The result is as that of
// [strings.Compare].
func Compare(a, b string) int { return strings.Compare(a, b) }

// Check reports why a bucket cannot hold the entry: a [*NameError] where its key
// would be too long or its path is none, a [*MetaError] where its extended
// attributes are too large for user metadata.
func (e Entry) Check() error {
	if e.Path == "" {
		return e.checkMeta()
	}
	if err := checkPath(e.Path); err != nil {
		return err
	}
	if err := checkKey(e.Path, e.Key()); err != nil {
		return err
	}
	return e.checkMeta()
}
