package entry

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// The names of the user metadata of an object, without "X-Amz-Meta-".
const (
	// MetaMTime holds the modification time in seconds since the epoch with nine
	// decimals, as rclone writes and reads it.
	MetaMTime = "Mtime"
	// MetaEntry holds everything else, form-encoded in one value: in a batch each
	// name of its own would cost a header for every file.
	MetaEntry = "Firedrill"
)

// maxMeta is how many bytes of user metadata S3 and MinIO take; MinIO counts the
// whole names of the headers.
const maxMeta = 2048

const metaPrefix = "X-Amz-Meta-"

// maxMetaTarget is the longest encoded link target that is put into the metadata
// beside the body: more would leave no room for the rest.
const maxMetaTarget = 1024

// ErrMeta is what every [*MetaError] is.
var ErrMeta = errors.New("user metadata cannot be used")

// MetaError says that the metadata of an object does not describe an entry, or
// that an entry does not fit into metadata.
type MetaError struct {
	// Key is the object's key, or the entry's.
	Key string
	// Field is the metadata's field, "" for the whole.
	Field  string
	Reason string
}

// Error quotes the key, so that no control character reaches a terminal.
func (e *MetaError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("metadata of %q: %s", e.Key, e.Reason)
	}
	return fmt.Sprintf("metadata of %q: field %q: %s", e.Key, e.Field, e.Reason)
}

// Unwrap makes it an [ErrMeta].
func (e *MetaError) Unwrap() error { return ErrMeta }

// Body is the content of the object that stands for an entry which is not a
// file: the target of a symbolic link, which may be too long for metadata, and
// nothing for all others.
func (e Entry) Body() []byte {
	if e.Kind == Symlink {
		return []byte(e.Target)
	}
	return nil
}

// Meta is the user metadata that the entry's object carries, with names as
// [MetaMTime] without "X-Amz-Meta-", and values of printable ASCII. [FromMeta]
// reads it. Hashes that are known travel along; the ETag does not, since it is
// the server's. The target of a link is left out where it is long: the object's
// body has it.
func (e Entry) Meta() map[string]string {
	return map[string]string{MetaMTime: formatSeconds(e.MTime), MetaEntry: e.encodeFields()}
}

func (e Entry) encodeFields() string {
	v := url.Values{}
	v.Set("mode", strconv.FormatUint(uint64(e.Mode), 8))
	v.Set("uid", strconv.FormatUint(uint64(e.UID), 10))
	v.Set("gid", strconv.FormatUint(uint64(e.GID), 10))
	if e.Kind != File {
		v.Set("kind", e.Kind.String())
	}
	if e.Kind == Symlink && len(url.QueryEscape(e.Target)) <= maxMetaTarget {
		v.Set("target", e.Target)
	}
	if e.Device != 0 {
		v.Set("device", strconv.FormatUint(e.Device, 10))
	}
	if e.Sum.Contains(HasBLAKE3) {
		v.Set("blake3", hex.EncodeToString(e.Sum.BLAKE3[:]))
	}
	if e.Sum.Contains(HasCRC32C) {
		v.Set("crc32c", fmt.Sprintf("%08x", e.Sum.CRC32C))
	}
	if e.Sum.Contains(HasPartSize) {
		v.Set("part", strconv.FormatInt(e.Sum.PartSize, 10))
	}
	for name, value := range e.Xattrs {
		v.Set(xattrField+name, string(value))
	}
	return v.Encode()
}

// xattrField begins the fields that hold extended attributes.
const xattrField = "x."

func (e Entry) checkMeta() error {
	size := 0
	for name, value := range e.Meta() {
		size += len(metaPrefix) + len(name) + len(value)
	}
	if size > maxMeta {
		return &MetaError{e.Key(), "", fmt.Sprintf("the entry needs %d bytes and S3 takes %d: its extended attributes are too large", size, maxMeta)}
	}
	return nil
}

// FromMeta gives the entry that an object stands for: its key below the
// location's prefix, its size in bytes and its user metadata, whose names may
// have any case. An object that others wrote is a file, or a directory where its
// key ends in '/', with mode 0; of their metadata only rclone's modification time
// is read, and ignored where it is none. A link without a target has it as the
// object's body. The error is a [*NameError] for the key or a [*MetaError] for
// fields that firedrill wrote and that do not read or contradict the key.
func FromMeta(key string, size int64, meta map[string]string) (Entry, error) {
	path, dir, err := UnescapeKey(key)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: path, Size: size}
	if dir {
		e.Kind = Dir
	}
	own, mtime := "", ""
	for name, value := range meta {
		switch {
		case strings.EqualFold(name, MetaEntry):
			own = value
		case strings.EqualFold(name, MetaMTime):
			mtime = value
		}
	}
	var ok bool
	if e.MTime, ok = parseSeconds(mtime); !ok && own != "" {
		return Entry{}, &MetaError{key, MetaMTime, fmt.Sprintf("%q is no time in seconds", mtime)}
	}
	if own != "" {
		if err := e.decodeFields(key, own); err != nil {
			return Entry{}, err
		}
	}
	if (e.Kind == Dir) != dir {
		return Entry{}, &MetaError{key, "kind", fmt.Sprintf("it says %s, but a key ends in '/' for directories and only for them", e.Kind)}
	}
	switch {
	case e.Kind == Symlink && e.Target != "":
		e.Size = int64(len(e.Target))
	case e.Kind != File && e.Kind != Symlink:
		e.Size = 0
	}
	return e, nil
}

func (e *Entry) decodeFields(key, own string) error {
	fields, err := url.ParseQuery(own)
	if err != nil {
		return &MetaError{key, MetaEntry, "not form-encoded: " + err.Error()}
	}
	for field, values := range fields {
		if len(values) != 1 {
			return &MetaError{key, field, "given more than once"}
		}
		if err := e.decodeField(field, values[0]); err != nil {
			return &MetaError{key, field, err.Error()}
		}
	}
	return nil
}

// decodeField reads one field. Fields it does not know are those of a later
// version, which may only add what can be ignored.
func (e *Entry) decodeField(field, value string) (err error) {
	switch field {
	case "kind":
		var ok bool
		if e.Kind, ok = parseKind(value); !ok {
			return fmt.Errorf("%q is no kind of entry", value)
		}
	case "mode":
		e.Mode, err = parse32(value, 8)
		if err == nil && e.Mode > 0o7777 {
			err = fmt.Errorf("%q has more than the bits of chmod(2)", value)
		}
	case "uid":
		e.UID, err = parse32(value, 10)
	case "gid":
		e.GID, err = parse32(value, 10)
	case "target":
		e.Target = value
	case "device":
		e.Device, err = strconv.ParseUint(value, 10, 64)
	case "blake3":
		err = e.decodeBLAKE3(value)
	case "crc32c":
		e.Sum.CRC32C, err = parse32(value, 16)
		e.Sum.Has |= HasCRC32C
	case "part":
		e.Sum.PartSize, err = strconv.ParseInt(value, 10, 64)
		e.Sum.Has |= HasPartSize
	default:
		if name, ok := strings.CutPrefix(field, xattrField); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string][]byte{}
			}
			e.Xattrs[name] = []byte(value)
		}
	}
	return err
}

func (e *Entry) decodeBLAKE3(value string) error {
	sum, err := hex.DecodeString(value)
	if err == nil && len(sum) != len(e.Sum.BLAKE3) {
		err = fmt.Errorf("%d bytes, not %d", len(sum), len(e.Sum.BLAKE3))
	}
	if err != nil {
		return err
	}
	copy(e.Sum.BLAKE3[:], sum)
	e.Sum.Has |= HasBLAKE3
	return nil
}

func parse32(s string, base int) (uint32, error) {
	n, err := strconv.ParseUint(s, base, 32)
	return uint32(n), err
}
